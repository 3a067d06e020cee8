"""FedSMU: its equations, where signs lead, and what a sign costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import least_squares, run_rounds, unit_quadratics

from sps_jax.algorithms import fedsmu
from sps_jax.compression.bits import KNOWN, SIGNS, MessageCount, message_bits
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.simulate import simulate

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")
PLAIN = {"beta1": 0.0, "beta2": 0.0, "weight_decay": 0.0}
A, FIRST = np.random.default_rng(0).normal(size=(5, 1, 3)), np.array([[2.0, -1.0, 0.5]])


@x64
@pytest.mark.parametrize("rounds", [1, 2, 6])
def test_some_rounds_by_hand(rounds):
    """Where f_i(x) = ||x - a_i||^2 / 2, k steps from b end at d_i = r (a_i - b), r = 1 - (1 - gamma)^k."""
    gamma, k, step, beta1, beta2, decay = 0.2, 3, 0.3, 0.8, 0.6, 0.05
    b, m, r = FIRST, np.zeros_like(A), 1 - (1 - gamma) ** k
    for _ in range(rounds):
        d = r * (A - b)
        sent = np.sign(beta1 * m + (1 - beta1) * d)
        m = beta2 * m + (1 - beta2) * d
        b = (1 - step * decay) * b + step * sent.mean(0)
    values = {"server_stepsize": step, "beta1": beta1, "beta2": beta2, "weight_decay": decay}
    problem = unit_quadratics(A)
    state = run_rounds("fedsmu", problem, jnp.asarray(FIRST), rounds=rounds, k=k, stepsize=gamma, **values)
    np.testing.assert_allclose(state.server, b, rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.memory, m, rtol=0, atol=1e-12)


@x64
def test_it_goes_to_the_median_of_the_clients():
    """b moves by s (clients above - clients below) / n: to the median of the a_i, up to s, and not to their mean."""
    step = 1e-3
    values = {"stepsize": 0.2, "server_stepsize": step} | PLAIN
    state = run_rounds("fedsmu", unit_quadratics(A), jnp.asarray(FIRST), rounds=40_000, k=2, **values)
    assert np.abs(np.asarray(state.server) - np.median(A, axis=0)).max() < step
    assert np.abs(np.median(A, axis=0) - A.mean(0)).max() > 50 * step


@x64
def test_nobody_moves_the_model_for_clients_that_are_away():
    """Two of five clients of unequal weight, each weight divided by its probability: the step is theirs alone.

    With momentum, a client that takes no step would send a sign all the same.
    """
    weights = np.array([0.1, 0.3, 0.2, 0.2, 0.2])
    values = {"stepsize": 0.2, "server_stepsize": 0.5, "beta1": 0.9, "beta2": 0.5, "weight_decay": 0.0}
    run = {"k": 2, "cohort": Cohort(2), **values}
    problem = unit_quadratics(A, weights)
    before = run_rounds("fedsmu", problem, jnp.asarray(FIRST), rounds=4, **run)
    after = run_rounds("fedsmu", problem, jnp.asarray(FIRST), rounds=5, **run)
    own = np.flatnonzero(np.any(np.asarray(before.memory != after.memory), axis=(1, 2)))
    d = 2 * (np.asarray(after.memory) - 0.5 * np.asarray(before.memory))[own]  # m+ = (m + d) / 2
    sent = np.sign(0.9 * np.asarray(before.memory)[own] + 0.1 * d)
    due = before.server + 0.5 * np.einsum("i,ijk->jk", weights[own] / (2 / 5), sent)  # 2 of 5 are drawn
    np.testing.assert_allclose(after.server, due, rtol=0, atol=1e-7)  # the probability is of float32


@pytest.mark.parametrize(("encoding", "bits"), [("cheapest", 18), ("indices", 18), ("bitmap", 18), ("dense", 36)])
def test_one_bit_a_number(encoding, bits):
    """Up, under every encoding that tells zeros from signs only where there are any; the model down."""
    quadratic = least_squares(dtype=np.float32)
    values = {"stepsize": 0.2 / quadratic.L, "server_stepsize": 0.1} | PLAIN
    run = {"rounds": 5, "local_steps": 3, "evaluate_every": 5, "encoding": encoding}
    _, history = simulate(fedsmu, quadratic.problem, values, KEY, **run)
    assert history["uplink_bits"][-1] == 5 * 4 * bits


def test_bits_of_signs_that_are_zero():
    """Of 100 numbers 3 are zero: 97 bits and a map of 100; 97 are zero: 3 bits and 3 indices of 7; or 2 bits each."""
    for zeros, counts, bits in ((0, (100, KNOWN), 100), (3, (97, 97), 197), (97, (3, 3), 24)):
        message = jnp.where(jnp.arange(100) < zeros, 0.0, -1.0)
        count, size = SIGNS.count(message, None), SIGNS.size(message)
        assert count == MessageCount(*counts)
        assert message_bits(count, size) == bits and message_bits(count, size, "dense") == 200
