"""Numbers that make trouble: the method works, or says what was wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import hyper

import sps_jax as sps
from sps_jax import tree
from sps_jax.cli import main
from sps_jax.cli.option_checks import check
from sps_jax.cli.options import command_type
from sps_jax.problems import digits, quadratic
from sps_jax.problems.supervised import linear_problem
from sps_jax.simulation.method import prepare
from sps_jax.simulation.stacking import stack_clients

KEY = jax.random.key(0)
GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(12, 4)), GENERATOR.integers(0, 2, 12)
PARTS = np.split(np.arange(12), 3)


def problem(x=X, y=Y, parts=PARTS, loss="softmax", outputs=2, **options):
    return linear_problem(loss, (x, y), None, parts, outputs=outputs, **options)


def simulated(problem, make=sps.sparse_proxskip, rounds=5, **hyper):
    values = {"stepsize": 0.5, "prob": 0.5, "sparsity": 0.9} | hyper
    return sps.simulate(make, problem, values, KEY, rounds=rounds)[1]


# --- works: one shape, one program ----------------------------------------------------------------------------------

DATA = {
    "plain": (X, Y),
    "all equal": (np.ones((12, 4)), np.zeros(12, int)),
    "zeros": (np.zeros((12, 4)), np.zeros(12, int)),
    "a constant feature": (X * np.array([1, 0, 1, 1]) + np.array([0, 7, 0, 0]), Y),
    "one class": (X, np.ones(12, int)),
    "tiny": (1e-30 * X, Y),
    "denormal": (1e-42 * X, Y),
}


@pytest.mark.parametrize("case", DATA)
@pytest.mark.parametrize("sparsity", [0.9, 0.999999])
def test_data_without_information(case, sparsity):
    """K = 1 of 8 weights in both cases; the biases of the two classes stay."""
    history = simulated(problem(*DATA[case]), sparsity=sparsity)
    assert np.isfinite(history["train_loss"]).all() and (history["control_sum"] < 1e-5).all()
    assert (history["density"] <= np.float32(0.3)).all()


@pytest.mark.parametrize("stepsize", [1e20, 1e38])
def test_a_huge_step_size_is_seen_in_the_history(stepsize):
    """``simulate`` has all rounds, with NaN or infinity."""
    history = simulated(problem(), stepsize=stepsize)
    assert len(history["round"]) == 5 and not np.isfinite(history["train_loss"][-1])


@pytest.mark.slow
def test_a_point_of_a_sweep_ends_before_its_first_bad_round():
    point = {"stepsize": 1e20, "local_steps": 2, "sparsity": 0.9}
    ((_, history, diverged),) = sps.sweep(sps.sparse_proxskip, problem(), [point], rounds=5)
    assert 1 <= diverged <= 5 and len(history["round"]) == diverged - 1 and np.isfinite(history["train_loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(sps.ALGORITHMS))
def test_one_client_of_one_example(name):
    """Every method on n = 1, m = 1, d = 1."""
    one = problem(X[:1, :1], Y[:1], [np.arange(1)])
    make = sps.ALGORITHMS[name]
    values = hyper(name, stepsize=0.1, prob=0.5, sparsity=0.5)
    _, history = sps.simulate(make, one, values, KEY, rounds=3)
    assert np.isfinite(history["train_loss"]).all()
    if "control_sum" in history:  # the one client's variates are all there is: their sum must be zero
        rounded = ("gradskip", "scafflix")  # they form b by products that round: what that leaves is 1 of itself
        allowed = ("server_pruning", "fedcomloc_global", *rounded)
        assert name in allowed or (history["control_sum"] < 1e-6).all()


@pytest.mark.slow
def test_a_thousand_classes_and_one_weight():
    many = problem(y=GENERATOR.integers(0, 1000, 12), outputs=1000)
    history = simulated(many, sparsity=0.99999)
    assert np.isfinite(history["train_loss"]).all() and (history["density"] <= 1001 / 5000).all()


@pytest.mark.slow
def test_a_probability_of_one_in_a_million_takes_that_many_steps_and_ends():
    _, history = sps.simulate(
        sps.proxskip, quadratic(clients=2, dimension=2), {"stepsize": 0.5, "prob": 1e-6}, KEY, rounds=2
    )
    assert 10_000 < history["iteration"][-1] < 20_000_000 and np.isfinite(history["train_loss"]).all()


# --- says what was wrong ------------------------------------------------------------------------------------------

WRONG = {
    "infinite": (partial(problem, np.where(X > 1, np.inf, X)), "must be finite"),
    "NaN": (partial(problem, np.where(X > 1, np.nan, X)), "must be finite"),
    "NaN target": (partial(problem, y=np.full(12, np.nan), loss="squares", outputs=1), "must be finite"),
    "label": (partial(problem, y=Y + 1), "labels must be integers from 0 to 1"),
    "negative label": (partial(problem, y=Y - 1), "labels must be integers from 0 to 1"),
    "logistic label": (
        partial(problem, y=2 * Y - 1, loss="logistic", outputs=1),
        "labels must be integers from 0 to 1",
    ),
    "half a label": (partial(problem, y=Y + 0.5), "labels must be integers from 0 to 1"),
    "no feature": (partial(problem, np.zeros((12, 0))), "at least one feature"),
    "no client": (partial(problem, parts=[]), "every client needs"),
    "empty client": (partial(problem, parts=[np.arange(12), np.arange(0)]), "every client needs"),
    "lengths": (lambda: stack_clients([X, Y[:5]], PARTS), "equally many examples, not 5 and 12"),
    "row": (lambda: stack_clients([X, Y], [np.arange(13)]), "from 0 to 11, not 0 to 12"),
    "negative row": (lambda: stack_clients([X, Y], [np.array([-1, 0])]), "from 0 to 11, not -1 to 0"),
    "mask": (lambda: stack_clients([X, Y], [np.ones(12, bool)]), "whole numbers from 0 to 11"),
    "chunk": (
        lambda: sps.simulate(sps.gd, problem(), {"stepsize": 1.0}, KEY, rounds=1, layout=sps.Layout(0)),
        "at least 1",
    ),
    "iterations": (
        lambda: sps.iterate(sps.gd, problem(), {"stepsize": 1.0}, KEY, iterations=-1),
        "iterations must be at least 0, not -1",
    ),
    "rounds": (lambda: simulated(problem(), rounds=0), "rounds must be at least 1, not 0"),
    "sparsity": (lambda: sps.topk({"w": jnp.ones((2, 2))}, 1.0), r"sparsity must be in \[0, 1\), not 1.0"),
    "NaN sparsity": (lambda: sps.topk({"w": jnp.ones((2, 2))}, float("nan")), r"sparsity must be in \[0, 1\), not nan"),
    "clients": (lambda: digits(clients=10**9), "allowed is at most 1438"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_in_words(case):
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("dtype", "hyper", "message"),
    [
        ("float32", {"prob": 1e-9}, "prob must be in (0, 1], but 1e-09 is 0 in float32"),  # the coin would never fall
        ("float32", {"stepsize": 1e-40}, "but 1e-40 is 0 in float32"),  # p / gamma would be infinite
        ("float32", {"stepsize": 1e39}, "but 1e+39 is inf in float32"),
        ("float32", {"sparsity": 1 - 1e-9}, "sparsity must be in [0, 1), but 0.999999999 is 1 in float32"),
        ("float64", {"stepsize": 1e-310}, "but 1e-310 is 0 in float64"),
    ],
)
def test_numbers_that_a_dtype_cannot_hold(dtype, hyper, message):
    values = {"stepsize": 0.1, "prob": 0.5, "sparsity": 0.5} | hyper
    with pytest.raises(ValueError) as error:
        prepare(sps.sparse_proxskip, values, dtype)
    assert message in str(error.value)


def test_numbers_that_a_dtype_can_hold():
    for values in ({"prob": 1e-6, "stepsize": 1e-30}, {"stepsize": 1e38, "prob": 1.0}):
        prepare(sps.proxskip, values, np.float32)
    prepare(sps.proxskip, {"stepsize": 0.1}, np.float32, local_steps=10**9)  # no coin: p = 1e-9 is a number as others


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 2**32}, "a seed must be from 0 to 2**32 - 1"),  # JAX would take it for seed 0
        ({"seed": 2**32 - 1, "seeds": 2}, "a seed must be from 0 to 2**32 - 1"),
        ({"rounds": 10**6, "local_steps": 10**4}, "exceed the limit of 2**31"),
        ({"rounds": 10**6, "prob": 1e-6}, "exceed the limit of 2**31"),
        ({"target": float("nan")}, "--target must be finite"),
        ({"seeds": 0}, "--seeds must be at least 1, not 0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError) as error:
        check(command_type()(**options))
    assert message in str(error.value)


@pytest.mark.parametrize("spelled", ["entries", "rows", "filters", "blocks:2x2", "groups:3", "2:4"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_leaves_without_entries(spelled, shape):
    """They stay, and the others are pruned as if they were not there."""
    prune = sps.Sparsifier(structure=spelled)
    assert prune({"none": jnp.zeros(shape)}, 0.5)["none"].shape == shape
    assert prune({}, 0.5) == {}


def test_the_largest_of_nothing_is_zero():
    assert tree.largest({"a": jnp.zeros(0), "b": jnp.zeros((0, 2))}) == 0


@pytest.mark.parametrize(
    "need",
    [
        lambda: jnp.zeros((2**20, 2**24), jnp.float32),
        lambda: np.zeros((2**20, 2**24, 2**10), np.float32),
    ],
    ids=["device", "host"],
)
def test_memory_that_runs_out_is_said(need, capsys):
    """What the prediction lets pass, because other programs take memory meanwhile."""
    assert main.status_of(need) == 2
    seen = capsys.readouterr().err
    assert "needs more memory than is available" in seen and "--chunk" in seen and seen.count("\n") == 1


@pytest.mark.parametrize("mu", ["1e-320", "1e-40"])
def test_a_curvature_that_is_zero_in_the_precision_is_refused(mu, command):
    """1e-40 is no normal number of float32, which flushes it to zero: there is no step size 1/L."""
    refused = command("run", "--problem", "quadratic", "--algorithm", "gd", "--rounds", 1, "--mu", mu, "--out", "out")
    assert refused.returncode == 2 and "is zero in float32" in refused.stderr
