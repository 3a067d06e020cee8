"""The long comparison on CIFAR-10: what it runs, in what order, and that killing it changes nothing."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "paper" / "cifar_resnet20.py"


@pytest.fixture
def script(monkeypatch):
    """It as a module."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import cifar_resnet20

    return cifar_resnet20


def process(out):
    """The script at its tiny size, begun or gone on with."""
    command = [sys.executable, SCRIPT, "--tiny", "--out", out]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(one):
    said = one.communicate(timeout=600)
    assert "Traceback" not in said[1], said[1]
    return one.returncode


def killed_when(out, condition):
    """Whether it was there to be killed when something was so."""
    one, begun = process(out), time.monotonic()
    while not condition() and one.poll() is None:
        assert time.monotonic() - begun < 600
        time.sleep(0.01)
    one.send_signal(signal.SIGKILL)
    return end(one) == -signal.SIGKILL


def kept(out):
    """What it leaves, but for times: the records byte for byte, tables, and choices."""
    names = ("metrics.jsonl", "table.txt", "pilots.txt")
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.name in names}


@pytest.mark.slow
def test_killing_it_changes_nothing(tmp_path):
    """In a pilot, in a whole run after a checkpoint, between two runs, and before anything is computed."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert end(process(whole)) == 0
    pilot, run = out / "pilot/0.9/sparse_proxskip/1", out / "whole/0.9/sparse_proxskip/1"
    steps = lambda: [p for p in (run / "checkpoints").glob("*") if p.name.isdigit()]  # noqa: E731
    times = (lambda: pilot.is_dir(), steps, (out / "pilot/dense/proxskip/0.1").is_dir)
    assert all(killed_when(out, condition) for condition in times)
    assert end(process(out)) == 0
    assert kept(out) == kept(whole) and len(kept(whole)) == 8
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*/*/metrics.jsonl")}
    assert end(process(out)) == 0 and all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_all_methods_come_at_the_first_sparsity_and_dense_ones_there_alone(script):
    cases = script.cases(script.FULL)
    assert cases[:4] == [(name, 0.9) for name in script.METHODS[:4]]
    assert [level for _, level in cases] == sorted(level for _, level in cases)
    assert {name for name, level in cases if level == 0.9} - {name for name, level in cases if level == 0.99} == {
        "proxskip",
        "fedavg",
    }


def test_thirty_epochs_are_a_million_and_a_half_images(script):
    words = script.FULL.problem.split()
    clients, batch, steps = (
        int(words[words.index(f"--{name}") + 1]) for name in ("clients", "batch-size", "local-steps")
    )
    a_round = clients * batch * steps
    assert script.FULL.whole * a_round == 30 * 50_000
    assert script.FULL.evaluate_every * a_round == 50_000
    assert script.FULL.whole % script.FULL.checkpoint_every == script.FULL.pilot % script.FULL.checkpoint_every == 0


def scored(monkeypatch, script, scores):
    monkeypatch.setattr(script, "pilots", lambda *case: scores)
    return list(script.runs(script.TINY, Path("out"), "proxskip", 0.9))


def test_the_whole_run_has_the_step_size_of_the_best_pilot_that_did_not_diverge(script, monkeypatch):
    *pilots, whole = scored(monkeypatch, script, {0.1: 0.4, 1.0: float("nan")})
    assert [str(run.folder) for run in pilots] == ["out/pilot/dense/proxskip/0.1", "out/pilot/dense/proxskip/1"]
    assert str(whole.folder) == "out/whole/dense/proxskip/0.1"
    assert all("--validation" in run.options for run in pilots) and "--validation" not in whole.options
    assert len(scored(monkeypatch, script, {0.1: float("nan"), 1.0: float("nan")})) == 2


def test_it_goes_on_with_what_has_a_config_and_begins_the_rest_anew(script, tmp_path):
    run = next(script.runs(script.TINY, tmp_path, "proxskip", 0.9))
    assert script.arguments(run, [])[0] == "run"
    run.folder.mkdir(parents=True)
    (run.folder / ".config.json.partial").touch()
    assert script.arguments(run, ["--data-dir", "d"])[-4:] == ["--data-dir", "d", "--out", str(run.folder)]
    assert not run.folder.exists()
    run.folder.mkdir()
    (run.folder / "config.json").write_text("{}")
    assert script.arguments(run, []) == ["resume", str(run.folder)]


def test_a_folder_is_for_one_plan_and_one_process(script, tmp_path):
    def enter(plan):
        with script.alone(plan, tmp_path):
            pass

    with script.alone(script.TINY, tmp_path), pytest.raises(ValueError, match="another process is at work"):
        enter(script.TINY)
    enter(replace(script.TINY, methods=("gd",), stepsizes=(0.5,)))
    with pytest.raises(ValueError, match=r"was begun with .*; give another --out"):
        enter(replace(script.TINY, whole=5))
