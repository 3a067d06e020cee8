"""A day of somebody with a paper to write: own data, method and metric, seeds, a tracker, a kill, a model, a figure."""

import json
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sps_jax as sps

FILES = Path(__file__).parents[1] / "benchmarks" / "research_day"  # which benchmarks/walk.sh goes through too
FLAGS = ["--problem", "mine.py:make", "--algorithm", "fedavg_client_pruning", "mine.py:calm", "--pull", 0.7]
FLAGS += ["--seeds", 3, "--data-seed", 0, "--stepsize", 0.5, "--prob", 0.2, "--sparsity", 0.5]
FLAGS += ["--rounds", 2000, "--evaluate-every", 100, "--checkpoint-every", 100, "--stop-at", "test_loss<=0.03"]
FLAGS += ["--metric", "test_top2"]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The folder with what is mine, from which one works."""
    for path in FILES.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    runpy.run_path("flowers.py")
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.mark.slow
def test_on_the_command_line(desk, shell):
    """Killed after a checkpoint and resumed, the records are those of a run that nothing disturbed; what was tracked,
    the model, the table and the figure are of these records."""
    whole = shell("run", *FLAGS, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "sps_jax", "run", *map(str, FLAGS), "--out", "day", "--track", "tensorboard:logs"]
    with subprocess.Popen(command, cwd=desk, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any((desk / "day" / "checkpoints").glob("[0-9]*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 143 and "sps-jax resume" in said, said
    resumed = shell("resume", "day")
    assert resumed.returncode == 0, resumed.stderr
    records = sps.results.read_records(desk / "day")
    assert records == sps.results.read_records(desk / "whole")
    assert {(r["algorithm"], r["seed"]) for r in records} == {
        (name, seed) for name in ("fedavg_client_pruning", "calm") for seed in range(3)
    }
    assert any((desk / "logs").rglob("events*")) and all("test_top2" in record for record in records)

    assert {r["round"] for r in records if r.get("stopped")} and not all(r.get("stopped") for r in records)
    last = [r for r in records if (r["algorithm"], r["seed"]) == ("calm", 1)][-1]
    outside = runpy.run_path("outside.py")
    assert last["test_accuracy"] == pytest.approx(outside["accuracy"], abs=1e-6)

    table = shell("table", "day", "--latex")
    assert table.returncode == 0 and r"\toprule" in table.stdout and "calm" in table.stdout, table.stderr
    plot = shell("plot", "day", "--metric", "test_top2", "--columns", 1, "--no-title", "--out", "figure.pdf")
    assert plot.returncode == 0, plot.stderr
    assert (desk / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((desk / "day" / "config.json").read_text())["sources"]


@pytest.mark.slow
def test_in_python(desk):
    """The same in a script of fewer than 40 lines; the simulation that goes on ends at the sum of both."""
    assert len((desk / "day.py").read_text().splitlines()) < 40
    names = runpy.run_path("day.py")
    assert [run[:2] for run in names["found"]] == [
        (name, seed) for seed in range(3) for name in ("fedavg_client_pruning", "calm")
    ]
    assert all(0 <= top2 <= 1 and rounds in (5, 10, 15, 20) for _, _, rounds, top2 in names["found"])
    assert names["more"]["round"][0] == names["found"][-1][2] + 5
    assert set(names["weights"]["params"]) == {"kernel", "bias"}
    assert len(list((desk / "python-logs").rglob("events*"))) == 6
