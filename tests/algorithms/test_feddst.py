"""FedDST: its masks, when they move and by what, what they cost, and that moving them helps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import least_squares, matrix

from sps_jax.algorithms import ALGORITHMS, RoundInfo, feddst
from sps_jax.algorithms.feddst import FedDSTMessage, FedDSTState, half_the_steps
from sps_jax.compression import Sparsifier
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.simulate import simulate

KEY = jax.random.key(0)
K = 4


def run(quadratic, rounds, evaluate_every=None, **hyper):
    values = {"stepsize": 0.5 / quadratic.L, "sparsity": 1 - K / 15, "readjust_every": 3} | hyper
    often = {"rounds": rounds, "evaluate_every": evaluate_every or rounds}
    return simulate(feddst, quadratic.problem, values, KEY, local_steps=4, encoding="indices", **often)


@pytest.mark.slow
def test_the_mask_has_k_ones_and_the_model_lies_in_it():
    """After each of four rounds, of which the third readjusts."""
    quadratic = least_squares(dtype=np.float32, batch_size=2)
    values = {"stepsize": 0.5 / quadratic.L, "sparsity": 1 - K / 15, "readjust_every": 3}
    method = prepare(feddst, values, np.float32, local_steps=4)
    algorithm = method.algorithm()
    state = start(algorithm, quadratic.problem, KEY)
    round_after = jax.jit(lambda state: one_round(algorithm, quadratic.problem, method.schedule, state, KEY)[0])
    for rounds in (1, 2, 3, 4):
        state = round_after(state)
        x, mask, t, _ = state.server
        assert t == rounds
        assert int(mask["w"].sum()) == K and (mask["b"] == 1).all() and set(np.unique(mask["w"])) == {0, 1}
        np.testing.assert_array_equal(x["w"], x["w"] * mask["w"])


def test_only_readjustments_tell_positions():
    """Six rounds: K + 3 numbers a client and round, in the third and sixth with 5 bits of position; down likewise."""
    _, history = run(least_squares(dtype=np.float32), 6, evaluate_every=2)
    for column in ("uplink_bits", "downlink_bits"):
        assert history[column][0] == 2 * 4 * (K + 3) * 32
        assert history[column][-1] == 4 * (K + 3) * (6 * 32 + 2 * 5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_moving_the_mask_finds_a_better_one():
    """Where a sparse model fits: less than half the loss with the first mask kept (``drop`` 0)."""
    quadratic = least_squares(sparse=True, ridge=0.01)
    kept = run(quadratic, 150, drop=0.0)[1]["train_loss"][-1]
    moved = run(quadratic, 150, drop=0.5)[1]["train_loss"][-1]
    assert moved < kept / 2


def test_the_first_mask_is_one_for_all_and_random():
    method = prepare(feddst, {"stepsize": 0.1, "prob": 0.5, "sparsity": 0.5}, np.float32)
    params = {"w": jnp.zeros((20, 20)), "b": jnp.zeros(20)}
    masks = [method.algorithm().init(params)[1][1]["w"] for _ in range(2)]
    np.testing.assert_array_equal(*masks)
    assert masks[0].sum() == 200 and 5 < masks[0].sum(0).min() < masks[0].sum(0).max() < 16
    assert matrix({"w": masks[0], "b": params["b"]}).shape == (21, 20)


def test_the_mask_stands_still_between_readjustments():
    """Also where weights in it are zero, as those of a pixel that never has ink."""
    method = prepare(feddst, {"stepsize": 0.1, "prob": 0.5, "sparsity": 0.5}, np.float32)
    algorithm, one = method.algorithm(), jnp.float32(1)
    mask = {"w": jnp.array([0, 1, 0, 1], jnp.float32)[:, None], "b": jnp.ones(1)}
    sent = {"w": jnp.array([0, 3, 0, 0], jnp.float32)[:, None], "b": jnp.ones(1)}
    info = RoundInfo(KEY, KEY, jnp.int32(-1), one, 2, 2)
    _, kept, t, _ = algorithm.serve(
        FedDSTState(sent, mask, jnp.int32(0), False), FedDSTMessage(sent, mask, 0 * one), info
    )
    assert kept["w"].ravel().tolist() == [0, 1, 0, 1] and t == 1


# --- when a readjustment is, and by which gradient ---------------------------------------------------------------


def column(*numbers):
    return {"w": jnp.asarray(numbers, jnp.float32)[:, None]}


def entries(params):
    return params["w"].ravel().tolist()


SLOPE = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 2]], np.float32)


def gradient(params):
    """Of x_0^2 / 2 + x_0 x_3 + x_3^2 + 3 x_2: (x_0 + x_3, 0, 3, x_0 + 2 x_3)."""
    return {"w": SLOPE @ params["w"] + column(0, 0, 3, 0)["w"]}


def begun(k, transform=None, on="direction", last_round=True):
    """A method with gamma = 1/2, two of four weights, of which a readjustment moves one; x where a round begins."""
    values = {"stepsize": 0.5, "sparsity": 0.5, "drop": 0.5}
    method = prepare(feddst, values, np.float32, local_steps=k, transform=transform, transform_on=on)
    algorithm, t = method.algorithm(), jnp.int32(9 if last_round else 0)
    h, _ = jax.jit(algorithm.init)(column(4, 1, 0, 0))
    b = FedDSTState(column(4, 1, 0, 0), column(1, 1, 0, 0), t, jnp.bool_(False))
    return method, algorithm.start(b, h), h, b


@jax.jit
def local_step(method, x, h, b):
    algorithm = method.algorithm()
    return algorithm.move(x, algorithm.direction(x, h, b, gradient, KEY))


def stepped(method, x, h, b, steps):
    """x after each of so many local steps."""
    seen = [x]
    for _ in range(steps):
        seen.append(local_step(method, seen[-1], h, b))
    return seen[1:]


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_the_mask_moves_after_exactly_half_the_local_steps(k):
    """Steps 0, ..., floor(k/2) - 1 train what was in the old mask, all others what is in the new one."""
    seen = stepped(*begun(k), steps=k)
    for part in (0, 1):  # x is not zero just where the mask is one
        where = [(np.asarray(x[part]["w"]) != 0).ravel().tolist() for x in seen]
        assert [each == [1, 1, 0, 0] for each in where] == [True] * (k // 2) + [False] * (k - k // 2)
        assert len(set(map(tuple, where[k // 2 :]))) == 1 and sum(where[-1]) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_half_the_steps_is_exact(dtype, x64):
    """For every k up to 10,000, as prob and as local_steps, which is 1/k in the dtype of the parameters."""
    k = np.arange(1, 10_001)
    np.testing.assert_array_equal(half_the_steps(jnp.asarray(1 / k, dtype)), k // 2)
    traced = prepare(feddst, {"stepsize": 0.1, "sparsity": 0.5}, dtype, local_steps=10).hyper
    assert half_the_steps(traced["prob"]) == 5 and traced["prob"].dtype == dtype
    assert half_the_steps(jnp.asarray(jnp.finfo(dtype).eps)) >= 2**22  # and no overflow


def test_weights_come_back_by_the_gradient_at_the_new_x():
    """Two local steps from (4, 1, 0, 0), mask {0, 1}.

    The first: gradient (4, 0, 3, 4), so x = (2, 1, 0, 0). There it is (2, 0, 3, 2): 1 goes, the smaller weight, and 2
    comes, where the gradient before the step would have brought 3. x = (2, 0, 0, 0), mask {0, 2}, whose gradient is
    still (2, 0, 3, 2), so the second step ends at (1, 0, -3/2, 0), and what came back is not zero when it is sent.
    """
    method, x, h, b = begun(2)
    first, second = stepped(method, x, h, b, steps=2)
    assert entries(first[0]) == [2, 1, 0, 0] and entries(first[1]) == [1, 1, 0, 0]
    assert entries(second[0]) == [1, 0, -1.5, 0] and entries(second[1]) == [1, 0, 1, 0]
    info = RoundInfo(KEY, KEY, jnp.int32(0), jnp.float32(2), 1, 1)
    sent, mask, told = method.algorithm().send(second, h, b, gradient, info)
    assert entries(sent) == [1, 0, -1.5, 0] and entries(mask) == [1, 0, 1, 0] and told == 1


def test_one_local_step_comes_after_the_readjustment():
    """By the gradient (4, 0, 3, 4) at b = (4, 1, 0, 0): 1 goes, 3 comes; then (4, 0, 0, 0) moves to (2, 0, 0, -2)."""
    (x,) = stepped(*begun(1), steps=1)
    assert entries(x[0]) == [2, 0, 0, -2] and entries(x[1]) == [1, 0, 0, 1]


def test_a_round_that_ends_early_moves_no_mask():
    """Five steps of a coin with p = 0.1, which would have moved it before the sixth; nor does any other round."""
    assert entries(stepped(*begun(10), steps=5)[-1][1]) == [1, 1, 0, 0]
    assert entries(stepped(*begun(2, last_round=False), steps=9)[-1][1]) == [1, 1, 0, 0]


def conditions(jaxpr):
    """All ``cond`` in a program, those in its loops and functions too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from conditions(inner)


def test_other_steps_do_not_pay_for_it():
    """The second gradient of a local step is in a branch, for all clients at once too: vmap has made no select of it.

    The products with the data are those of two gradients, of one in the branch.
    """
    problem = least_squares(dtype=np.float32, batch_size=2).problem
    values = {"stepsize": 0.1, "sparsity": 0.5}
    chosen = prepare(feddst, values, np.float32, local_steps=4)
    method, schedule = chosen.algorithm(), chosen.schedule
    state = start(method, problem, KEY)
    program = jax.make_jaxpr(partial(one_round, method, problem, schedule))(state, KEY)
    products = [str(equation).count("dot_general[") for equation in conditions(program.jaxpr)]
    products = [count for count in products if count]  # TopK chooses by platform, without a product
    each = str(
        jax.make_jaxpr(partial(one_round, ALGORITHMS["fedavg"](stepsize=0.1, prob=0.25), problem, schedule))(
            state._replace(server=problem.init(KEY)), KEY
        )
    ).count("dot_general[")
    assert each > 0 and products == [each] and str(program).count("dot_general[") == 2 * each


# --- with transforms ---------------------------------------------------------------------------------------------


def test_clipping_is_of_the_direction_in_the_mask():
    """At norm 1: step 0 of two follows (4, 0), so (1, 0), to x = (3.5, 1, 0, 0).

    Then the gradient is (3.5, 0, 3, 3.5): 1 goes, 3 comes. The direction is (3.5, 0, 0, 3.5), clipped to length 1, and
    half of it is taken. With x, mask or the dense gradient in what is clipped, either step would be shorter.
    """
    (first, _), (second, _) = stepped(*begun(2, optax.clip_by_global_norm(1.0)), steps=2)
    assert entries(first[0]) == [3.5, 1, 0, 0]
    np.testing.assert_allclose(entries(second[0]), [3.5 - 0.5**1.5, 0, 0, -(0.5**1.5)], rtol=1e-6)
    assert entries(second[1]) == [1, 0, 0, 1]


def test_clipping_the_gradient_is_of_all_of_it():
    """At norm 1 step 0 follows 4 / sqrt(4^2 + 3^2 + 4^2) = 4 / sqrt(41) of the dense gradient."""
    (first,) = stepped(*begun(2, optax.clip_by_global_norm(1.0), on="gradient"), steps=1)
    np.testing.assert_allclose(entries(first[0]), [4 - 2 / 41**0.5, 1, 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [optax.trace(0.9), optax.add_noise(1.0, 0.0, jax.random.key(0)), optax.add_decayed_weights(0.1)],
    ids=["momentum", "noise", "decay"],
)
def test_no_transform_leads_out_of_the_mask(transform):
    """Momentum of the weight that went and noise everywhere are not followed; decay is of the readjusted x."""
    with jax.numpy_dtype_promotion("standard"):  # what optax's noise needs
        steps = stepped(*begun(3, transform), steps=3)
    for x, _ in steps:
        np.testing.assert_array_equal(x[0]["w"] != 0, x[1]["w"] == 1)


# --- a sparsity that grows ---------------------------------------------------------------------------------------


def test_the_mask_shrinks_within_itself_to_the_largest():
    """From three of four to two: of (5, 1, 3) in the mask 1 goes; the 9 outside of it does not come."""
    at = partial(feddst, stepsize=jnp.float32(0.5), prob=jnp.float32(0.5))
    one, info = jnp.float32(1), RoundInfo(KEY, KEY, jnp.int32(-1), jnp.float32(2), 2, 2)
    server = FedDSTState(column(5, 1, 3, 0), column(1, 1, 1, 0), jnp.int32(0), jnp.bool_(False))
    x, mask, _, told = at(sparsity=jnp.float32(0.5)).serve(server, FedDSTMessage(*server[:2], 0 * one), info)
    assert entries(x) == [5, 0, 3, 0] and entries(mask) == [1, 0, 1, 0] and told
    x, mask, _, told = at(sparsity=jnp.float32(0.25)).serve(server, FedDSTMessage(*server[:2], 0 * one), info)
    assert entries(x) == [5, 1, 3, 0] and entries(mask) == [1, 1, 1, 0] and not told


def test_a_smaller_mask_is_told():
    """T = 2, so K = 15, 15 (1 - 0.875 s) and 4: round by round up 15, 5 and 4, 4 of 15 weights at known places.

    Down go 5 at positions of 5 bits and 3 biases, which are told as well, 4 likewise, then 4 without.
    """
    _, history = run(least_squares(dtype=np.float32), 4, sparsity_rounds=2, readjust_every=10)
    k = [15, round(15 * (1 - 0.875 * 11 / 15)), 4, 4]
    assert k[1] == 5
    assert history["uplink_bits"][-1] == 4 * 32 * sum(k + [3] * 4)
    assert history["downlink_bits"][-1] == 4 * (32 * sum(k[1:] + k[3:] + [3] * 4) + 5 * (k[1] + 3 + k[2] + 3))


@pytest.mark.slow
def test_a_cohort_is_told_the_mask_each_time():
    """Two of four clients a round, two rounds: who takes part may have missed the last mask, and keeps none."""
    quadratic = least_squares(dtype=np.float32)
    values = {"stepsize": 0.01, "sparsity": 1 - K / 15}
    run = partial(simulate, feddst, quadratic.problem, values, KEY, rounds=2, local_steps=4, encoding="indices")
    _, all_of_them = run(evaluate_every=2)
    _, some = run(evaluate_every=2, cohort=2)
    assert all_of_them["downlink_bits"][-1] == 2 * 4 * 32 * (K + 3)
    assert some["uplink_bits"][-1] == 2 * 2 * 32 * (K + 3)
    assert some["downlink_bits"][-1] == 2 * 2 * (32 + 5) * (K + 3)


@pytest.mark.parametrize("structure", ["blocks:3x3", "rows", "filters"])
def test_blocks_of_zeros_stay_in_the_mask(structure):
    """From x = 0 with no gradient nothing moves: chosen among equals is what was there, not what comes first."""
    params = {"w": jnp.zeros((10, 10))}
    prune = Sparsifier(structure=structure)
    method = feddst(stepsize=jnp.float32(0.1), prob=jnp.float32(0.5), sparsity=jnp.float32(0.5), prune=prune)
    _, server = method.init(params)
    info = RoundInfo(KEY, KEY, jnp.int32(-1), jnp.float32(2), 3, 3)
    serve = jax.jit(lambda server, mean: method.serve(server, mean, info))
    _, after, _, told = serve(server, FedDSTMessage(server.model, server.mask, jnp.float32(0)))
    mask = server.mask
    np.testing.assert_array_equal(after["w"], mask["w"])
    assert not told and mask["w"].any() and not mask["w"].ravel()[:50].all()


def test_positions_are_those_of_blocks():
    """Of 15 weights and 3 biases in rows of 3, two rows: 6 + 3 numbers, and when told 2 + 3 positions of 3 bits."""
    prune = Sparsifier(structure="rows")
    _, history = run(least_squares(dtype=np.float32), 3, sparsity=0.6, prune=prune)
    assert history["uplink_bits"][-1] == history["downlink_bits"][-1] == 4 * (3 * 9 * 32 + (2 + 3) * 3)
