"""Sweeps: every point is its single run, in few programs."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sps_jax.algorithms import ALGORITHMS
from sps_jax.problems import digits
from sps_jax.simulation.simulate import run_points, simulate
from sps_jax.simulation.sweep import _lanes, grid, sweep

SETTINGS = {"rounds": 6, "evaluate_every": 2}


@pytest.fixture(scope="module")
def small():
    return digits(clients=4, batch_size=4)


def scattered(problem):
    """``problem`` from a random start: from zero, TopK chooses among equals, and a last bit decides."""
    shapes, structure = jax.tree.flatten(jax.eval_shape(problem.init, jax.random.key(0)))

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return structure.unflatten([jax.random.normal(k, s.shape, s.dtype) for k, s in zip(keys, shapes, strict=True)])

    return replace(problem, init=init)


def single(make, problem, point, **settings):
    hyper = {name: value for name, value in point.items() if name not in ("seed", "local_steps")}
    key, steps = jax.random.key(point.get("seed", 0)), point.get("local_steps")
    return simulate(make, problem, hyper, key, local_steps=steps, **SETTINGS, **settings)[1]


def assert_each_is_its_single_run(make, problem, points, rtol, **options):
    outcomes = list(sweep(make, problem, points, **SETTINGS, **options))
    assert len(outcomes) == len(points) and all(point in points for point, _, _ in outcomes)
    for point, history, diverged in outcomes:
        alone = single(make, problem, point)
        assert diverged is None and history.keys() == alone.keys()
        for name in alone:
            np.testing.assert_allclose(history[name], alone[name], rtol=rtol, atol=rtol, err_msg=f"{name} of {point}")


@pytest.mark.parametrize("points_chunk", [None, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, 3))])
@pytest.mark.parametrize(
    "schedule", [{"prob": [0.3, 0.6]}, {"local_steps": [2, 3]}], ids=["coin", "fixed number of local steps"]
)
def test_each_point_is_its_single_run(schedule, points_chunk, x64):
    problem = scattered(digits(clients=4, batch_size=4, precision="float64"))
    points = grid(stepsize=[0.1, 1.0], sparsity=0.9, seed=[0, 7], **schedule)
    make = ALGORITHMS["sparse_proxskip"]
    assert_each_is_its_single_run(make, problem, points, 1e-12, points_chunk=points_chunk)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gd", "fedprox", "scaffold"])
def test_in_float32_too(small, name):
    """From a random start. From zero, numbers of rare pixels cancel or not by their last bit; zeros cost no bits."""
    more = {"gd": {}, "fedprox": {"mu": [0.0, 1.0], "prob": 0.5}, "scaffold": {"local_steps": 3}}[name]
    points = grid(stepsize=[0.1, 0.3], seed=[0, 1], **more)
    assert_each_is_its_single_run(ALGORITHMS[name], scattered(small), points, 1e-5)


def test_one_program_for_a_grid(small):
    points = grid(stepsize=[0.1, 0.2, 0.4], prob=[0.2, 0.5], seed=range(3))
    before = run_points._cache_size()
    assert len(list(sweep(ALGORITHMS["fedavg"], small, points, rounds=3))) == 18
    assert run_points._cache_size() == before + 1


def test_a_point_that_diverges_is_an_outcome(small):
    points = grid(stepsize=[0.1, 1e30], local_steps=5)
    good, bad = sweep(ALGORITHMS["fedavg"], small, points, rounds=8)
    assert good.diverged_at_round is None and len(good.history["round"]) == 8
    assert bad.point == points[1] and 1 <= bad.diverged_at_round <= 8
    assert len(bad.history["round"]) == bad.diverged_at_round - 1
    assert np.isfinite(bad.history["train_loss"]).all()


def test_local_steps_of_the_sweep_are_of_points_without_their_own(small):
    """8 rounds of 5 or 3 local steps are 40 or 24 iterations."""
    points = [{"stepsize": 0.1}, {"stepsize": 0.1, "local_steps": 3}]
    outcomes = sweep(ALGORITHMS["fedavg"], small, points, rounds=8, local_steps=5)
    assert {one.point.get("local_steps"): one.history["iteration"][-1] for one in outcomes} == {None: 40, 3: 24}


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"stepsize": -1, "prob": 0.1}, "stepsize must be positive and finite, not -1"),
        ({"stepsiz": 1, "prob": 0.1}, "unknown hyperparameter of fedavg 'stepsiz': did you mean 'stepsize'?"),
        ({"stepsize": 1, "prob": 0.1, "local_steps": 2}, "not both"),
        ({"stepsize": 1, "prob": 0.1, "seed": 0.5}, r"seed must be an integer from 0 to 2\*\*32 - 1.* not 0.5"),
    ],
)
def test_wrong_points_are_refused_before_anything_is_computed(small, point, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        sweep(ALGORITHMS["fedavg"], small, [{"stepsize": 0.1, "prob": 0.1}, point], rounds=3)


def test_too_small_a_chunk_is_refused(small):
    with pytest.raises(ValueError, match="points_chunk must be at least 1, not 0"):
        sweep(ALGORITHMS["gd"], small, [{"stepsize": 0.1}], rounds=1, points_chunk=0)


def test_grid_is_the_product_in_order():
    assert grid(a=[1, 2], b=0.5, c=("x", "y")) == [{"a": a, "b": 0.5, "c": c} for a in (1, 2) for c in ("x", "y")]


@given(kinds=st.lists(st.integers(0, 3), min_size=1, max_size=30), most=st.integers(1, 8))
def test_lanes_hold_every_point_once_in_lockstep_and_are_even(kinds, most):
    lanes = _lanes(range(len(kinds)), kinds.__getitem__, most)
    assert sorted(i for lane in lanes for i in lane) == list(range(len(kinds)))
    for kind in set(kinds):
        sizes = [len(lane) for lane in lanes if {kinds[i] for i in lane} == {kind}]
        assert sum(sizes) == kinds.count(kind) and max(sizes) <= most and max(sizes) - min(sizes) <= 1
