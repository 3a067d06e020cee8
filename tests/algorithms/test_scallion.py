"""SCALLION and SCAFCOM: SCAFFOLD with one message, what compresses it, and where they go."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import least_squares, matrix, run_rounds, unit_quadratics

from sps_jax.algorithms import scafcom, scaffold, scallion
from sps_jax.simulation.simulate import simulate

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")
BOTH = pytest.mark.parametrize(("make", "weight"), [(scallion, "alpha"), (scafcom, "beta")])


@x64
@BOTH
@pytest.mark.parametrize("cohort", [None, 3])
@pytest.mark.parametrize("schedule", [{"local_steps": 3}, {}], ids=["fixed", "coin"])
def test_uncompressed_it_is_scaffold(make, weight, cohort, schedule):
    """With C = identity and all the weight on the round, at half the uplink: the same x, c and c_i, with batches."""
    quadratic = least_squares(batch_size=2)
    values = {"stepsize": 0.3 / quadratic.L} | ({} if schedule else {"prob": 0.4})
    run = {"rounds": 40, "evaluate_every": 40, "cohort": cohort, "encoding": "dense"} | schedule
    run = partial(simulate, problem=quadratic.problem, key=KEY, **run)
    plain, first = run(scaffold, hyper=values)
    state, history = run(make, hyper=values | {"sparsity": 0.0, "server_stepsize": 1.0, weight: 1.0})
    for ours, theirs in zip(state.server, plain.server, strict=True):
        np.testing.assert_allclose(matrix(ours), matrix(theirs), rtol=0, atol=1e-10)
    own = state.memory if make is scallion else state.memory.c
    np.testing.assert_allclose(matrix(own), matrix(plain.memory), rtol=0, atol=1e-10)
    assert 2 * history["uplink_bits"][-1] == first["uplink_bits"][-1]
    assert history["downlink_bits"][-1] == first["downlink_bits"][-1]


@x64
@BOTH
def test_the_first_round(make, weight):
    """x_1 = b - s w r (b - abar) and c_1 = w r (b - abar) / (k gamma): the weight w and the server's step s.

    From c_i = 0, k steps from b end at x_i - b = -r (b - a_i) with r = 1 - (1 - gamma)^k, so that the message of client
    i is w times its mean gradient r (b - a_i) / (k gamma), for SCAFCOM from v_i = 0.
    """
    gamma, k, w, s = 0.2, 3, 0.3, 0.7
    a, b = np.random.default_rng(0).normal(size=(4, 1, 5)), np.array([[2.0, -1.0, 0.5, 0.0, 3.0]])
    values = {"stepsize": gamma, "server_stepsize": s, weight: w, "sparsity": 0.0}
    state = run_rounds(make.__name__, unit_quadratics(a), jnp.asarray(b), rounds=1, k=k, **values)
    r = 1 - (1 - gamma) ** k
    np.testing.assert_allclose(state.server.model, b - s * w * r * (b - a.mean(0)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.server.c, w * r * (b - a.mean(0)) / (k * gamma), rtol=0, atol=1e-12)


@x64
@pytest.mark.parametrize("cohort", [None, 3])
@pytest.mark.parametrize(
    ("make", "values"),
    [
        (scallion, {"alpha": 0.25, "sparsity": 2 / 3}),
        (scallion, {"alpha": 0.5, "sparsity": 0.0, "quantize_bits": 3}),
        (scafcom, {"beta": 0.5, "sparsity": 11 / 15}),
    ],
    ids=["rand-k", "Q_r", "TopK"],
)
def test_it_reaches_the_minimiser(make, values, cohort):
    """x* itself, with c_i = grad f_i(x*) and c, their mean, zero, though messages are compressed and clients are away.

    At x* with these c_i no local step moves, so that every message is zero, and so is what compression adds to it.
    """
    quadratic = least_squares(ridge=0.5)
    given = {"stepsize": 0.2 / quadratic.L, "server_stepsize": 0.5} | values
    run = {"rounds": 4000, "local_steps": 3, "evaluate_every": 1000, "cohort": cohort}
    state, history = simulate(make, quadratic.problem, given, KEY, **run)
    own = state.memory if make is scallion else state.memory.c
    np.testing.assert_allclose(matrix(state.server.model), quadratic.optimum, rtol=0, atol=1e-9)
    np.testing.assert_allclose(matrix(own), quadratic.gradients(quadratic.optimum), rtol=0, atol=1e-8)
    np.testing.assert_allclose(matrix(own).mean(0), matrix(state.server.c), rtol=0, atol=1e-11)
    assert history["control_sum"].max() < 1e-12


@pytest.mark.parametrize(
    ("make", "values", "numbers", "each", "header"),
    [
        (scallion, {"alpha": 0.25, "sparsity": 2 / 3}, 6, 32 + 5, 0),
        (scallion, {"alpha": 0.25, "sparsity": 2 / 3, "quantize_bits": 8}, 6, 9 + 5, 32),
        (scafcom, {"beta": 0.5, "sparsity": 11 / 15}, 4 + 3, 32 + 5, 0),
    ],
    ids=["rand-k", "rand-k and Q_r", "TopK"],
)
def test_bits(make, values, numbers, each, header):
    """One vector up, with positions: 6 of 18 numbers by rand-k, 4 of 15 weights and 3 biases by TopK; two down."""
    quadratic = least_squares(dtype=np.float32)
    given = {"stepsize": 0.2 / quadratic.L, "server_stepsize": 1.0} | values
    run = {"rounds": 5, "local_steps": 3, "evaluate_every": 5}
    _, history = simulate(make, quadratic.problem, given, KEY, encoding="indices", **run)
    sent = history["uplink_bits"][-1] - 5 * 4 * header
    if "quantize_bits" in values:  # which may round a small number to zero
        assert 0.9 * 5 * 4 * numbers * each < sent <= 5 * 4 * numbers * each and sent % each == 0
    else:
        assert sent == 5 * 4 * numbers * each
    _, dense = simulate(make, quadratic.problem, given, KEY, encoding="dense", **run)
    assert dense["downlink_bits"][-1] == 5 * 4 * 2 * 18 * 32
