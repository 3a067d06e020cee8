r"""GradSkip (arXiv 2210.16402): its one-step equality, its limit, and how many gradients its clients need.

With w_i = x_i - gamma grad f_i(x_i), and hats for what a local step leaves, whatever the clients' own coins say

    p Psi(heads) + (1-p) Psi(tails) = sum ||w_i - w*_i||^2 + (1-p^2)(gamma/p)^2 sum ||h^_i - h*_i||^2,           (1)

for x^_i - gamma h^_i is w_i both ways: x_i - gamma (grad f_i(x_i) - h_i) - gamma h_i, and x_i - gamma grad f_i(x_i).
With y_i = x^_i - (gamma/p) h^_i, a communication gives b = mean y_i and h_i = (p/gamma)(b - y_i), so that Psi(heads) =
sum ||y_i - y*_i||^2 by Pythagoras; expanding it gives (1). The mean of (1) over a client's own coin has q_i
||h_i - h*_i||^2 + (1-q_i) ||grad f_i(x_i) - h*_i||^2 in place of the last norm, from which the paper's rate follows.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from problems import FEATURES, Quadratic, least_squares, matrix, tree
from test_theory import lyapunov, squared, zero_sum

from sps_jax.algorithms import Follow, gradskip, proxskip
from sps_jax.simulation.schedule import Schedule
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import begin, iterate, step

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")
OWN = (0.9, 0.3, 1.0, 0.6)


def with_easy_clients(quadratic, scales):
    """The problem with each client's inputs scaled, which makes small ones well-conditioned; the intercept stays."""
    a, y = quadratic.problem.data
    scaled = dataclasses.replace(quadratic.problem, data=(a * jnp.array(scales)[:, None, None], y))
    D = np.stack([np.diag([1, *[scale] * FEATURES]) for scale in scales])
    ridge = float(quadratic.problem.ridge) * np.eye(1 + FEATURES)
    return Quadratic(scaled, D @ (quadratic.H - ridge) @ D + ridge, D @ quadratic.c)


@x64
@pytest.mark.parametrize(("gamma_L", "p"), [(1.0, 0.3), (0.3, 0.7)])
def test_one_step_equality(gamma_L, p):
    """(1), along a trajectory, from control variates of sum zero."""
    quadratic = least_squares()
    gamma, problem = gamma_L / quadratic.L, quadratic.problem
    algorithm, h0 = gradskip(stepsize=gamma, prob=p, gradient_prob=OWN), tree(zero_sum(quadratic.c))
    first = begin(algorithm, problem, KEY)
    first = first._replace(memory=first.memory._replace(h=h0), x=first.x._replace(h=h0))
    one = partial(step, algorithm, problem, Schedule(jnp.float64(p)), key=KEY)

    def body(state, _):
        drawn, _ = one(state)
        heads, _ = one(state, heads=jnp.bool_(True))
        tails, _ = one(state, heads=jnp.bool_(False))
        return drawn, [(s.x.x, s.x.h) for s in (state, heads, tails)]

    _, seen = jax.jit(lambda state: lax.scan(body, state, length=300))(first)
    (x, h), heads, (x_hat, h_hat) = [(matrix(x), matrix(h)) for x, h in seen]
    x_star, h_star = quadratic.optimum, quadratic.gradients(quadratic.optimum)
    psi = partial(lyapunov, x_star=x_star, h_star=h_star, gamma=gamma, p=p)
    w, w_star = x - gamma * (quadratic.H @ x - quadratic.c), x_star - gamma * h_star
    left = p * psi(*heads) + (1 - p) * psi(x_hat, h_hat)
    right = squared(w - w_star, 3) + (1 - p**2) * (gamma / p) ** 2 * squared(h_hat - h_star, 3)
    held = psi(x, h) > 1e-12 * psi(x, h)[0]
    assert held.sum() > 20
    np.testing.assert_allclose(left[held], right[held], rtol=1e-9)
    assert np.abs(h_hat - h).max() > 0.1 and np.abs(heads[1].sum(1)).max() < 1e-10


@x64
@pytest.mark.parametrize("batch_size", [None, 2])
def test_with_probability_one_it_is_proxskip(batch_size):
    """And every client computes a gradient at every step."""
    quadratic, run = least_squares(batch_size=batch_size), {"iterations": 200}
    values = {"stepsize": 0.5 / quadratic.L, "prob": 0.3}
    one, _ = iterate(gradskip, quadratic.problem, values | {"gradient_prob": 1.0}, KEY, **run)
    other, _ = iterate(proxskip, quadratic.problem, values, KEY, **run)
    np.testing.assert_allclose(matrix(one.server), matrix(other.server), rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix(one.memory.h), matrix(other.memory), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(one.x.gradients, 200)


@x64
def test_it_converges_and_easy_clients_need_fewer_gradients():
    """gamma = 1/L_max, p^2 = 1/kappa_max, q_i = (1 - 1/kappa_i) / (1 - 1/kappa_max): to x*, with at most
    min(kappa_i, sqrt(kappa_max)) gradients a round in the mean.

    A round has G = min(T, F) gradients, T and F the first steps at which the round ends and the own coin fails, so
    geometric with success s_i = 1 - q_i (1-p): mean 1/s_i, variance (1 - s_i) / s_i^2. The mean over R rounds is within
    5 standard errors; that min(kappa_i, sqrt(kappa_max)) bounds 1/s_i is the paper's claim, and checked.
    """
    quadratic, rounds = with_easy_clients(least_squares(), (0.1, 1.0, 3.0, 3.0)), 3000
    kappa = np.linalg.eigvalsh(quadratic.H).max(1) / quadratic.mu
    p, q = float(kappa.max() ** -0.5), (1 - 1 / kappa) / (1 - 1 / kappa.max())
    values = {"stepsize": 1 / quadratic.L, "prob": p, "gradient_prob": tuple(np.minimum(q, 1).tolist())}
    state, _ = simulate(gradskip, quadratic.problem, values, KEY, rounds=rounds, evaluate_every=rounds)
    x_star = quadratic.optimum
    np.testing.assert_allclose(matrix(state.server), x_star, rtol=0, atol=1e-10)
    np.testing.assert_allclose(matrix(state.memory.h), quadratic.gradients(x_star), rtol=0, atol=1e-9)
    s = 1 - np.minimum(q, 1) * (1 - p)
    seen = np.asarray(state.memory.gradients) / rounds
    assert (np.abs(seen - 1 / s) <= 5 * np.sqrt((1 - s) / rounds) / s).all()
    assert (1 / s <= np.minimum(kappa, np.sqrt(kappa.max())) + 1e-12).all()
    assert (1 / s).min() < 0.5 * (1 / s).max()


def test_a_client_that_has_stopped_is_not_moved_by_a_transform():
    method, one = gradskip(stepsize=0.5, prob=0.5, gradient_prob=0.5), jnp.ones(2)
    h, b = method.init(one)
    asleep = method.start(b, h)._replace(awake=jnp.bool_(False))
    assert method.move(asleep, Follow(one, asleep)).x.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("own", [(0.5, 0.0), (2.0,), (float("nan"), 1.0)])
def test_a_probability_out_of_range(own):
    with pytest.raises(ValueError, match=r"gradient_prob must be in \(0, 1\], for every client, not"):
        gradskip(stepsize=0.1, prob=0.5, gradient_prob=own)


def test_a_probability_for_each_client():
    quadratic = least_squares(dtype=np.float32)
    values = {"stepsize": 0.1, "prob": 0.5, "gradient_prob": (0.5, 0.5, 0.5)}
    with pytest.raises(ValueError, match="gradient_prob must be one number, or one for each of the 4 clients, not 3"):
        simulate(gradskip, quadratic.problem, values, KEY, rounds=1)
