r"""More closed forms, of server pruning, FedProx and FedNova, in float64.

Equation (1) is that of ``test_identities.py``: f_i(x) = ||x - a_i||^2 / 2 and k local steps from b end at

    x_i = q^k b + (1 - q^k) (a_i + h_i),   q = 1 - gamma.                                                       (1)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import least_squares, matrix, run_rounds, unit_quadratics

pytestmark = pytest.mark.usefixtures("x64")
equal = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)

MEAN = np.array([[3.0, -2.0, 2.5, 0.5]])
"""Of the a_i."""
APART = np.array([1.0, -1.0, 0.0])[:, None, None] * np.array([[0.7, -0.4, 0.2, 1.0]])
KEPT = np.arange(4) < 2


@pytest.mark.parametrize("name", ["server_pruning", "fedcomloc_global"])
@pytest.mark.parametrize("rounds", [1, 2, 60])
def test_server_pruning_moves_the_mean_of_the_control_variates(name, rounds):
    """From b_0 in its support S, which stands still, and h_i = 0: after t rounds, with abar and hbar the means,

        b = abar + q^(kt) (b_0 - abar) on S, zero off S,   hbar = 0 on S, -(1 - r^t) abar off S

    with r = 1 - (p/gamma)(1 - q^k), for by (1) xbar = q^k b + (1 - q^k) (abar + hbar), b+ = C(xbar) and hbar+ = hbar +
    (p/gamma)(C(xbar) - xbar). In the limit hbar is grad f(b): what the server prunes, the control variates learn.
    """
    k, gamma, first = 4, 0.1, np.array([[4.0, -3.0, 0.0, 0.0]])
    problem, decay = unit_quadratics(MEAN + APART), (1 - gamma) ** k
    state = run_rounds(name, problem, jnp.asarray(first), rounds=rounds, k=k, stepsize=gamma, sparsity=0.5)
    equal(state.server, np.where(KEPT, MEAN + decay**rounds * (first - MEAN), 0))
    learnt = 1 - (1 - (1 - decay) / (k * gamma)) ** rounds
    equal(np.mean(state.memory, axis=0), np.where(KEPT, 0, -learnt * MEAN))


@pytest.mark.parametrize("rounds", [1, 2, 200])
def test_fedavg_server_pruning_reaches_the_best_sparse_model(rounds):
    """From zero b = (1 - q^(kt)) C(abar), and C(abar) minimises f(x) = ||x - abar||^2 / 2 + constant over K-sparse x.

    xbar = q^k b + (1 - q^k) abar by (1) with h_i = 0, whose largest are those of abar, at every round.
    """
    k, gamma, problem = 4, 0.1, unit_quadratics(MEAN + APART)
    first = jnp.zeros((1, 4))
    state = run_rounds("fedavg_server_pruning", problem, first, rounds=rounds, k=k, stepsize=gamma, sparsity=0.5)
    equal(state.server, (1 - (1 - gamma) ** (k * rounds)) * np.array([[3.0, 0.0, 2.5, 0.0]]))


@pytest.mark.parametrize(("given", "mu"), [({}, 0.1), ({"mu": 0.0}, 0.0), ({"mu": 2.0}, 2.0)])
def test_fedprox_pulls_towards_the_broadcast(given, mu):
    """Two local steps of one client on ||x - a||^2 / 2 from b: x_1 = b - gamma (b - a), where the pull is zero, and

        x_2 = x_1 - gamma ((x_1 - a) + mu (x_1 - b)),

    with mu = 0.1 where none is given, as the docstring says.
    """
    gamma, b, problem = 0.1, np.array([[4.0, -3.0, 0.0, 1.0]]), unit_quadratics(MEAN[None])
    state = run_rounds("fedprox", problem, jnp.asarray(b), rounds=1, k=2, stepsize=gamma, **given)
    x = b - gamma * (b - MEAN)
    equal(state.server, x - gamma * ((x - MEAN) + mu * (x - b)))


def test_fednova_with_equal_steps_is_fedavg():
    """b - tau mean (b - x_i) / tau = mean x_i, on least squares."""
    quadratic = least_squares()
    values = {"rounds": 5, "k": 3, "stepsize": 0.5 / quadratic.L}
    first = quadratic.problem.init(jax.random.key(0))
    nova = run_rounds("fednova", quadratic.problem, first, **values, tau_min=3.0, tau_max=3.0)
    equal(matrix(nova.server), matrix(run_rounds("fedavg", quadratic.problem, first, **values).server))


def test_fedavg_server_pruning_with_one_step_is_iterative_hard_thresholding():
    """p = 1: b <- C(b - gamma grad f(b)), on least squares; C keeps 6 of 15 weights and the bias, row 0."""
    quadratic = least_squares()
    gamma, first = 0.5 / quadratic.L, quadratic.problem.init(jax.random.key(0))
    state = run_rounds("fedavg_server_pruning", quadratic.problem, first, rounds=6, k=1, stepsize=gamma, sparsity=0.6)
    b = matrix(first)
    for _ in range(6):
        b = b - gamma * quadratic.gradients(b).mean(0)
        b[1:].ravel()[np.argsort(-np.abs(b[1:]).ravel())[6:]] = 0
    equal(matrix(state.server), b)
