r"""Scafflix (arXiv 2305.13170): its one-step equality, its limit and its special cases, in float64 on least squares.

It is ProxSkip for f~_i(x) = f_i(alpha_i x + (1-alpha_i) x*_i) in the norm with the weights w_i = alpha_i^2 / gamma_i:
with Psi = sum w_i ||x_i - x*||^2 + p^-2 sum gamma_i ||h_i - h*_i||^2, h*_i = grad f_i(x~*_i) and v_i = x_i - (gamma_i /
alpha_i) grad f_i(x~_i)

    p Psi(heads) + (1-p) Psi(tails) = sum w_i ||v_i - v*_i||^2 + (1-p^2) p^-2 sum gamma_i ||h_i - h*_i||^2,      (1)

as for ProxSkip: with x^_i = v_i + (gamma_i/alpha_i) h_i, b is the mean with the weights w_i of the u_i = x^_i -
(gamma_i/(p alpha_i)) h_i, as sum_i alpha_i h_i = 0; so Psi(heads) = sum w_i ||u_i - u*_i||^2 by Pythagoras there.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from problems import least_squares, matrix, tree

from sps_jax.algorithms import proxskip, scafflix
from sps_jax.algorithms.scafflix import personalised
from sps_jax.simulation.schedule import Schedule
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import begin, iterate, step

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")
ALPHA = (0.3, 1.0, 0.7, 0.5)


class Flix:
    """FLIX on least squares: grad f_i(alpha_i x + (1-alpha_i) x*_i) = alpha_i (H_i x - c_i), for H_i x*_i = c_i."""

    def __init__(self, quadratic):
        self.quadratic, self.alpha = quadratic, np.array(ALPHA)[:, None, None]
        self.own = np.linalg.solve(quadratic.H, quadratic.c)
        weight = self.alpha**2
        self.x_star = np.linalg.solve((weight * quadratic.H).mean(0), (weight * quadratic.c).mean(0))
        self.h_star = self.alpha * quadratic.gradients(self.x_star)
        self.gamma = 1 / np.linalg.eigvalsh(quadratic.H).max(1)

    def minimisers(self, i):
        return jax.tree.map(lambda a: a[i], tree(self.own))

    def values(self, **more):
        return {"stepsize": tuple(self.gamma.tolist()), "alpha": ALPHA} | more


@x64
@pytest.mark.parametrize("p", [0.3, 0.8])
def test_one_step_equality(p):
    """(1), along a trajectory."""
    flix = Flix(least_squares())
    problem, gamma, alpha = flix.quadratic.problem, flix.gamma[:, None, None], flix.alpha
    algorithm = scafflix(prob=p, minimisers=flix.minimisers, **flix.values())
    one = partial(step, algorithm, problem, Schedule(jnp.float64(p)), key=KEY)

    def body(state, _):
        drawn, _ = one(state)
        heads, _ = one(state, heads=jnp.bool_(True))
        tails, _ = one(state, heads=jnp.bool_(False))
        return drawn, [(s.x.x, s.memory.h) for s in (state, heads, tails)]

    _, seen = jax.jit(lambda state: lax.scan(body, state, length=300))(begin(algorithm, problem, KEY))
    (x, h), heads, tails = [(matrix(x), matrix(h)) for x, h in seen]
    total = partial(np.sum, axis=(1, 2, 3))

    def psi(x, h):
        return total(alpha**2 / gamma * (x - flix.x_star) ** 2) + total(gamma * (h - flix.h_star) ** 2) / p**2

    v = x - gamma * (flix.quadratic.H @ x - flix.quadratic.c)
    v_star = flix.x_star - gamma / alpha * flix.h_star
    left = p * psi(*heads) + (1 - p) * psi(*tails)
    right = total(alpha**2 / gamma * (v - v_star) ** 2) + (1 - p**2) / p**2 * total(gamma * (h - flix.h_star) ** 2)
    held = psi(x, h) > 1e-12 * psi(x, h)[0]
    assert held.sum() > 20
    np.testing.assert_allclose(left[held], right[held], rtol=1e-9)


@x64
@pytest.mark.parametrize("known", [True, False])
def test_it_converges_to_the_optimum_of_flix(known):
    """With the clients' own minimisers given, or looked for alongside; sum_i alpha_i h_i stays zero, sum_i h_i not."""
    flix = Flix(least_squares(ridge=0.5))
    values = flix.values(minimisers=flix.minimisers if known else None)
    run = {"rounds": 2000, "local_steps": 3, "evaluate_every": 500}
    state, history = simulate(scafflix, flix.quadratic.problem, values, KEY, **run)
    np.testing.assert_allclose(matrix(state.server), flix.x_star, rtol=0, atol=1e-10)
    np.testing.assert_allclose(matrix(state.memory.h), flix.h_star, rtol=0, atol=1e-9)
    np.testing.assert_allclose(matrix(state.memory.local), flix.own, rtol=0, atol=1e-10)
    mixed = jax.vmap(personalised, in_axes=(None, 0, 0))(state.server, state.memory.local, jnp.array(ALPHA))
    np.testing.assert_allclose(matrix(mixed), flix.alpha * flix.x_star + (1 - flix.alpha) * flix.own, atol=1e-9)
    assert history["control_sum"].max() < 1e-12
    assert np.abs(flix.h_star.sum(0)).max() > 0.1 and np.abs(flix.x_star - flix.quadratic.optimum).max() > 1e-2


@x64
@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("each", [False, True])
def test_without_personalisation_it_is_proxskip(each, batch_size):
    """All alpha_i = 1 and all step sizes equal, given once or for each client."""
    quadratic = least_squares(batch_size=batch_size)
    gamma = 0.5 / quadratic.L
    values = {"stepsize": (gamma,) * 4, "alpha": (1.0,) * 4} if each else {"stepsize": gamma, "alpha": 1.0}
    one, _ = iterate(scafflix, quadratic.problem, values | {"prob": 0.3}, KEY, iterations=200)
    other, _ = iterate(proxskip, quadratic.problem, {"stepsize": gamma, "prob": 0.3}, KEY, iterations=200)
    np.testing.assert_allclose(matrix(one.server), matrix(other.server), rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix(one.memory.h), matrix(other.memory), rtol=0, atol=1e-12)


@x64
def test_the_weighted_sum_is_kept_with_cohorts():
    """3 of 4 clients, whose shares and step sizes differ."""
    flix = Flix(least_squares(batch_size=2))
    run = {"rounds": 100, "evaluate_every": 50, "cohort": 3}
    _, history = simulate(scafflix, flix.quadratic.problem, flix.values(prob=0.3), KEY, **run)
    assert history["control_sum"].max() < 1e-12


@pytest.mark.parametrize(("name", "own"), [("alpha", (0.5, 0.0)), ("alpha", (1.5,)), ("stepsize", (0.1, 0.0))])
def test_a_number_out_of_range(name, own):
    values = {"stepsize": 0.1, "alpha": 0.5, name: own}
    with pytest.raises(ValueError, match=f"{name} must be .*, for every client, not"):
        scafflix(prob=0.5, **values)


@pytest.mark.parametrize("name", ["alpha", "stepsize"])
def test_a_number_for_each_client(name):
    quadratic = least_squares(dtype=np.float32)
    values = {"stepsize": 0.1, "alpha": 0.5, "prob": 0.5} | {name: (0.1, 0.1)}
    with pytest.raises(ValueError, match=f"{name} must be one number, or one for each of the 4 clients, not 2"):
        simulate(scafflix, quadratic.problem, values, KEY, rounds=1)
