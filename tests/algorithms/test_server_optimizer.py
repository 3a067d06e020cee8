r"""Optimisers at the server: closed forms, what they leave as it is, and what is refused.

Where f_i(x) = ||x - a_i||^2 / 2, k local steps from b end at x_i = q^k b + (1 - q^k) a_i, q = 1 - gamma, so
the server's pseudo-gradient is b - mean x_i = r (b - abar), with r = 1 - q^k and abar the mean of the a_i.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from problems import CONTROLLED, hyper, least_squares, matrix, unit_quadratics

from sps_jax.algorithms import ALGORITHMS, fedavg, proxskip, pruned, scaffold, server_optimizer, transformed
from sps_jax.compression import topk
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.simulate import simulate

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")
equal = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
KEPT = {"scaffold", "feddyn", "ef21", "ef21_sgdm", "scallion", "scafcom"}
"""Methods with control variates that do not depend on the model that the server sends back."""
A = np.random.default_rng(0).normal(size=(4, 1, 3))
FIRST = np.array([[2.0, -1.0, 0.5]])
GAMMA, STEPS = 0.2, 3
R = 1 - (1 - GAMMA) ** STEPS


@pytest.fixture
def as_users_have_it():
    """Optax itself mixes dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def models(name, rounds, **values):
    """The server's model after each round on unit quadratics, from FIRST, and the state at the end."""
    method = prepare(ALGORITHMS[name], {"stepsize": GAMMA} | values, np.float64, local_steps=STEPS)
    algorithm, problem = method.algorithm(), unit_quadratics(A)

    def body(state, _):
        state, _ = one_round(algorithm, problem, method.schedule, state, KEY)
        return state, algorithm.model(state.server)

    first = start(algorithm, problem, KEY, jnp.asarray(FIRST))
    state, seen = jax.jit(lambda state: lax.scan(body, state, length=rounds))(first)
    return seen, state


# --- closed forms ------------------------------------------------------------------------------------------------


@x64
@pytest.mark.parametrize("given", [{}, {"momentum": 0.5}, {"momentum": 0.0}])
def test_fedavgm(given):
    """m <- beta m + r (b - abar), b <- b - eta m: so e = b - abar has e_{t+1} = (1 + beta - eta r) e_t - beta e_{t-1}.

    Begun with e_1 = (1 - eta r) e_0, as m = 0; beta = 0.9 where none is given, as the docstring says.
    """
    beta, eta, abar = given.get("momentum", 0.9), 0.7, A.mean(0)
    seen, _ = models("fedavgm", 4, server_stepsize=eta, **given)
    e = [FIRST - abar, (1 - eta * R) * (FIRST - abar)]
    for _ in range(3):
        e.append((1 + beta - eta * R) * e[-1] - beta * e[-2])
    equal(seen, abar + np.stack(e[1:]))


@x64
@pytest.mark.parametrize("given", [{}, {"beta1": 0.4, "beta2": 0.6}])
@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_fedadam_and_fedyogi(name, given):
    """The paper's algorithm 2 with d = r (b - abar), from m = 0 and v = eps^2; 0.9 and 0.99 where none are given."""
    beta1, beta2, eta, eps = given.get("beta1", 0.9), given.get("beta2", 0.99), 0.3, 0.05
    seen, state = models(name, 4, server_stepsize=eta, epsilon=eps, **given)
    b, m, v, due = FIRST, 0 * FIRST, eps**2 + 0 * FIRST, []
    for _ in range(4):
        d = R * (b - A.mean(0))
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2 if name == "fedadam" else v - (1 - beta2) * d**2 * np.sign(v - d**2)
        b = b - eta * m / (np.sqrt(v) + eps)
        due.append(b)
    equal(seen, np.stack(due))
    equal(state.server.optimizer.m, m)
    equal(state.server.optimizer.v, v)


# --- what an optimiser leaves as it is ---------------------------------------------------------------------------


@x64
@pytest.mark.parametrize(
    "name",
    [
        "fedavg",
        "scaffold",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("feddyn", "fednova", "fedprox", "feddst")),
    ],
)
def test_sgd_of_step_size_one_changes_nothing(name):
    """b - (b - b') = b', whatever the method's server does."""
    quadratic = least_squares(batch_size=2)
    values = hyper(name, stepsize=0.3 / quadratic.L, prob=0.4, sparsity=0.5, tau_max=3)

    def wrapped(**values):
        return server_optimizer(ALGORITHMS[name](**values), optax.sgd(1.0))

    wrapped.__signature__ = inspect.signature(ALGORITHMS[name])
    run = {"problem": quadratic.problem, "hyper": values, "key": KEY, "rounds": 12, "evaluate_every": 4}
    (plain, history), (state, again) = simulate(ALGORITHMS[name], **run), simulate(wrapped, **run)
    jax.tree.map(equal, state.server.server, plain.server)
    jax.tree.map(equal, state.memory, plain.memory)
    for column in ("uplink_bits", "downlink_bits"):
        np.testing.assert_array_equal(again[column], history[column])


@x64
@pytest.mark.parametrize("cohort", [None, 3])
def test_scaffold_keeps_its_sum_and_its_limit(cohort):
    """SCAFFOLD with a server step size of 1/2 and momentum, as Karimireddy et al. allow one: still to x*, sum kept."""
    quadratic = least_squares(ridge=0.5)

    def slower(*, stepsize, prob):
        return server_optimizer(scaffold(stepsize=stepsize, prob=prob), optax.sgd(0.5, momentum=0.3))

    run = {"rounds": 4000, "local_steps": 3, "evaluate_every": 1000, "cohort": cohort}
    state, history = simulate(slower, quadratic.problem, {"stepsize": 0.3 / quadratic.L}, KEY, **run)
    np.testing.assert_allclose(matrix(state.server.server.model), quadratic.optimum, rtol=0, atol=1e-9)
    assert history["control_sum"].max() < 1e-11


@x64
def test_it_is_pruned_last():
    """The server follows its optimiser and then keeps the 6 largest weights: the model has 6, whatever was added."""
    quadratic = least_squares()

    def both(*, stepsize, prob, sparsity):
        base = server_optimizer(fedavg(stepsize=stepsize, prob=prob), optax.sgd(1.0, momentum=0.5))
        return pruned(base, topk, sparsity, server="naive")

    values = {"stepsize": 0.3 / quadratic.L, "sparsity": 0.6}
    state, _ = simulate(both, quadratic.problem, values, KEY, rounds=5, local_steps=3)
    assert np.count_nonzero(state.server.server["w"]) == 6


@pytest.mark.usefixtures("as_users_have_it")
def test_any_optimiser_of_optax():
    """Adam of optax, corrected for its start: the first step is eta against the sign of the pseudo-gradient."""
    values, problem = {"stepsize": GAMMA}, unit_quadratics(A.astype(np.float32))

    def adam(*, stepsize, prob):
        return server_optimizer(fedavg(stepsize=stepsize, prob=prob), optax.adam(0.1))

    run = {"local_steps": STEPS, "params": jnp.asarray(FIRST, jnp.float32), "rounds": 1}
    state, _ = simulate(adam, problem, values, KEY, **run)
    np.testing.assert_allclose(state.server.server, FIRST - 0.1 * np.sign(FIRST - A.mean(0)), atol=1e-5)


# --- what is refused ---------------------------------------------------------------------------------------------

PARAMS = {"w": jnp.ones((5, 3)), "b": jnp.ones(3)}


def started(algorithm, optimizer=None):
    """A method is started, traced as in a simulation."""
    jax.eval_shape(server_optimizer(algorithm, optimizer or optax.sgd(1.0)).init, PARAMS)


@pytest.mark.parametrize("name", CONTROLLED)
def test_methods_whose_sum_it_would_break_are_refused(name):
    algorithm = ALGORITHMS[name](**hyper(name, stepsize=0.1, prob=0.5, sparsity=0.5))
    if name in KEPT:
        started(algorithm)
        return
    why = r"break the sum of this method's control variates.* the mean of what"
    why = "would not reach this method's clients" if name == "locodl" else why  # they have copies of y
    with pytest.raises(ValueError, match=why):
        started(algorithm)


def test_pruning_at_a_server_that_sends_no_model_is_refused():
    """LoCoDL's clients have copies of the server's y, and receive its change alone."""
    base = ALGORITHMS["locodl"](**hyper("locodl", stepsize=0.1, prob=0.5, sparsity=0.5))
    with pytest.raises(ValueError, match="pruning at the server would not reach this method's clients"):
        pruned(base, topk, 0.5, server="naive").init(jnp.ones((2, 3)))


@x64
def test_the_sum_would_be_broken_indeed():
    """ProxSkip's h_i + (p/gamma)(b - x_i) with a b that is not the mean: the sum is n (p/gamma)(b - mean)."""
    method, x = proxskip(stepsize=0.5, prob=0.5), jnp.array([[1.0], [3.0]])
    h = jax.vmap(lambda x: method.receive(x, jnp.zeros(1), x, jnp.array([2.5]), None))(x)
    assert h.sum().item() == 2 * (2.5 - 2.0)


def test_a_transform_of_the_directions_hides_nothing():
    with pytest.raises(ValueError, match="would break the sum"):
        started(transformed(proxskip(stepsize=0.1, prob=0.5), optax.clip(1.0)))
    started(transformed(scaffold(stepsize=0.1, prob=0.5), optax.clip(1.0)))


@pytest.mark.parametrize("make", [optax.scale_by_adam, optax.identity, optax.set_to_zero])
@pytest.mark.usefixtures("as_users_have_it")
def test_what_does_not_descend(make):
    with pytest.raises(ValueError, match=r"does not go against the gradient.*give an optimiser with its step size"):
        started(fedavg(stepsize=0.1, prob=0.5), make())


def test_what_is_no_optimiser():
    with pytest.raises(ValueError, match=r"optimizer must be an optax transform, such as optax.sgd\(1.0, .* a float"):
        server_optimizer(fedavg(stepsize=0.1, prob=0.5), 0.1)


def test_what_wants_more_than_there_is():
    """The loss, which the server does not have."""
    with pytest.raises(ValueError, match=r"cannot be applied, as update\(gradient, state, params\): .+"):
        started(fedavg(stepsize=0.1, prob=0.5), optax.polyak_sgd())
