"""What comes out of a run: models, records as they come, early ends, lines of progress; options from a file."""

import json
import os
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import sps_jax as sps
from sps_jax.problems import digits
from sps_jax.results.files import read_jsonl
from sps_jax.runs import console, models, trackers

DIGITS = ("--clients", 4, "--rounds", 6, "--evaluate-every", 2, "--devices", 1, "--quiet")
QUADRATIC = ("--problem", "quadratic", "--clients", 2, "--algorithm", "gd", "--devices", 1, "--quiet")


def kept(path):
    """The texts about a model."""
    with models.safe_open(path, framework="numpy") as file:
        return file.metadata()


# --- models -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_model_of_a_run_is_the_one_that_was_evaluated_last(tmp_path, command):
    """Evaluated outside it gives the last record, to the rounding of a sum over other lanes, and has its zeros."""
    done = command("run", *DIGITS, "--algorithm", "sparse_proxskip", "gd", "--seeds", 2, "--out", "out")
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    for name, seed in (("sparse_proxskip", 0), ("sparse_proxskip", 1), ("gd", 0), ("gd", 1)):
        model = sps.load_model(tmp_path / "out", name, seed)
        last = [row for row in rows if (row["algorithm"], row["seed"]) == (name, seed)][-1]
        found = digits(clients=4, data_seed=seed).evaluate_held(model)
        np.testing.assert_allclose(found["test_accuracy"], last["test_accuracy"], rtol=1e-6)
        entries = jax.tree.leaves(model)
        assert sum(int((a != 0).sum()) for a in entries) == round(last["density"] * sum(a.size for a in entries))
    path = tmp_path / "out" / "models" / "gd-0.safetensors"
    assert {"algorithm": "gd", "problem": "digits", "seed": "0", "round": "6", "kept": "last"}.items() <= kept(
        path
    ).items()
    names = {"/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(model)}
    assert load_file(path).keys() == names


@pytest.mark.slow
def test_the_best_model_is_that_of_the_best_validation_accuracy(tmp_path, command):
    """Steps too long make accuracies rise and fall; the records tell which evaluation was the first best one."""
    settings = (*DIGITS, "--algorithm", "gd", "--stepsize", 6, "--validation", 0.2, "--evaluate-every", 1)
    assert command("run", *settings, "--keep", "best", "--out", "out").returncode == 0
    rows = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    best = max(rows, key=lambda row: row["validation_accuracy"])
    assert best["round"] not in (1, 6)
    about = kept(tmp_path / "out" / "models" / "gd-0.safetensors")
    assert about["round"] == str(best["round"]) and about["kept"].startswith("best validation_accuracy, 0.")
    found = digits(clients=4, validation=0.2).evaluate_held(sps.load_model(tmp_path / "out"))
    np.testing.assert_allclose(found["validation_accuracy"], best["validation_accuracy"], rtol=1e-6)
    assert command("run", *settings, "--out", "last").returncode == 0
    assert (tmp_path / "last" / "metrics.jsonl").read_bytes() == (tmp_path / "out" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_no_model_is_kept_where_none_is_wanted_or_the_run_diverged(tmp_path, command):
    assert command("run", *QUADRATIC, "--rounds", 2, "--keep", "none", "--out", "none").returncode == 0
    assert command("run", *QUADRATIC, "--rounds", 40, "--stepsize", 1e9, "--out", "diverged").returncode == 3
    for folder in ("none", "diverged"):
        with pytest.raises(
            FileNotFoundError, match="has no models: the run had --keep none, has not ended, or diverged"
        ):
            sps.load_model(tmp_path / folder)


TREES = {
    "dicts": {"a": {"b": jnp.ones(2, jnp.bfloat16), "c": jnp.zeros((0, 2))}, "d": jnp.float32(2)},
    "one array": jnp.arange(6.0).reshape(2, 3).T,
    "numbered": {0: jnp.ones(1), 1: jnp.zeros(1)},
    "names alike": {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}},
}


@pytest.mark.parametrize("name", TREES)
def test_a_model_comes_back_as_it_was(name, tmp_path):
    models.save_model(models.file_of(tmp_path, "mine", 3), TREES[name], {"algorithm": "mine", "seed": 3})
    found = sps.load_model(tmp_path, "mine", 3)
    jax.tree.map(np.testing.assert_array_equal, found, TREES[name])
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, TREES[name])


def test_other_trees_need_one_like_them(tmp_path):
    tree = (jnp.ones(2), [jnp.zeros(3)])
    models.save_model(models.file_of(tmp_path, "mine", 0), tree, {"algorithm": "mine", "seed": 0})
    with pytest.raises(ValueError, match="is not of nested dicts; give like="):
        sps.load_model(tmp_path)
    found = sps.load_model(tmp_path, like=jax.eval_shape(lambda: tree))
    jax.tree.map(np.testing.assert_array_equal, found, tree)
    with pytest.raises(ValueError, match=r"0 has shape \(2,\) in .*, but \(1,\) in like"):
        sps.load_model(tmp_path, like=(jnp.ones(1), [jnp.zeros(3)]))
    with pytest.raises(ValueError, match="have other leaves, first 1/1"):
        sps.load_model(tmp_path, like=(jnp.ones(2), [jnp.zeros(3), jnp.ones(1)]))


def test_what_there_is_no_model_of_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        sps.load_model(tmp_path / "nowhere")
    for name in ("fedavg", "gd"):
        models.save_model(models.file_of(tmp_path, name, 1), {"x": jnp.ones(1)}, {"algorithm": name, "seed": 1})
    with pytest.raises(ValueError, match="has models of several algorithms; name one of fedavg, gd"):
        sps.load_model(tmp_path)
    with pytest.raises(ValueError, match="'fedvag': did you mean 'fedavg'"):
        sps.load_model(tmp_path, "fedvag")
    with pytest.raises(ValueError, match="has no model of gd with seed 0, only with 1"):
        sps.load_model(tmp_path, "gd")
    path = models.file_of(tmp_path, "gd", 1)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"gd-1\.safetensors is damaged"):
        sps.load_model(tmp_path, "gd", 1)
    with pytest.raises(ValueError, match="k is of float8_e5m2, which no safetensors file holds"):
        models.save_model(tmp_path / "no", {"k": jnp.ones(2, jnp.float8_e5m2)}, {})
    assert not (tmp_path / "no").exists()


def test_a_model_on_a_full_disk_is_an_error_of_the_disk_and_leaves_the_one_before(tmp_path, command, monkeypatch):
    """Status 1, a sentence, no part of a file, and what was saved is as it was."""

    def full(leaves, partial, texts):
        partial.write_bytes(b"a part")
        raise models.SafetensorError("No space left on device (os error 28)")

    path = models.file_of(tmp_path, "gd", 0)
    models.save_model(path, {"x": jnp.ones(1)}, {"algorithm": "gd", "seed": 0})
    monkeypatch.setattr(models, "save_file", full)
    with pytest.raises(OSError, match=r"cannot write .*gd-0\.safetensors: No space left on device"):
        models.save_model(path, {"x": jnp.zeros(1)}, {})
    assert float(sps.load_model(tmp_path)["x"][0]) == 1 and list(path.parent.iterdir()) == [path]
    done = command("run", *QUADRATIC, "--rounds", 2, "--checkpoint-every", 1, "--out", "out")
    assert done.returncode == 1 and "No space left on device" in done.stderr and "sps-jax resume out" in done.stderr


# --- records as they come, and early ends -------------------------------------------------------------------------


@pytest.fixture
def cut(monkeypatch):
    """``cut(round)``: a tracker that sends this process SIGTERM when it gets that round."""

    def at(number):
        def made(where, run):
            def tell(step, row):
                if step == number:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(0.5)  # until the thread that waits for signals has heard it

            yield tell

        monkeypatch.setitem(trackers.TRACKERS, "cut", trackers.contextlib.contextmanager(made))
        monkeypatch.setitem(trackers.PACKAGES, "cut", "os")
        return ("--track", "cut:here")

    return at


@pytest.mark.slow
def test_records_are_on_disk_after_each_block_and_stay_there(tmp_path, command, cut):
    """40 rounds are 20 blocks of 2; the signal of round 7 is heard when its block has ended."""
    settings = (*QUADRATIC, "--rounds", 40)
    done = command("run", *settings, *cut(7), "--out", "out")
    assert done.returncode == 143
    assert (
        "stopped by SIGTERM, all evaluations so far are kept in out; only a run with --checkpoint-every" in done.stderr
    )
    assert command("run", *settings, "--out", "whole").returncode == 0
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert (tmp_path / "out" / "metrics.jsonl").read_text().splitlines() == lines[:8]
    assert not (tmp_path / "out" / "models").exists()


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_keeps_the_evaluations_of_a_run_without_checkpoints(tmp_path):
    """A real process and a real signal: whole lines, a sentence, status 130, no traceback."""
    settings = ["--problem", "quadratic", "--algorithm", "gd", "--rounds", "400000", "--evaluate-every", "100"]
    command = [sys.executable, "-m", "sps_jax", "run", *settings, "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, begun = tmp_path / "out" / "metrics.jsonl", time.monotonic()
    while not (metrics.is_file() and metrics.stat().st_size):
        assert process.poll() is None and time.monotonic() - begun < 120
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130 and "all evaluations so far are kept in out" in error and "Traceback" not in error
    text = metrics.read_text()
    rounds = [row["round"] for row in read_jsonl(metrics)]
    assert text.endswith("\n") and rounds == list(range(100, 100 * len(rounds) + 1, 100))


@pytest.mark.slow
def test_a_run_that_stops_early_has_the_model_of_its_last_evaluation(tmp_path, command):
    """It ends with the first record of the whole run that fulfils the rule, and the other run goes on."""
    settings = (*DIGITS[:-1], "--algorithm", "gd", "sparse_proxskip")
    assert command("run", *settings, "--out", "whole").returncode == 0
    rows = read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    rule = f"train_loss<={rows[1]['train_loss']!r}"
    done = command("run", *settings, "--stop-at", rule, "--out", "out")
    assert done.returncode == 0 and f"sps-jax: gd (seed 0) stopped after round 4: {rule}" in done.stderr
    found = {name: [row for row in rows if row["algorithm"] == name] for name in ("gd", "sparse_proxskip")}
    ends = {name: next((i for i, r in enumerate(own) if eval_rule(r, rule)), 2) for name, own in found.items()}
    assert ends["gd"] == 1
    found["gd"][1]["stopped"] = True
    if ends["sparse_proxskip"] < 2:
        found["sparse_proxskip"][ends["sparse_proxskip"]]["stopped"] = True
    assert read_jsonl(tmp_path / "out" / "metrics.jsonl") == [r for n, own in found.items() for r in own[: ends[n] + 1]]
    table = command("table", "out").stdout
    assert all(name in table for name in found) and "where each run ended, some by a rule" in table
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())[0]
    assert summary["stopped"] == rule and summary["rounds"] == 4
    assert kept(tmp_path / "out" / "models" / "gd-0.safetensors")["round"] == "4"


def eval_rule(row, rule):
    metric, bound = rule.split("<=")
    return row[metric] <= float(bound)


@pytest.mark.slow
@pytest.mark.parametrize("when", [3, 4])
def test_a_resumed_run_waits_as_long_and_keeps_the_same_model(when, tmp_path, command, cut):
    """Gradient descent at 1/L is at the quadratic's minimum after one round: patience 5 ends the run after about 6.

    It is cut off while it waits, in a block of one round, and has all its records and its model as if it had not been.
    """
    settings = (*QUADRATIC, "--rounds", 40, "--patience", 5, "--keep", "best", "--checkpoint-every", 20)
    assert command("run", *settings, "--out", "whole").returncode == 0
    rounds = len(read_jsonl(tmp_path / "whole" / "metrics.jsonl"))
    assert when < rounds < 12
    done = command("run", *settings, *cut(when), "--out", "out")
    assert done.returncode == 143 and "all is saved; continue with: sps-jax resume out" in done.stderr
    assert len(read_jsonl(tmp_path / "out" / "metrics.jsonl")) == when
    cut(0)
    assert command("resume", "out", "--quiet").returncode == 0
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    jax.tree.map(np.testing.assert_array_equal, *(sps.load_model(tmp_path / name) for name in ("out", "whole")))
    about = [kept(tmp_path / name / "models" / "gd-0.safetensors") for name in ("out", "whole")]
    assert about[0] == about[1]
    (summary,) = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["stopped"] == "train_loss has not improved in 5 evaluations" and summary["rounds"] == rounds


WRONG = {
    "rule": (("--stop-at", "loss"), "stop_at must be a metric, one of >=, <=, >, <, and a number"),
    "metric": (("--stop-at", "tran_loss>1"), "unknown metric of stop_at 'tran_loss': did you mean 'train_loss'?"),
    "patience": (("--patience", 0), "patience must be at least 1, not 0"),
    "keep": (("--keep", "bset"), "unknown keep 'bset': did you mean 'best'? Allowed: best, last, none"),
    "tracker": (("--track", "wanb:x"), "unknown tracker 'wanb': did you mean 'wandb'?"),
    "place": (("--track", "mlflow"), "track needs a place behind its colon, mlflow:URI, not 'mlflow'"),
    "config": (("--config", "no.toml"), "there is no file no.toml for --config"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_wishes_get_one_sentence_and_leave_nothing(case, tmp_path, command):
    arguments, says = WRONG[case]
    done = command("run", *QUADRATIC, "--rounds", 2, *arguments)
    assert done.returncode == 2 and done.stderr.startswith("sps-jax: error: ") and says in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- live records -------------------------------------------------------------------------------------------------


def tracking(command, to, tmp_path):
    """Run and track; the losses of the records."""
    done = command("run", *QUADRATIC, "--rounds", 3, "--track", to, "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)  # trackers write nothing to standard output
    return [row["train_loss"] for row in read_jsonl(tmp_path / "out" / "metrics.jsonl")]


def needs(package):
    return pytest.importorskip(package, reason=f"{package} is an extra, and not installed", exc_type=ImportError)


def test_tensorboard_gets_every_record(tmp_path, command):
    """Its files are records of a length, a checksum, an event and a checksum; numbers are float32."""
    needs("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    losses = tracking(command, "tensorboard:logs", tmp_path)
    (path,) = (tmp_path / "logs" / "out-gd-0").iterdir()
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    found = {event.step: v.simple_value for event in events for v in event.summary.value if v.tag == "train_loss"}
    assert found == {step: np.float32(loss) for step, loss in enumerate(losses, start=1)}


@pytest.mark.filterwarnings("ignore")  # its own
def test_mlflow_gets_every_record(tmp_path, command):
    needs("mlflow")
    needs("sqlalchemy")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    losses = tracking(command, f"mlflow:{uri}", tmp_path)
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("sps_jax").experiment_id])
    assert run.info.run_name == "out-gd-0" and run.info.status == "FINISHED" and run.data.params["algorithm"] == "gd"
    found = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(one.step, one.value) for one in found] == list(enumerate(losses, start=1))


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_goes_on_in_the_same_run_of_its_tracker(tmp_path, command, cut):
    """Cut off after round 3 of 6: one run, each round once, in order."""
    needs("mlflow")
    needs("sqlalchemy")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = (*QUADRATIC, "--rounds", 6, "--checkpoint-every", 6, "--out", "out")
    assert command("run", *settings, *cut(3), f"mlflow:{uri}").returncode == 143
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("sps_jax").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["FAILED"]
    cut(0)
    assert command("resume", "out", "--quiet").returncode == 0
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    rows = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    found = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(one.step, one.value) for one in found] == [(row["round"], row["train_loss"]) for row in rows]


@pytest.mark.filterwarnings("ignore")
def test_wandb_gets_every_record_offline(tmp_path, command, monkeypatch):
    """Its file holds the names of the metrics and their values in decimal digits."""
    needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    losses = tracking(command, "wandb:project", tmp_path)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert all(text.encode() in path.read_bytes() for text in ("train_loss", *map(repr, losses)))


@pytest.mark.filterwarnings("ignore")
def test_trackio_gets_every_record(tmp_path, monkeypatch):
    """A process of its own, because it reads its folder's name when it is imported."""
    needs("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))

    def command(*arguments):
        whole = [sys.executable, "-m", "sps_jax", *map(str, arguments)]
        return subprocess.run(whole, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    losses = tracking(command, "trackio:project", tmp_path)
    with sqlite3.connect(tmp_path / "trackio" / "project.db") as file:
        rows = file.execute("select step, metrics from metrics order by step").fetchall()
    assert [(step, json.loads(text)["train_loss"]) for step, text in rows] == list(enumerate(losses, start=1))


@pytest.mark.parametrize("kind", trackers.TRACKERS)
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(kind, command, monkeypatch, tmp_path):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    done = command("run", *QUADRATIC, "--track", f"{kind}:x")
    assert done.returncode == 2 and f"is missing: pip install 'sps_jax[{kind}]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_fails_is_named(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "cut", lambda where, run: 1 / 0)
    monkeypatch.setitem(trackers.PACKAGES, "cut", "os")
    with pytest.raises(OSError, match="cannot track by cut:x: division by zero"), sps.track("cut:x"):
        pass


def test_a_simulation_is_tracked_in_python():
    seen = []

    def made(where, run):
        seen.append((where, run.name, run.config))
        yield lambda step, row: seen.append((step, row["train_loss"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trackers.TRACKERS, "list", trackers.contextlib.contextmanager(made))
        patch.setitem(trackers.PACKAGES, "list", "os")
        problem, hyper = sps.problems.quadratic(clients=2), {"stepsize": 0.1}
        with sps.track("list:here", name="mine", config=hyper) as tell:
            settings = {"rounds": 2, "on_evaluation": tell}
            _, history = sps.simulate(sps.gd, problem, hyper, jax.random.key(0), **settings)
    assert seen == [("here", "mine", hyper), *enumerate(history["train_loss"].tolist(), start=1)]


# --- lines of progress --------------------------------------------------------------------------------------------


def test_a_log_gets_lines_at_a_pace_that_slows_down(monkeypatch, capsys):
    """After 10 s, then after 10 s more and after a tenth of all seconds so far: at 10, 20, ..., 100, 110, 121, 133."""
    console.hush(False)
    now = [1000.0]
    monkeypatch.setattr(console.time, "time", lambda: now[0])
    written = []
    with console.progress(100, 0, "round") as bar:
        bar.set_description("gd")
        for second in range(1, 140):
            now[0] = bar.start_t + second
            bar.display()
            if capsys.readouterr().err:
                written.append(second)
    assert written == [*range(10, 111, 10), 121, 134]


def test_what_a_line_says(monkeypatch, capsys):
    console.hush(False)
    monkeypatch.setattr(console, "PACE", 0.0)
    with console.progress(8, 2, "round") as bar:
        bar.set_description("gd")
        bar.mininterval = 0
        bar.update(4)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"sps-jax: gd: 6 of 8 rounds, 00:0\d so far, about 00:0\d left", lines[-1]), lines
    with console.progress(8, 2, "round", hidden=True) as bar:
        bar.update(4)
    assert capsys.readouterr().err == ""


# --- options from a file ------------------------------------------------------------------------------------------

TOML = """problem = "quadratic"
algorithm = "gd"
stepsize = 0.25
clients = 3
data-seed = 4
rounds = 5
"""


def settings_of(out):
    return json.loads((Path(out) / "config.json").read_text())["settings"]


@pytest.mark.slow
def test_options_come_from_a_file_with_flags_on_top(tmp_path, command):
    """By hand as TOML; then the config.json of that run gives the same records, and a flag on top wins."""
    (tmp_path / "mine.toml").write_text(TOML)
    assert command("run", "--config", "mine.toml", "--quiet", "--out", "a").returncode == 0
    first = settings_of("a")
    assert (first["stepsize"], first["algorithm"], first["data_seed"], first["rounds"]) == ("0.25", ["gd"], 4, 5)
    assert "config" not in first
    assert command("run", "--config=a/config.json", "--quiet", "--out", "b").returncode == 0
    assert Path("a/metrics.jsonl").read_bytes() == Path("b/metrics.jsonl").read_bytes()
    assert settings_of("b") == first | {"out": "b"}
    assert command("run", "--config", "a/config.json", "--rounds", 2, "--quiet", "--out", "c").returncode == 0
    assert settings_of("c") == first | {"out": "c", "rounds": 2}


def test_a_sweep_takes_its_lists_from_a_file_too(tmp_path, command):
    (tmp_path / "mine.toml").write_text(TOML.replace("0.25", "[0.25, 0.5]"))
    assert command("sweep", "--config", "mine.toml", "--quiet", "--out", "a").returncode == 0
    assert command("sweep", "--config", "a/config.json", "--rounds", 2, "--quiet", "--out", "b").returncode == 0
    rows = read_jsonl(tmp_path / "b" / "metrics.jsonl")
    assert {(row["round"], row["stepsize"]) for row in rows} == {(r, s) for r in (1, 2) for s in (0.25, 0.5)}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "roudns = 3", "unknown option in a.toml 'roudns': did you mean 'rounds'?"),
        ("a.toml", 'rounds = "many"', "rounds in a.toml cannot be 'many': Expected `int`, got `str`"),
        ("a.toml", "rounds = 2.5", "rounds in a.toml cannot be 2.5: Expected `int`, got `float`"),
        ("a.toml", "[run]\nrounds = 3", "unknown option in a.toml 'run'"),
        ("a.toml", "rounds", "a.toml cannot be read: "),
        ("a.toml", 'config = "b.toml"', "unknown option in a.toml 'config'"),
        ("a.json", "[1]", "a.json must hold options by their names, not a list"),
        ("a.json", "{", "a.json cannot be read: "),
    ],
)
def test_a_file_that_gives_no_options_is_refused_in_a_sentence(name, text, says, tmp_path, command):
    (tmp_path / name).write_text(text)
    done = command("run", "--config", name)
    assert done.returncode == 2 and done.stderr.startswith("sps-jax: error: ") and says in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
