"""A day of somebody with a paper to write: own data, method and metric, seeds, a tracker, a kill, a model, a figure."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas
import pytest

import sps_jax as sps

MINE = '''
"""What is mine: a method, and a problem with a metric."""

import jax
import jax.numpy as jnp
import pandas
import sps_jax as sps


def calm(*, stepsize, prob, sparsity, pull: float = 0.5, prune=sps.topk):
    """FedAvg whose server takes a part of the step.

    Args:
      pull: which part of the way to the mean.
    """
    def serve(server, mean, info):
        return jax.tree.map(lambda s, m: s + pull * (m - s), server, mean)

    return sps.pruned(sps.Algorithm(move=sps.descend(stepsize), serve=serve), prune, sparsity, uplink=True)


def top2(outputs, y):
    return jnp.any(jnp.argsort(-outputs, axis=1)[:, :2] == y[:, None], axis=1).astype(jnp.float32)


def make(*, file: str = "data.parquet", data_seed: int = 0):
    """Flowers in a file.

    Args:
      file: where they are.
    """
    frame = pandas.read_parquet(file)
    x = frame[["width", "length"]].to_numpy("float32")
    return sps.from_arrays(x, frame["kind"], frame["garden"], test=0.25, seed=data_seed, metrics={"top2": top2})
'''
DAY = """
import jax, sys
import sps_jax as sps
from mine import calm, make

problem = make()
hyper = {"stepsize": 0.5, "prob": 0.2, "sparsity": 0.5}
found = []
for seed in range(3):
    for method in (sps.fedavg_client_pruning, calm):
        with sps.track("tensorboard:python-logs", name=f"{method.__name__}-{seed}", config=hyper) as tell:
            state, history = sps.simulate(
                method, problem, hyper, jax.random.key(seed), rounds=20, evaluate_every=5,
                on_evaluation=tell, stop_at="test_accuracy>=0.9",
            )
        found.append((method.__name__, seed, int(history["round"][-1]), float(history["test_top2"][-1])))
state, more = sps.simulate(calm, problem, hyper, jax.random.key(2), rounds=20, evaluate_every=5, state=state)
weights = sps.model_of(calm(**hyper), state)
"""
FLAGS = ["--problem", "mine.py:make", "--algorithm", "fedavg_client_pruning", "mine.py:calm", "--pull", 0.7]
FLAGS += ["--seeds", 3, "--data-seed", 0, "--stepsize", 0.5, "--prob", 0.2, "--sparsity", 0.5]
FLAGS += ["--rounds", 2000, "--evaluate-every", 100, "--checkpoint-every", 100, "--stop-at", "test_loss<=0.03"]


@pytest.fixture
def desk(tmp_path):
    """The folder with what is mine: flowers of three kinds in six gardens, and the file of methods."""
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 3, 240)
    centre = np.array([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])[kind]
    x = centre + 0.4 * draw.normal(size=centre.shape)
    names = {"kind": np.array(["iris", "lily", "rose"])[kind], "garden": np.array(list("abcdef"))[np.arange(240) % 6]}
    pandas.DataFrame({"width": x[:, 0], "length": x[:, 1]} | names).to_parquet(tmp_path / "data.parquet")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


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
    weights = sps.load_model(desk / "day", "calm", seed=1)
    frame = pandas.read_parquet(desk / "data.parquet")
    problem = sps.from_arrays(
        frame[["width", "length"]].to_numpy("float32"), frame["kind"], frame["garden"], test=0.25, seed=0
    )
    x, y = map(np.asarray, problem.test)
    kernel, bias = (np.asarray(weights["params"][name]) for name in ("kernel", "bias"))
    outputs = x @ (kernel if kernel.shape[0] == 2 else kernel.T) + bias
    assert last["test_accuracy"] == pytest.approx(np.mean(outputs.argmax(axis=1) == y), abs=1e-6)

    table = shell("table", "day", "--latex")
    assert table.returncode == 0 and r"\toprule" in table.stdout and "calm" in table.stdout, table.stderr
    plot = shell("plot", "day", "--metric", "test_top2", "--columns", 1, "--no-title", "--out", "figure.pdf")
    assert plot.returncode == 0, plot.stderr
    assert (desk / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((desk / "day" / "config.json").read_text())["sources"]


def test_in_python(desk, monkeypatch):
    """The same in a script of fewer than 40 lines; the simulation that goes on ends at the sum of both."""
    assert len(DAY.strip().splitlines()) < 40
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(desk)
    names: dict = {}
    exec(compile(DAY, "day.py", "exec"), names)
    assert [run[:2] for run in names["found"]] == [
        (name, seed) for seed in range(3) for name in ("fedavg_client_pruning", "calm")
    ]
    assert all(0 <= top2 <= 1 and rounds in (5, 10, 15, 20) for _, _, rounds, top2 in names["found"])
    assert names["more"]["round"][0] == names["found"][-1][2] + 5
    assert set(names["weights"]["params"]) == {"kernel", "bias"}
    assert len(list((desk / "python-logs").rglob("events*"))) == 6
