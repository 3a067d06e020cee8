"""A simulation that goes on from where another ended, is watched between its blocks, and is stopped by a rule."""

import dataclasses
import re

import jax
import numpy as np
import pytest

import sps_jax as sps
from sps_jax.problems import digits, quadratic
from sps_jax.runs import checkpoint
from sps_jax.simulation.watching import columns

KEY = jax.random.key(3)
HYPER = {"stepsize": 0.3}
SCHEDULES = {"coin": {"prob": 0.4}, "fixed": {}}
"""Hyperparameters of a random number of local steps, and of a fixed one, which ``local_steps`` gives."""


def ran(run, how, problem=None, **settings):
    """SCAFFOLD, whose clients and server both have memory, with a cohort of 2 of 4 clients."""
    problem = quadratic(clients=4, dimension=2) if problem is None else problem
    fixed = {"local_steps": 3} if how == "fixed" else {}
    return run(sps.scaffold, problem, HYPER | SCHEDULES[how], KEY, cohort=2, **fixed, **settings)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("how", SCHEDULES)
@pytest.mark.parametrize("run", [sps.simulate, sps.stream])
def test_five_rounds_and_five_more_are_ten(how, run):
    """Bit for bit, the evaluations too: rounds 2, 4, 5, of which 5 only as the last of its part, then 6, 8, 10."""
    whole, all_rows = ran(run, how, rounds=10, evaluate_every=2)
    half, first = ran(run, how, rounds=5, evaluate_every=2)
    before = jax.tree.map(np.array, half)
    end, second = ran(run, how, rounds=5, evaluate_every=2, state=half)
    same(before, half)  # what is given is left as it is
    same(end, whole)
    assert first["round"].tolist() == [2, 4, 5] and second["round"].tolist() == [6, 8, 10]
    joined = {name: np.concatenate([first[name][:2], second[name]]) for name in all_rows}
    same(joined, all_rows)
    assert all(joined[name].dtype == all_rows[name].dtype for name in joined)
    assert end.past.rounds == 10 and end.past.uplink_bits == all_rows["uplink_bits"][-1]


def test_a_state_from_a_checkpoint_or_from_the_host_goes_on_too(tmp_path):
    """Streamed, saved, restored, and gone on with on the devices; the rounds and bits are part of the state."""
    whole, _ = ran(sps.simulate, "coin", rounds=4)
    half, _ = ran(sps.stream, "coin", rounds=2)
    sps.checkpoint.save(tmp_path / "kept", 2, half)
    end, _ = ran(sps.simulate, "coin", rounds=2, state=checkpoint.restore(tmp_path / "kept", half))
    same(end, whole)


def test_memory_in_files_goes_on_in_the_same_files_or_in_others(tmp_path):
    whole, _ = ran(sps.stream, "coin", rounds=4)
    half, _ = ran(sps.stream, "coin", rounds=2, folder=tmp_path / "a")
    kept = jax.tree.map(np.array, half.memory)
    same(ran(sps.stream, "coin", rounds=2, state=half, folder=tmp_path / "b")[0], whole)
    same(half.memory, kept)
    same(ran(sps.stream, "coin", rounds=2, state=half, folder=tmp_path / "a")[0], whole)
    same(half.memory, whole.memory)


def test_bits_beyond_32_bits_pass_through_jit():
    state, _ = ran(sps.simulate, "coin", rounds=1)
    state = state._replace(past=state.past._replace(uplink_bits=np.int64(2**40)))
    model = jax.jit(lambda state: sps.model_of(sps.scaffold(stepsize=0.3, prob=0.4), state))(state)
    same(model, sps.model_of(sps.scaffold(stepsize=0.3, prob=0.4), state))


@pytest.mark.parametrize("run", [sps.simulate, sps.stream])
def test_a_function_sees_each_evaluation_and_its_numbers_are_the_history(run):
    seen = []
    end, history = ran(run, "coin", rounds=5, evaluate_every=2, on_evaluation=seen.append)
    alone, quiet = ran(run, "coin", rounds=5, evaluate_every=2)
    same(end, alone)
    same(history, quiet)
    assert [row["round"] for row in seen] == [2, 4, 5]
    for name, column in history.items():
        assert [row[name] for row in seen] == column.tolist() and type(seen[0][name]) in (int, float)


@pytest.mark.parametrize("run", [sps.simulate, sps.stream])
def test_true_ends_the_simulation_there(run):
    """The state is that of the evaluation at which it ended, so that it goes on from there."""
    end, history = ran(run, "coin", rounds=6, evaluate_every=2, on_evaluation=lambda row: row["round"] == 4)
    assert history["round"].tolist() == [2, 4]
    same(end, ran(run, "coin", rounds=4)[0])


def test_only_true_ends_it():
    _, history = ran(sps.simulate, "coin", rounds=2, on_evaluation=lambda row: row)
    assert history["round"].tolist() == [1, 2]


def test_stop_at_ends_with_the_first_evaluation_that_fulfils_it():
    """The level is the median of the five losses of a simulation without the rule."""
    _, whole = ran(sps.simulate, "fixed", rounds=5)
    losses = whole["train_loss"].tolist()
    level = sorted(losses)[2]
    first = next(i for i, loss in enumerate(losses) if loss <= level)
    _, history = ran(sps.simulate, "fixed", rounds=5, stop_at=f"train_loss<={level!r}")
    assert history["train_loss"].tolist() == losses[: first + 1]
    _, history = ran(sps.simulate, "fixed", rounds=5, stop_at="train_loss<0")
    assert history["train_loss"].tolist() == losses


def test_patience_waits_for_a_new_best_evaluation():
    """At its minimiser a quadratic stays as it is: the first evaluation is the best, and two more are waited for."""
    problem = quadratic(clients=4, dimension=2)
    problem = dataclasses.replace(problem, data=tuple(a * 0 for a in problem.data))  # all at 0, where params begin
    settings = {"rounds": 9, "evaluate_every": 2, "params": {"x": jax.numpy.zeros((2, 1))}, "patience": 2}
    _, history = sps.simulate(sps.gd, problem, {"stepsize": 1.0}, KEY, **settings)
    assert history["round"].tolist() == [2, 4, 6] and history["train_loss"].tolist() == [0, 0, 0]


WRONG = {
    "history": ({"state": ({}, {})}, "state must be one that sps.simulate or sps.stream returned, not a tuple"),
    "both": (
        {"state": 0, "params": {"x": np.zeros((2, 1), np.float32)}},
        "give either state, to go on from it, or params, a new starting point, not both",
    ),
    "no comparison": ({"stop_at": "test_accuracy=0.9"}, "stop_at must be a metric, one of >=, <=, >, <, and a number"),
    "no number": ({"stop_at": "train_loss<best"}, "such as 'test_accuracy>=0.9', not 'train_loss<best'"),
    "no text": ({"stop_at": 0.9}, "stop_at must be a metric"),
    "metric": ({"stop_at": "train_los<1"}, "unknown metric of stop_at 'train_los': did you mean 'train_loss'?"),
    "patience": ({"patience": 0}, "patience must be at least 1, not 0"),
    "no function": ({"on_evaluation": 3}, "on_evaluation must be a function of one row, not 3"),
}


@pytest.mark.parametrize("run", [sps.simulate, sps.stream])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_none_is_said_before_anything_is_computed(case, run):
    settings, says = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(says)):
        ran(run, "coin", rounds=1, **settings)


def test_a_state_of_another_simulation_is_refused_by_what_differs():
    state, _ = ran(sps.simulate, "coin", rounds=1)
    other = quadratic(clients=4, dimension=3)
    with pytest.raises(ValueError, match=r"state is of another simulation: server\.model\['x'\] is float32\[2, 1\]"):
        ran(sps.simulate, "coin", rounds=1, problem=other, state=state)
    with pytest.raises(ValueError, match="state is of another algorithm or model"):
        sps.simulate(sps.gd, other, HYPER, KEY, rounds=1, state=state)
    with pytest.raises(ValueError, match="not a state without its past"):
        ran(sps.simulate, "coin", rounds=1, state=state._replace(past=None))


def test_stop_at_knows_the_columns_of_held_out_data():
    """All columns of a history but ``answer_bits`` may be compared, whatever the problem."""
    problem = digits(clients=2)
    _, history = sps.simulate(sps.gd, problem, HYPER, KEY, rounds=3, stop_at="test_accuracy>=0")
    assert history["round"].tolist() == [1] and history.keys() <= set(columns(problem))
