"""EF21 and EF21-SGDM: their theorem, and what they are equal to."""

from functools import partial

import chex
import jax
import numpy as np
import pytest
from jax import lax
from problems import least_squares, matrix

from sps_jax.algorithms import ef21, ef21_sgdm
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.simulate import simulate

KEY, KEEP, WEIGHTS = jax.random.key(0), 4, 15
SPARSITY = 1 - KEEP / WEIGHTS
x64 = pytest.mark.usefixtures("x64")


def trajectory(make, quadratic, rounds, **values):
    """The model before each round (T, ...), and every client's e_i after it (T, n, ...)."""
    method = prepare(make, {"sparsity": SPARSITY} | values, np.float64)
    algorithm = method.algorithm()

    def body(state, _):
        after, _ = one_round(algorithm, quadratic.problem, method.schedule, state, KEY)
        return after, (algorithm.model(state.server), after.memory)

    return jax.jit(lambda: lax.scan(body, start(algorithm, quadratic.problem, KEY), length=rounds)[1])()


def bounds(quadratic):
    """gamma of the theorem, mu of f and theta: C keeps K of d numbers, so alpha = K/d, and all of the bias."""
    alpha = KEEP / WEIGHTS
    theta = 1 - np.sqrt(1 - alpha)
    beta = (1 - alpha) / theta
    own = np.linalg.eigvalsh(quadratic.H).max(axis=1)
    mu, *_, L = np.linalg.eigvalsh(quadratic.H.mean(0))
    return min(1 / (L + np.sqrt(np.mean(own**2) * 2 * beta / theta)), theta / (2 * mu)), mu, theta


@x64
def test_linear_convergence_to_the_minimiser():
    r"""Psi = f(x) - f* + (gamma / (n theta)) sum ||e_i - grad f_i(x)||^2 falls by 1 - gamma mu a step.

    Richtarik et al. 2021, arXiv 2106.05203. With G = (1/n) sum ||e_i - grad f_i(x)||^2 and R = ||x+ - x||^2, the
    contraction of C gives G+ <= (1 - theta) G + beta Ltilde^2 R; smoothness, with the step along e, f(x+) <= f(x) -
    (gamma/2) ||grad f(x)||^2 - (1/(2 gamma) - L/2) R + (gamma/2) G; and ||grad f||^2 >= 2 mu (f - f*). For this gamma
    the terms with R cancel, and gamma/2 + (gamma/theta)(1 - theta) <= (gamma/theta)(1 - gamma mu).
    """
    quadratic = least_squares(ridge=0.5)
    gamma, mu, theta = bounds(quadratic)
    x, e = map(matrix, trajectory(ef21, quadratic, 4000, stepsize=gamma))
    off = x - quadratic.optimum
    f = np.einsum("tfc,fg,tgc->t", off, quadratic.H.mean(0), off) / 2
    error = np.stack([np.sum((e[t] - quadratic.gradients(x[t])) ** 2) / 4 for t in range(len(x))])
    psi = f + gamma / theta * error
    held = psi[:-1] > 1e-20 * psi[0]
    assert held.sum() > 500 and (psi[1:][held] <= (1 - gamma * mu) * psi[:-1][held] * (1 + 1e-9)).all()
    assert np.abs(off[-1]).max() < 1e-9


@x64
def test_plain_compression_stays_away_from_it():
    """x <- x - gamma mean C(grad f_i(x)) moves away from x* itself, where only the gradients' mean is zero."""
    quadratic = least_squares(ridge=0.5)
    gamma, _, _ = bounds(quadratic)
    x = quadratic.optimum
    for _ in range(4000):
        gradients = quadratic.gradients(x)
        weights = gradients[:, 1:].reshape(4, -1)
        least = np.sort(np.abs(weights), axis=1)[:, -KEEP]
        gradients[:, 1:] = np.where(np.abs(weights) >= least[:, None], weights, 0).reshape(gradients[:, 1:].shape)
        x = x - gamma * gradients.mean(0)
    assert np.abs(x - quadratic.optimum).max() > 1e-2


@x64
@pytest.mark.parametrize("momentum", [0.2, 1.0])
def test_momentum_reaches_it_too(momentum):
    """With full gradients v_i, and so e_i, goes to grad f_i(x*); the server's e is the mean of all e_i."""
    quadratic = least_squares(ridge=0.5)
    gamma, _, _ = bounds(quadratic)
    values = {"stepsize": gamma, "sparsity": SPARSITY, "momentum": momentum}
    state, _ = simulate(ef21_sgdm, quadratic.problem, values, KEY, rounds=4000, evaluate_every=4000)
    np.testing.assert_allclose(matrix(state.server.model), quadratic.optimum, rtol=0, atol=1e-9)
    for kept in state.memory:
        np.testing.assert_allclose(matrix(kept), quadratic.gradients(quadratic.optimum), rtol=0, atol=1e-8)
    np.testing.assert_allclose(matrix(state.memory.e).mean(0), matrix(state.server.e), rtol=0, atol=1e-12)


@x64
@pytest.mark.parametrize("cohort", [None, 3])
def test_with_all_the_weight_on_the_newest_gradient_it_is_ef21(cohort):
    """eta = 1, with batches: the same numbers, bit by bit."""
    quadratic = least_squares(batch_size=2)
    values = {"stepsize": 0.1 / quadratic.L, "sparsity": SPARSITY}
    run = partial(simulate, problem=quadratic.problem, key=KEY, rounds=30, evaluate_every=30, cohort=cohort)
    one, _ = run(ef21, hyper=values)
    other, _ = run(ef21_sgdm, hyper=values | {"momentum": 1.0})
    chex.assert_trees_all_equal(one.server, other.server)
    chex.assert_trees_all_equal(one.memory, other.memory.e)


def test_bits():
    """K weights and 3 biases of 32 bits, at positions of 5 bits, up; the dense model down."""
    quadratic = least_squares(dtype=np.float32)
    values = {"stepsize": 0.1 / quadratic.L, "sparsity": SPARSITY}
    _, history = simulate(ef21, quadratic.problem, values, KEY, rounds=5, evaluate_every=5, encoding="indices")
    assert history["uplink_bits"][-1] == 5 * 4 * (KEEP + 3) * (32 + 5)
    assert history["downlink_bits"][-1] == 5 * 4 * 18 * (32 + 5)
