"""Clients of unequal size: what lies behind a client's examples is its own, so that no function is asked of zeros."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.algorithms import ALGORITHMS
from sps_jax.layout import Layout, clients_mesh, over_clients
from sps_jax.problems.arrays import from_arrays
from sps_jax.problems.supervised import linear_problem
from sps_jax.simulation.host import to_host
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.stacking import foreign_padding, repeat_first, stack_clients
from sps_jax.simulation.step import iterate
from sps_jax.simulation.stream import stream
from sps_jax.simulation.sweep import sweep

KEY, FEATURES = jax.random.key(1), 3
pytestmark = pytest.mark.usefixtures("x64")


def start(key):
    return jnp.linspace(0.1, 0.3, FEATURES)[:, None]


def logarithm(w, x):
    return jnp.log(x) @ w


def direction(w, x):
    return x / jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True)) @ w


def power(w, x):
    return jnp.sum(x ** w[:, 0][None], axis=1, keepdims=True)  # d/dw 0^w = 0^w log 0


def linear(w, x):
    return x @ w


def squares(outputs, y):
    return (outputs[:, 0] - y) ** 2 / 2


def relative(outputs, y):
    return ((outputs[:, 0] - y) / y) ** 2 / 2


CASES = {
    "log": (logarithm, squares),
    "unit vector": (direction, squares),
    "power": (power, squares),
    "relative error": (linear, relative),
}


def make(case, ids, **more):
    """All x and y are positive, and small multiples of 1/8."""
    apply, loss = CASES[case]
    generator = np.random.default_rng(2)
    x, y = generator.integers(1, 9, (len(ids), FEATURES)) / 8, generator.integers(1, 9, len(ids)) / 8
    return from_arrays(x, y, ids, model=(start, apply), loss=loss, precision="float64", **more)


def alone(problem, i):
    """The problem of client ``i`` by itself, without a row that is not its own."""
    data = tuple(a[i : i + 1, : int(problem.counts[i])] for a in problem.data)
    return dataclasses.replace(problem, data=data, counts=problem.counts[i : i + 1])


def gradients(problem, layout):
    def one(params, data, count):
        return (), problem.gradient(data, count, jnp.int32(0), KEY, params)

    return jax.jit(lambda p: over_clients(layout, one, None, start(KEY), p.data, p.counts)[1])(problem)


@pytest.mark.parametrize(
    "layout", [Layout(), Layout(1), Layout(2), "mesh"], ids=["vmap", "one by one", "chunk", "mesh"]
)
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_a_padded_client_is_that_of_the_client_alone(case, layout):
    """Bit for bit: what is behind the examples adds exact zeros, and they come last in every sum."""
    layout = Layout(2, clients_mesh(jax.devices()[:1])) if layout == "mesh" else layout
    problem = make(case, [0, 0, 1, 2, 2, 2])
    seen = gradients(problem, layout)
    assert np.isfinite(seen).all() and np.abs(seen).min() > 0
    for i in range(problem.clients):
        np.testing.assert_array_equal(seen[i], gradients(alone(problem, i), Layout(1))[0])


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c == "log" else pytest.mark.slow) for c in CASES])
def test_every_way_to_run_gives_the_losses_of_numpy(case):
    """Gradient descent by all of simulate, sweep, iterate and stream, from data that a user padded with zeros too.

    f(x_0) and, after a step of 0.01, f(x_1) from the clients alone.
    """
    padded = make(case, [0, 0, 1, 2, 2, 2, 2], test=0.5)
    zeros = tuple(
        jnp.where(
            jnp.arange(a.shape[1]).reshape(1, -1, *[1] * (a.ndim - 2))
            < padded.counts.astype(int).reshape(-1, 1, *[1] * (a.ndim - 2)),
            a,
            0,
        )
        for a in padded.data
    )
    by_hand = dataclasses.replace(padded, data=zeros)
    n, w = padded.clients, start(KEY)
    own = [alone(padded, i) for i in range(n)]
    x1 = w - 0.01 * sum(gradients(p, Layout(1))[0] for p in own) / n
    due = sum(float(p.objective(x1)) for p in own) / n
    make_gd, hyper, one = ALGORITHMS["gd"], {"stepsize": 0.01}, {"rounds": 1}
    for problem in (padded, by_hand):
        for layout in (Layout(), Layout(1), Layout(2)):
            state, history = simulate(make_gd, problem, hyper, KEY, **one, layout=layout)
            np.testing.assert_allclose(state.server, x1, rtol=1e-14)
            np.testing.assert_allclose(history["train_loss"], due, rtol=1e-14)
        batched = dataclasses.replace(problem, evaluate_batch=2)
        np.testing.assert_allclose(simulate(make_gd, batched, hyper, KEY, **one)[1]["train_loss"], due, rtol=1e-14)
        ((_, history, bad),) = sweep(make_gd, problem, [hyper], **one)
        assert bad is None
        np.testing.assert_allclose(history["train_loss"], due, rtol=1e-14)
        np.testing.assert_allclose(iterate(make_gd, problem, hyper, KEY, iterations=1)[0].server, x1, rtol=1e-14)
        for cohort in (simulate, stream):
            given = to_host(problem) if cohort is stream else problem
            state, history = cohort(make_gd, given, hyper, KEY, **one, cohort=n)
            np.testing.assert_allclose(state.server, x1, rtol=1e-14)
            np.testing.assert_allclose(history["train_loss"], due, rtol=1e-14)


def test_padding_is_told_from_examples():
    data, counts = (jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([[5, 6], [7, 7]])), jnp.array([2, 1], jnp.int32)
    assert foreign_padding(data, counts)
    own = repeat_first(data, counts)
    assert own[0].tolist() == [[1, 2], [3, 3]] and not foreign_padding(own, counts)


def test_rows_behind_the_examples_are_the_clients_first():
    (a,), counts = stack_clients([np.arange(4.0)], [np.array([2, 0]), np.array([3])], longest=3)
    assert a.tolist() == [[2, 0, 2], [3, 3, 3]] and counts.tolist() == [2, 1]


# --- rows that are stored, and examples that a client has ----------------------------------------------------------


def test_who_is_drawn_does_not_depend_on_the_batch_size():
    """Least squares with full batches keep one row of moments a client; its size stays that of its examples.

    Clients of 90, 5 and 5 examples, one a round: the first takes part in 90 % of the rounds, whatever the batch.
    """
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(100, 2)), generator.normal(size=100)
    parts = np.split(np.arange(100), [90, 95])
    drawn, sizes = {}, {}
    for batch in (None, 4, 100):
        problem = linear_problem("squares", (x, y), None, parts, bias=False, batch_size=batch, precision="float64")
        sizes[batch] = problem.examples.tolist()
        cohorts = jax.jit(jax.vmap(lambda key, problem=problem: cohort_of_one(key, problem)))
        drawn[batch] = np.asarray(cohorts(jax.random.split(KEY, 2000)))
        assert problem.counts.tolist() == ([1, 1, 1] if batch is None else [90, 5, 5])
    assert sizes[None] == sizes[4] == sizes[100] == [90, 5, 5]
    np.testing.assert_array_equal(drawn[None], drawn[4])
    assert (drawn[None] == 0).mean() == pytest.approx(0.9, abs=5 * np.sqrt(0.9 * 0.1 / 2000))


def cohort_of_one(key, problem):
    from sps_jax.simulation.cohort import Cohort
    from sps_jax.simulation.participation import taking_part
    from sps_jax.simulation.schedule import split_key

    return taking_part(problem, Cohort(1, "size"), split_key(key), jnp.int32(0)).who.ids[0]


@pytest.mark.parametrize("weights", ["equal", "size"])
@pytest.mark.parametrize("how", [simulate, stream])
def test_moments_and_rows_are_one_problem_for_a_cohort_by_size(how, weights):
    """FedAvg from moments and from rows: the same cohorts and the same losses to rounding, streamed or not."""
    from sps_jax.simulation.cohort import Cohort

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 2)), generator.normal(size=40)
    parts = np.split(np.arange(40), [30, 34, 37])
    moments = linear_problem("squares", (x, y), None, parts, bias=False, weights=weights, precision="float64")
    rows = dataclasses.replace(
        linear_problem("squares", (x, y), None, parts, bias=False, weights=weights, batch_size=1, precision="float64"),
        batch_size=None,
    )
    run = {"rounds": 20, "local_steps": 2, "cohort": Cohort(2, "size"), "evaluate_every": 5}
    losses = [how(ALGORITHMS["fedavg"], p, {"stepsize": 0.05}, KEY, **run)[1]["train_loss"] for p in (moments, rows)]
    np.testing.assert_allclose(*losses, rtol=1e-10)


# --- metrics of networks that compute in few digits ------------------------------------------------------------------


def evaluated(problem):
    return jax.jit(lambda p: p.evaluate(p.init(KEY)))(problem)


def test_metrics_of_a_bfloat16_network_are_summed_in_float32():
    """Outputs in bfloat16, 85 examples of which 82 are right: 0.9647, which bfloat16 would round to 0.96875.

    The losses are those of the outputs held in float32: log(1 + e^-4) where right, 4 more where wrong.
    """
    y = np.array([0, 1] * 42 + [0])
    said = y.copy()
    said[[3, 30, 60]] = 1 - said[[3, 30, 60]]
    x = np.eye(2, dtype=np.float32)[said]

    def apply(w, x):
        return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.bfloat16)

    options = {"model": (lambda key: 4 * jnp.eye(2, dtype=jnp.float32), apply), "test": (x, y), "precision": "float32"}
    problem = from_arrays(x, y, np.arange(85) % 5, loss="softmax", **options)
    seen, right = evaluated(problem), np.log1p(np.exp(-4))
    np.testing.assert_allclose(seen["test_accuracy"], 82 / 85, rtol=1e-6)
    np.testing.assert_allclose(seen["test_loss"], right + 3 * 4 / 85, rtol=1e-6)
    np.testing.assert_allclose(seen["train_loss"], right + 3 * 4 / 85, rtol=1e-6)


def test_own_losses_in_bfloat16_are_summed_in_float32():
    """The mean of 85 numbers that bfloat16 holds is not one of them: 82 of 1 and 3 of 3 have the mean 1.0706."""
    y, x = np.where(np.isin(np.arange(85), (3, 30, 60)), 3.0, 1.0), np.ones((85, 1))

    def loss(outputs, y):
        return (outputs[:, 0].astype(jnp.bfloat16) * y.astype(jnp.bfloat16)).astype(jnp.bfloat16)

    model = (lambda key: jnp.ones((1, 1), jnp.float32), lambda w, x: x @ w)
    problem = from_arrays(x, y, np.arange(85) % 5, model=model, loss=loss, test=(x, y), precision="float32")
    seen = evaluated(problem)
    np.testing.assert_allclose(seen["test_loss"], (82 + 9) / 85, rtol=1e-6)
    np.testing.assert_allclose(seen["train_loss"], (82 + 9) / 85, rtol=1e-6)
