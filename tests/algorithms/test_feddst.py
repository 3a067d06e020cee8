"""FedDST: its masks, what they cost, and that moving them helps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import least_squares, matrix

from sps_jax.algorithms import Turn, feddst
from sps_jax.hyperparameters import prepare
from sps_jax.simulation import simulate

KEY = jax.random.key(0)
K = 4


def run(quadratic, rounds, **hyper):
    values = {"stepsize": 0.5 / quadratic.L, "sparsity": 1 - K / 15, "readjust_every": 3} | hyper
    return simulate(
        feddst, quadratic.problem, values, KEY, rounds=rounds, local_steps=4, evaluate_every=rounds, encoding="indices"
    )


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_the_mask_has_k_ones_and_the_model_lies_in_it(rounds):
    state, _ = run(least_squares(dtype=np.float32, batch_size=2), rounds)
    x, mask, t = state.server
    assert t == rounds
    assert int(mask["w"].sum()) == K and (mask["b"] == 1).all() and set(np.unique(mask["w"])) == {0, 1}
    np.testing.assert_array_equal(x["w"], x["w"] * mask["w"])


def test_only_readjustments_tell_positions():
    """Six rounds: K + 3 numbers a client and round, in the third and sixth with 5 bits of position; down likewise."""
    _, history = run(least_squares(dtype=np.float32), 2)
    assert history["uplink_bits"][-1] == history["downlink_bits"][-1] == 2 * 4 * (K + 3) * 32
    _, history = run(least_squares(dtype=np.float32), 6)
    assert history["uplink_bits"][-1] == history["downlink_bits"][-1] == 4 * (K + 3) * (6 * 32 + 2 * 5)


@pytest.mark.usefixtures("x64")
def test_moving_the_mask_finds_a_better_one():
    """Where a sparse model fits: less than half the loss with the first mask kept (``drop`` 0)."""
    quadratic = least_squares(sparse=True, ridge=0.01)
    kept = run(quadratic, 150, drop=0.0)[1]["train_loss"][-1]
    moved = run(quadratic, 150, drop=0.5)[1]["train_loss"][-1]
    assert moved < kept / 2


def test_the_first_mask_is_one_for_all_and_random():
    setup, traced, _ = prepare(feddst, {"stepsize": 0.1, "prob": 0.5, "sparsity": 0.5}, np.float32)
    params = {"w": jnp.zeros((20, 20)), "b": jnp.zeros(20)}
    masks = [setup.build(traced).init(params)[1][1]["w"] for _ in range(2)]
    np.testing.assert_array_equal(*masks)
    assert masks[0].sum() == 200 and 5 < masks[0].sum(0).min() < masks[0].sum(0).max() < 16
    assert matrix({"w": masks[0], "b": params["b"]}).shape == (21, 20)


def test_the_mask_stands_still_between_readjustments():
    """Also where weights in it are zero, as those of a pixel that never has ink."""
    setup, traced, _ = prepare(feddst, {"stepsize": 0.1, "prob": 0.5, "sparsity": 0.5}, np.float32)
    algorithm, one = setup.build(traced), jnp.float32(1)
    mask = {"w": jnp.array([0, 1, 0, 1], jnp.float32)[:, None], "b": jnp.ones(1)}
    sent = {"w": jnp.array([0, 3, 0, 0], jnp.float32)[:, None], "b": jnp.ones(1)}
    turn = Turn(KEY, KEY, jnp.int32(-1), one, 2, 2)
    _, kept, t = algorithm.serve((sent, mask, jnp.int32(0)), (sent, mask, 0 * one), turn)
    assert kept["w"].ravel().tolist() == [0, 1, 0, 1] and t == 1
