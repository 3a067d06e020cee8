"""Choosing points on validation data and comparing methods, from records written by hand; tables and pictures."""

import json

import numpy as np
import pandas
import pytest

from sps_jax import results
from sps_jax.results import files, tables


def record(algorithm, stepsize, seed, round, validation, test, **more):
    names = {"algorithm": algorithm, "problem": "p", "seed": seed, "stepsize": stepsize, "round": round}
    measured = {"validation_accuracy": validation, "test_accuracy": test, "train_loss": 1 - validation}
    bits = {"iteration": 10 * round, "uplink_bits": 1000 * round, "downlink_bits": 500 * round}
    return names | measured | bits | {"density": 0.1, "average_density": 0.2, "control_sum": None} | more


def records():
    """``a``: 0.1 is best on validation, 0.2 on test, 0.3 lost a seed; ``b`` has another hyperparameter."""
    table = []
    for seed in (0, 1):
        for round in (1, 2):
            table.append(record("a", 0.1, seed, round, 0.4 * round, 0.3 * round + 0.1 * seed))
            table.append(record("a", 0.2, seed, round, 0.3 * round, 0.45 * round))
            if (seed, round) != (1, 2):
                table.append(record("a", 0.3, seed, round, 0.49 * round, 0.49 * round))
            table.append(record("b", 0.1, seed, round, 0.2 * round, 0.25 * round, sparsity=0.9, control_sum=1e-6))
    return table


def test_the_best_point_is_of_validation_and_of_all_seeds():
    best = tables.best_points(pandas.DataFrame(records()))
    assert list(best) == ["a", "b"]
    assert set(best["a"]["stepsize"]) == {0.1} and len(best["a"]) == 4


def test_rows_report_the_test_metric_over_seeds():
    a, b = tables.rows(tables.best_points(pandas.DataFrame(records())), "test_accuracy")
    assert a["point"] == {"stepsize": 0.1} and b["point"] == {"stepsize": 0.1, "sparsity": 0.9}
    assert a["mean"] == pytest.approx(0.65) and a["deviation"] == pytest.approx(np.std([0.6, 0.7], ddof=1))
    assert a["target"] == b["target"] == pytest.approx(0.5)  # what b has at the end
    assert (a["bits_to_target"], b["bits_to_target"]) == (2000, 2000)
    assert (a["control_sum"], b["control_sum"], a["seeds"]) == (None, 1e-6, 2)
    lines = tables.text([a, b], "test_accuracy").splitlines()
    assert lines[0].split()[:4] == ["method", "gamma", "s", "seeds"]
    half = 12.7062 * a["deviation"] / np.sqrt(2)  # the 0.975 quantile of Student's distribution, one degree
    assert a["interval"] == pytest.approx(half, rel=1e-5)
    assert (a["best"], a["minus_best"]) == ("a", None) and b["minus_best"] == pytest.approx(0.5 - 0.65)
    assert f"0.6500+-{half:.4f}" in lines[2] and "2 kbit" in lines[3]


def test_a_loss_is_better_where_it_is_smaller():
    table = pandas.DataFrame(records()).drop(columns="validation_accuracy")
    assert tables.criterion(table) == "train_loss"
    assert set(tables.best_points(table)["a"]["stepsize"]) == {0.1}


def test_cells_of_a_map_need_every_seed():
    """0.3 has lost a seed; the best is taken over the other hyperparameter, ``mu``."""
    worse = [r | {"mu": 1.0, "test_accuracy": r["test_accuracy"] / 2} for r in records()]
    table = pandas.DataFrame([r | {"mu": 0.0} for r in records()] + worse)
    own = table[table["algorithm"] == "a"].assign(l1=0.5)
    got = tables.cells(own, "test_accuracy", [("stepsize", [0.1, 0.2, 0.3]), ("l1", [0.5])], 2)
    np.testing.assert_allclose(got, [[0.65], [0.9], [np.nan]])
    got = tables.cells(own, "test_accuracy", [("stepsize", [0.2]), ("mu", [0.0, 1.0])], 2)
    np.testing.assert_allclose(got, [[0.9, 0.45]])


def test_load_names_its_folders_and_ignores_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.write_jsonl(path, records())
    with path.open("a") as file:
        file.write('{"algorithm": "c", "ro')
    frame = results.load(tmp_path)
    assert len(frame) == len(records()) and set(frame["folder"]) == {str(tmp_path)}
    with pytest.raises(ValueError, match="holds no results"):
        results.load(tmp_path / "none")


@pytest.mark.slow
def test_table_and_plot_from_the_shell(tmp_path, shell):
    files.write_jsonl(tmp_path / "metrics.jsonl", [r | {"sparsity": 0.9} for r in records()])
    done = shell("table", tmp_path, "--target", "0.6")
    assert done.returncode == 0 and "bits to 0.6" in done.stdout and "validation_accuracy" in done.stdout
    for against in ("round", "iteration", "uplink_bits", "total_bits"):
        out = tmp_path / f"{against}.png"
        done = shell("plot", tmp_path, "--against", against, "--out", out)
        assert done.returncode == 0, done.stderr
        assert out.read_bytes()[:4] == b"\x89PNG"
    done = shell("plot", tmp_path, "--heat", "stepsize", "sparsity")
    assert done.returncode == 0, done.stderr
    assert sorted(f.name for f in tmp_path.glob("plot*")) == ["plot-a.png", "plot-b.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table"], "name at least one folder of results"),
        (["table", "nothing"], "nothing holds no results"),
        (["table", ".", "--metric", "test_acuracy"], "did you mean 'test_accuracy'?"),
        (["plot", ".", "--against", "bits"], "unknown --against 'bits'"),
        (["plot", ".", "--heat", "stepsize", "momentum"], "unknown hyperparameter 'momentum'"),
    ],
)
def test_wrong_input_gets_one_message_and_status_2(arguments, message, tmp_path, shell):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records()))
    done = shell(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert [f.name for f in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.slow
def test_run_and_table_hold_all_to_one_target(command, tmp_path):
    """The worst training loss that a run ends with, of three methods and two seeds; every run reaches it."""
    options = ["--problem", "quadratic", "--clients", 4, "--rounds", 4, "--local-steps", 2, "--seeds", 2, "--quiet"]
    command("run", *options, "--algorithm", "gd", "proxskip", "sparse_proxskip", "--out", "out")
    summaries = json.loads((tmp_path / "out" / "summary.json").read_text())
    worst = max(summary["final"]["train_loss"] for summary in summaries)
    rows = json.loads(command("table", "out", "--json").stdout)["rows"]
    assert {each["target"] for each in (*summaries, *rows)} == {worst}
    assert all(each["bits_to_target"] for each in (*summaries, *rows))
