"""Powerpropagation, w = sign(t) |t|^beta: a method run on t -> f(w(t))."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import OUTPUTS, hyper, init, least_squares, matrix, unit_quadratics

from sps_jax.algorithms import ALGORITHMS, fedavg, gd, powerpropagated
from sps_jax.simulation.simulate import simulate

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")
equal = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


def of(name, beta):
    """A factory of the method on powers."""

    def make(**values):
        return powerpropagated(ALGORITHMS[name](**values), beta)

    make.__signature__ = inspect.signature(ALGORITHMS[name])
    return make


@pytest.mark.slow
@x64
@pytest.mark.parametrize("name", ["sparse_proxskip", "fedavg_server_pruning"])
def test_with_beta_one_it_is_the_method(name):
    quadratic = least_squares(batch_size=2)
    values = hyper(name, stepsize=0.3 / quadratic.L, prob=0.4, sparsity=0.6)
    run = {"problem": quadratic.problem, "hyper": values, "key": KEY, "rounds": 12}
    (plain, history), (state, again) = simulate(ALGORITHMS[name], **run), simulate(of(name, 1.0), **run)
    jax.tree.map(equal, state, plain)
    for column, seen in history.items():
        np.testing.assert_allclose(again[column], seen, rtol=1e-10, atol=1e-12)


@x64
@pytest.mark.parametrize("beta", [1.0, 1.5, 3.0])
def test_its_gradient_is_that_of_the_composition(beta):
    """Of t -> f(w(t)) by automatic differentiation; the bias is no power."""
    problem, t = least_squares().problem, init(KEY)
    rows = [a[0] for a in problem.data]

    def objective(w):
        return jnp.mean(problem.loss(w, *rows))

    def composed(t):
        return objective(t | {"w": jnp.sign(t["w"]) * jnp.abs(t["w"]) ** beta})

    method = powerpropagated(gd(stepsize=0.1), beta)
    d = method.direction(t, (), t, jax.grad(objective), None)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), d, jax.grad(composed)(t))


@x64
def test_the_start_is_the_problem_s():
    """model(init(w)) = w, and with_model is heard."""
    method, w = powerpropagated(fedavg(stepsize=0.1, prob=0.5), 2.5), init(KEY)
    _, server = method.init(w)
    jax.tree.map(equal, method.model(server), w)
    other = jax.tree.map(lambda a: -2 * a, w)
    jax.tree.map(equal, method.model(method.with_model(server, other)), other)


@x64
def test_fixed_points():
    """On ||w - a||^2 / 2 with beta = 2: t <- t - gamma 2 |t| (w - a) goes to w = a where a has w's sign, else to zero.

    Where it is zero it stays zero, whatever a. Where a has the other sign t <- t (1 - 2 gamma |w - a|), so it goes to
    zero exponentially and never beyond.
    """
    a = np.array([[[3.0, -2.0, 5.0, -1.0]]])
    first = jnp.array([[1.0, -0.5, 0.0, 2.0]])
    values = {"stepsize": 0.05}
    state, _ = simulate(of("gd", 2.0), unit_quadratics(a), values, KEY, rounds=600, evaluate_every=600, params=first)
    model = np.asarray(powerpropagated(gd(stepsize=0.05), 2.0).model(state.server))
    np.testing.assert_allclose(model, [[3.0, -2.0, 0.0, 0.0]], rtol=0, atol=1e-9)
    assert model[0, 2] == 0


@x64
def test_pruning_and_the_sum_are_the_method_s():
    """Sparse-ProxSkip on powers: 6 of 15 weights are left, and sum h stays zero, of gradients in t."""
    quadratic = least_squares(batch_size=2)
    values = {"stepsize": 0.02 / quadratic.L, "prob": 0.4, "sparsity": 0.6}
    state, history = simulate(of("sparse_proxskip", 1.5), quadratic.problem, values, KEY, rounds=60, evaluate_every=20)
    np.testing.assert_allclose(history["density"], (6 + OUTPUTS) / 18, rtol=1e-12)
    assert history["control_sum"].max() < 1e-12 and np.abs(matrix(state.memory)).max() > 0.1


@x64
def test_a_round_in_closed_form():
    """One client, one step from w_0 = 4, a = 1, beta = 2: t = 2 - gamma 2 * 2 * 3, and w = t^2."""
    problem, first = unit_quadratics(np.array([[[1.0]]])), jnp.array([[4.0]])
    state, _ = simulate(of("fedavg", 2.0), problem, {"stepsize": 0.05}, KEY, rounds=1, local_steps=1, params=first)
    equal(state.server, [[2 - 0.05 * 12]])


@pytest.mark.parametrize("beta", [0.5, -1, float("nan")])
def test_a_power_below_one(beta):
    with pytest.raises(ValueError, match="beta must be at least 1, not"):
        powerpropagated(gd(stepsize=0.1), beta)
