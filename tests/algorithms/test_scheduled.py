"""Numbers that change from round to round: the server's update that ends a round has the numbers of that round.

Two rounds of two local steps with full gradients, as in the papers, in NumPy. The server repeats what the clients do,
so that with the next round's numbers its copies would part from theirs.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.random import key
from problems import REQUIRED, hyper, least_squares, matrix, tree

from sps_jax.algorithms import ALGORITHMS
from sps_jax.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("x64")
STEPS, P, L1 = 2, 0.5, 0.5
START = np.random.default_rng(5).normal(size=(6, 3))
near = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)  # noqa: E731


def run(name, rounds=2, **varying):
    """The state after the rounds; each number of ``varying`` has its first value in round 0, then its second."""
    schedules = {name: lambda t, pair=pair: jnp.where(t < 1, *pair) for name, pair in varying.items()}
    values = hyper(name, stepsize=0.02, l1=L1, alpha=0.2, sparsity=0.0) | schedules
    options = {"rounds": rounds, "local_steps": STEPS, "params": tree(START)}
    state, _ = simulate(ALGORITHMS[name], least_squares().problem, values, key(3), **options)
    return state.server[0], state.memory


def local_steps(gamma, b, correction=lambda x: 0 * x):
    """x_i after x <- x - gamma (grad f_i(x) - correction)."""
    x = np.stack([b] * 4)
    for _ in range(STEPS):
        x = x - gamma * (least_squares().gradients(x) - correction(x))
    return x


def test_locodl():
    """Server and clients have one y and one v; mean u_i + v = 0; messages are whole."""
    server, memory = run("locodl", stepsize=(0.02, 0.01))
    rho, eta, ridge = REQUIRED["rho"], REQUIRED["eta"], REQUIRED["ridge"]
    x, y, u, v = np.stack([START] * 4), START, np.zeros((4, 6, 3)), np.zeros((6, 3))
    for gamma in (0.02, 0.01):
        for _ in range(STEPS):
            x = x - gamma * (least_squares().gradients(x) - ridge * x - u)
            y = y - gamma * (ridge * y - v)
        d = x - y
        x, y = (1 - rho) * x + rho * (y + d.mean(0) / 2), y + rho * d.mean(0) / 2
        u, v = u + eta * (d.mean(0) / 2 - d), v + eta * d.mean(0) / 2
    near(matrix(server.y), y)
    near(matrix(server.v), v)
    for mine, theirs in zip(memory, (x, u, np.stack([y] * 4), np.stack([v] * 4)), strict=True):
        near(matrix(mine), theirs)


def test_randprox_server():
    """The server's mean of the h_i is their mean."""
    server, memory = run("randprox_server", stepsize=(0.02, 0.01))
    b, h = START, np.zeros((4, 6, 3))
    for gamma in (0.02, 0.01):
        x = local_steps(gamma, b, lambda x, h=h: h)
        y = (x - gamma / P * h).mean(0)
        b = np.sign(y) * np.maximum(np.abs(y) - gamma / P * L1, 0)
        h = h + P / gamma * (b - x)
    near(matrix(server.model), b)
    near(matrix(server.mean_h), h.mean(0))
    near(matrix(memory), h)


def test_feddyn():
    """The server's s is the mean of the l_i."""
    server, memory = run("feddyn", alpha=(0.2, 0.4))
    b, l = START, np.zeros((4, 6, 3))
    for alpha in (0.2, 0.4):
        x = local_steps(0.02, b, lambda x, b=b, l=l, alpha=alpha: l - alpha * (x - b))
        l = l - alpha * (x - b)
        b = x.mean(0) - l.mean(0) / alpha
    near(matrix(server.model), b)
    near(matrix(server.s), l.mean(0))
    near(matrix(memory), l)


def test_scallion_of_whole_messages_is_scaffold():
    """With alpha = 1: the server goes as far as the clients went, to their mean."""
    server, _ = run("scallion", stepsize=(0.02, 0.01), alpha=(1.0, 1.0))
    scaffold, _ = run("scaffold", stepsize=(0.02, 0.01))
    near(matrix(server.model), matrix(scaffold.model))
    near(matrix(server.c), matrix(scaffold.c))


def test_fedavgm():
    """b <- b + eta_t m with m <- m / 2 + mean (x_i - b)."""
    server, _ = run("fedavgm", server_stepsize=(0.7, 0.3), momentum=(0.5, 0.5))
    b, m = START, np.zeros((6, 3))
    for eta in (0.7, 0.3):
        m = m / 2 + local_steps(0.02, b).mean(0) - b
        b = b + eta * m
    near(matrix(server.server), b)


def test_the_server_prunes_for_the_next_round():
    """Round 0 with 4 of 15 weights ends with the model of round 1, which has 2."""
    server, _ = run("server_pruning", rounds=1, sparsity=(1 - 4 / 15, 1 - 2 / 15))
    assert np.count_nonzero(matrix(server)[1:]) == 2
