"""The scoreboard's arithmetic and the ceiling's references, on numbers whose answers are known."""

import importlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.problems import quadratic

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "paper"


@pytest.fixture
def script(monkeypatch):
    """``script(name)``: a script of the experiments as a module."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


def record(values, metric="test_accuracy", diverged=None, **point):
    """A run of as many evaluated rounds, each of 10 steps, 100 bits up and 50 down."""
    rounds = np.arange(1, len(values) + 1)
    columns = {"round": rounds, "iteration": 10 * rounds, "uplink_bits": 100 * rounds, "downlink_bits": 50 * rounds}
    history = {name: column.tolist() for name, column in columns.items()} | {metric: values}
    return {
        "workload": "x",
        "stage": "tuning",
        "data_seed": 0,
        "diverged_at_round": diverged,
        "history": history,
    } | point


def test_what_a_run_takes_to_the_target(script):
    """The accuracy is reached in round 2, after 200 bits up and 100 down; a loss falls to its level in round 3."""
    board = script("scoreboard")
    work = board.WORKLOADS["mushrooms"]
    assert work.metric == "test_accuracy"
    found = board.costs(record([0.5, 0.9, 0.7]), work, clients=2, target=0.8)
    assert (found["bits up"], found["bits up + down / 10"]) == (200, 210)
    assert 0 < found["seconds, datacentre"] < found["seconds, broadband"] < found["seconds, mobile"]
    assert set(board.costs(record([0.5, 0.6]), work, clients=2, target=0.8).values()) == {math.inf}
    loss = board.WORKLOADS["blog_feedback"]
    assert board.costs(record([9.0, 5.0, 1.0], "test_loss"), loss, clients=2, target=2.0)["bits up"] == 300


def test_the_area_under_a_profile(script):
    """Always best: 1. Ten times the best on one of two workloads, and not at all on the other: the share is 1/2 from
    tau = 10 to 100, half of the logarithmic axis, so 1/4."""
    board = script("scoreboard")
    boards = {
        "one": {"best": {"bits": 5.0}, "slow": {"bits": 50.0}, "never": {"bits": math.inf}},
        "two": {"best": {"bits": 2.0}, "slow": {"bits": math.inf}, "never": {"bits": math.inf}},
    }
    found = board.ratios(boards, "bits")
    assert {name: board.area(ratio) for name, ratio in found.items()} == pytest.approx(
        {"best": 1.0, "slow": 0.25, "never": 0.0}
    )


def test_every_method_has_as_many_trials_within_the_ranges(script):
    board = script("scoreboard")
    for work in board.WORKLOADS.values():
        for name, make in board.METHODS.items():
            points = board.points(make, work)
            assert len(points) == board.TRIALS, name
            low, high = work.stepsizes
            assert all(low <= point["stepsize"] <= high and point["sparsity"] == work.sparsity for point in points)
            assert len({point["stepsize"] for point in points}) == board.TRIALS


def test_the_point_that_ends_best_is_chosen(script):
    """By its last evaluation; a run that diverged is none, and neither is one of nothing else."""
    board = script("scoreboard")
    runs = [record([0.9, 0.2], stepsize=1.0), record([0.1, 0.6], stepsize=2.0), record([0.9, 0.9], diverged=2)]
    assert board.chosen(runs, "test_accuracy") == {"stepsize": 2.0}
    assert board.chosen(runs[2:], "test_accuracy") is None
    losses = [record([9.0, 3.0], "train_loss", stepsize=1.0), record([1.0, 4.0], "train_loss", stepsize=2.0)]
    assert board.chosen(losses, "train_loss") == {"stepsize": 1.0}


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_the_target_of_the_quadratic_is_its_best_sparse_point_and_a_hundredth(script, sparsity):
    """f = mean of |x - a_i|^2 / 2 is, up to a constant, |x - a|^2 / 2 with a the mean: its best point of K entries has
    the K largest of a. The target is a hundredth of the way back to f(0)."""
    workloads = script("workloads")
    problem = quadratic(clients=3, dimension=20, precision="float32")
    a = np.mean([np.asarray(problem.data[0][i])[0, :, 0] for i in range(3)], axis=0)
    x = np.where(np.argsort(np.argsort(-np.abs(a))) < round(20 * (1 - sparsity)), a, 0).astype(np.float32)
    least, start = (float(problem.objective({"x": jnp.asarray(v[:, None])})) for v in (x, np.zeros_like(x)))
    assert workloads.sparse_optimum(problem, sparsity) == pytest.approx(least + 0.01 * (start - least), rel=1e-5)


@pytest.mark.slow
def test_with_orthogonal_features_greedy_selection_finds_the_best_weights(script):
    """On the quadratic the gradient at 0 is -a, so forward selection takes its K largest entries, and so does l1."""
    ceiling = script("ceiling")
    pooled = ceiling.Pooled.of(quadratic(clients=3, dimension=20), 0.8, 200)
    a = np.mean([np.asarray(pooled.problem.data[0][i])[0, :, 0] for i in range(3)], axis=0)
    best = np.where(np.argsort(np.argsort(-np.abs(a))) < 4, a, 0)
    for method, point in (("greedy", {"at_once": 1}), ("greedy", {"at_once": 4}), ("l1", {"penalty": 0.1})):
        found = ceiling.found(method, pooled, point)
        np.testing.assert_allclose(np.asarray(jax.tree.leaves(found)[0])[:, 0], best, atol=1e-4)


def test_a_reference_is_chosen_on_validation_data_of_the_first_split(script):
    def one(method, point, seed, value):
        return {"method": method, "point": {"p": point}, "data_seed": seed, "validation_loss": value}

    records = [one("l1", 1, 0, 3.0), one("l1", 2, 0, 2.0), one("l1", 1, 1, 0.1), one("greedy", 1, 0, math.nan)]
    assert {name: r["point"] for name, r in script("common").references(records, "loss").items()} == {"l1": {"p": 2}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "methods"),
    [
        ("sparse", ["sparse_proxskip", "server_pruning", "mask_proxskip"]),
        ("dense", ["fedcomloc_com", "proxskip", "ef21", "fedsmu"]),
    ],
)
def test_who_ships_a_sparse_model(script, model, methods):
    """Sparse: TopK of the mean, the server's, a mask's. Dense: a union of the clients' masks, and the rest."""
    board = script("scoreboard")
    assert {board.shipped(board.METHODS[name]) for name in methods} == {model}


def test_the_table_is_that_of_the_results():
    results = SCRIPTS.parent / "results"
    table = (results / "paper" / "scoreboard" / "scoreboard.txt").read_text(encoding="utf-8")
    assert table.strip() in (results / "README.md").read_text(encoding="utf-8")
