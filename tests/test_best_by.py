"""A metric of one's own tells the best evaluation and the best point, and is what a run compares by."""

import json

import jax
import numpy as np
import pytest

import sps_jax as sps
from sps_jax.cli.search import _ends
from sps_jax.results.files import read_jsonl, write_json, write_jsonl
from sps_jax.runs import models
from sps_jax.simulation.watching import Best, Watch

MINE = """
import jax.numpy as jnp
import numpy as np
import sps_jax as sps


def make(*, data_seed: int = 0, validation: float = 0.0):
    draw = np.random.default_rng(data_seed)
    x = draw.normal(size=(60, 3))
    own = {"size": lambda z, y: jnp.abs(z[:, 0]), "size_error": lambda z, y: jnp.abs(z[:, 0])}
    return sps.from_arrays(x, x.argmax(1), np.arange(60) % 3, test=0.2, validation=validation, metrics=own)
"""
OPTIONS = ("--problem", "mine.py:make", "--algorithm", "gd", "--rounds", 3, "--quiet")


@pytest.fixture
def mine(tmp_path):
    """A problem with two metrics that both grow with the model: the larger is better of one, worse of the other."""
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_the_best_evaluation_is_by_the_metric_that_is_named():
    """0.5 and then 0.4 for 0.6 and then 0.7: better as an error, and as the accuracy that comes first by itself."""
    rows = [{"validation_accuracy": a, "validation_top2": b, "test_error": b} for a, b in ((0.6, 0.5), (0.7, 0.4))]
    wanted = {None: True, "validation_top2": False, "test_error": True}
    for by, improves in wanted.items():
        best = Best(by)
        assert [best.improves(row) for row in rows] == [True, improves]
    watch = Watch(patience=1, best_by="validation_top2")
    assert [watch([row]) for row in rows] == [None, "validation_top2 has not improved in 1 evaluations"]


def test_in_python_patience_is_by_it():
    """From zero the outputs grow with every step of gradient descent, and with them a size that is called an error."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 3))
    own = {"size_error": lambda z, y: abs(z[:, 0])}
    problem = sps.from_arrays(x, x.argmax(1), np.arange(60) % 3, test=0.2, metrics=own)
    settings = {"rounds": 9, "patience": 2, "best_by": "test_size_error"}
    _, history = sps.simulate(sps.gd, problem, {"stepsize": 0.5}, jax.random.key(0), **settings)
    assert history["round"].tolist() == [1, 2, 3] and (np.diff(history["test_size_error"]) > 0).all()
    with pytest.raises(ValueError, match="unknown metric of best_by 'test_siz': did you mean"):
        sps.simulate(sps.gd, problem, {"stepsize": 0.5}, jax.random.key(0), rounds=1, best_by="test_siz")


def test_the_best_model_is_by_it(mine, command):
    done = command("run", *OPTIONS, "--keep", "best", "--best-by", "test_size_error", "--out", "out")
    assert done.returncode == 0, done.stderr
    with models.safe_open(mine / "out" / "models" / "gd-0.safetensors", framework="numpy") as file:
        about = file.metadata()
    assert about["round"] == "1" and about["kept"].startswith("best test_size_error, ")


@pytest.mark.parametrize(("metric", "chosen"), [("size", 0.5), ("size_error", 0.25)])
def test_a_sweep_is_chosen_by_it(metric, chosen, mine, command):
    """Longer steps, larger outputs: the table takes the sweep's own choice, and its own option wins."""
    sweep = ("sweep", *OPTIONS, "--stepsize", 0.25, 0.5, "--best-by", f"validation_{metric}", "--out", "out")
    assert command(*sweep).returncode == 0
    found = json.loads(command("table", "out", "--json").stdout)
    assert found["chosen_by"] == f"validation_{metric}" and found["rows"][0]["point"]["stepsize"] == chosen
    assert f"at its point of best validation_{metric}." in command("table", "out").stdout
    found = json.loads(command("table", "out", "--json", "--best-by", "train_loss").stdout)
    assert found["chosen_by"] == "train_loss" and found["rows"][0]["point"]["stepsize"] == 0.5
    assert command("plot", "out", "--best-by", "validation_size").returncode == 0


def test_a_search_is_told_what_is_to_be_minimised(tmp_path):
    rows = [{"point": i, "round": 4, "validation_accuracy": 0.5, "validation_top2": i, "train_loss": i} for i in (1, 2)]
    write_jsonl(tmp_path / "metrics.jsonl", [*rows, rows[0] | {"round": 3, "point": 7}])
    assert _ends(tmp_path, 4, None) == {1: -0.5, 2: -0.5}
    assert _ends(tmp_path, 4, "validation_top2") == {1: -1, 2: -2} and _ends(tmp_path, 4, "train_loss") == {1: 1, 2: 2}
    assert _ends(tmp_path, 5, "validation_top2") == {}


@pytest.mark.slow
def test_a_run_compares_by_it(mine, command):
    """The target is that of the metric, and the first record that reaches it counts: it grows from round to round."""
    done = command("run", *OPTIONS, "--metric", "test_size", "--out", "out")
    assert done.returncode == 0 and done.stdout.splitlines()[0].split()[2] == "test_size", done.stderr
    rows = read_jsonl(mine / "out" / "metrics.jsonl")
    target = (rows[0]["test_size"] + rows[1]["test_size"]) / 2
    again = command("run", *OPTIONS, "--metric", "test_size", "--target", target, "--json", "--out", "again")
    (summary,) = json.loads(again.stdout)["summaries"]
    assert summary["target_metric"] == "test_size" and summary["bits_to_target"] == rows[1]["uplink_bits"]
    assert summary["best"] == {"test_size": rows[2]["test_size"]}


@pytest.mark.parametrize(
    ("command_", "option", "says"),
    [
        ("run", ("--best-by", "test_siz"), "unknown metric of best_by 'test_siz': did you mean 'test_size'?"),
        ("run", ("--metric", "test_siz"), "unknown metric 'test_siz': did you mean 'test_size'?"),
        ("run", ("--metric", "uplink_bits"), "unknown metric 'uplink_bits'"),
        ("sweep", ("--best-by", "validation_siz"), "unknown metric of best_by 'validation_siz': did you mean"),
        ("sweep", ("--best-by", "test_size"), "never on test data as by 'test_size'"),
    ],
)
def test_what_is_no_such_metric_is_said_before_anything_is_written(command_, option, says, mine, command):
    done = command(command_, *OPTIONS, *option, "--out", "out")
    assert done.returncode == 2 and says in done.stderr and done.stderr.startswith("sps-jax: error: ")
    assert not (mine / "out").exists()


def test_a_run_whose_best_is_by_test_data_leaves_the_choice_of_points_alone(tmp_path, command):
    row = {"algorithm": "gd", "problem": "p", "seed": 0, "round": 1, "train_loss": 1.0, "stepsize": 0.1}
    row |= {"uplink_bits": 8, "downlink_bits": 8, "control_sum": None, "density": 1.0, "test_top2": 0.5}
    write_jsonl(tmp_path / "metrics.jsonl", [row])
    write_json(tmp_path / "config.json", {"settings": {"best_by": "test_top2"}, "versions": {}})
    assert json.loads(command("table", ".", "--json").stdout)["chosen_by"] == "train_loss"
    assert "never on test data" in command("table", ".", "--best-by", "test_top2").stderr
