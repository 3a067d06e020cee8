"""Checkpoints: a run that is cut off, by any means, and gone on with is the run that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest

from sps_jax.runs import checkpoint, journal

ROUNDS, EVERY = 400, 40
SMALL = ["--rounds", ROUNDS, "--clients", "4", "--algorithm", "sparse_proxskip", "gd", "--seeds", "2"]
SMALL += ["--evaluate-every", "3", "--checkpoint-every", EVERY]
TIMES = {"run_seconds", "compile_seconds", "client_steps_per_second"}


class Process:
    """``sps-jax`` in ``folder``, begun and not waited for."""

    def __init__(self, folder, *arguments):
        command = [sys.executable, "-m", "sps_jax", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=folder, text=True, **pipes)
        self.begun = time.monotonic()

    def when(self, condition):
        """Wait until something is so; False where the process ended before."""
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() - self.begun < 300
            time.sleep(0.01)
        return True

    def send(self, number):
        self.process.send_signal(number)

    def end(self):
        """Status, and what it said on standard output and standard error."""
        out, error = self.process.communicate(timeout=300)
        assert "Traceback" not in error, error
        return self.process.returncode, out, error


def size(out):
    path = out / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def steps(out):
    return sorted(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())


def results_of(out):
    """The bytes of the records, and the summaries without times."""
    summaries = json.loads((out / "summary.json").read_text())
    return (out / "metrics.jsonl").read_bytes(), [{k: v for k, v in s.items() if k not in TIMES} for s in summaries]


def edit(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


class Finished(NamedTuple):
    folder: object
    table: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not cut off."""
    out = tmp_path_factory.mktemp("whole") / "out"
    status, table, error = Process(out.parent, "run", *SMALL, "--out", out).end()
    assert status == 0, error
    assert len(results_of(out)[1]) == 4 and (out / "curves.png").is_file()
    assert 1 <= len(steps(out)) <= 3
    return Finished(out, table.replace(str(out), "OUT"))


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A folder whose first run was stopped; not to be changed."""
    out = tmp_path_factory.mktemp("cut") / "out"
    process = Process(out.parent, "run", *SMALL, "--out", out)
    assert process.when(lambda: out.is_dir() and (out / "checkpoints").is_dir() and len(steps(out)) >= 3)
    process.send(signal.SIGTERM)
    status, _, error = process.end()
    assert status == 143 and f"sps-jax resume {out}" in error
    assert not (out / "summary.json").exists() and steps(out)[-1] < ROUNDS
    return out


@pytest.fixture
def copy(cut, tmp_path):
    return shutil.copytree(cut, tmp_path / "out")


def finish(out, whole):
    """Go on to the end; it is as if it had not been cut off. What was said on standard error."""
    status, table, error = Process(out.parent, "resume", out).end()
    assert status == 0, error
    assert results_of(out) == results_of(whole.folder)
    assert table.replace(str(out), "OUT") == whole.table and (out / "curves.png").is_file()
    return error


def kill(out, delay):
    """Begin or go on, and kill it; whether it was there to be killed.

    Args:
      delay: seconds from when the process begins to write; before that, where they are negative.
    """
    if not (out / "config.json").is_file():  # killed so early that there is nothing to go on with
        shutil.rmtree(out, ignore_errors=True)
        process = Process(out.parent, "run", *SMALL, "--out", out)
    else:
        process = Process(out.parent, "resume", out)
    before = size(out)
    if delay < 0:
        time.sleep(-delay)
    elif process.when(lambda: size(out) not in (0, before)):
        time.sleep(delay)
    process.send(signal.SIGKILL)
    return process.end()[0] == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_end(whole, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        assert kill(out, random.uniform(0, 0.3))
    assert "resumes" in finish(out, whole)


@pytest.mark.endurance
def test_a_run_that_is_killed_twenty_times_goes_on_to_the_same_end(whole, tmp_path):
    kills = 0
    while kills < 20:
        out = tmp_path / f"out{kills}"
        while kills < 20 and kill(out, random.uniform(-6, 3)):
            kills += 1
        if (out / "config.json").is_file():
            finish(out, whole)


def being_written(out):
    folder = out / "checkpoints"
    return [path for path in folder.iterdir() if "orbax-checkpoint-tmp" in path.name] if folder.is_dir() else []


@pytest.mark.endurance
def test_a_run_that_is_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_end(whole, tmp_path):
    kills, torn, out = 0, 0, tmp_path / "out"
    while torn < 5 and kills < 40:
        begun = (out / "config.json").is_file()
        process = Process(tmp_path, *(["resume", out] if begun else ["run", *SMALL, "--out", out]))
        before = set(being_written(out))
        if not process.when(lambda before=before: set(being_written(out)) - before):
            finish(out, whole)
            shutil.rmtree(out)
            continue
        process.send(signal.SIGKILL)
        assert process.end()[0] == -signal.SIGKILL
        kills, torn = kills + 1, torn + bool(set(being_written(out)) - before)
    assert torn == 5
    finish(out, whole)
    assert not being_written(out)


@pytest.mark.slow
def test_ctrl_c_stops_after_the_round_and_a_second_one_at_once(whole, copy):
    begun = copy / "checkpoints" / "begun.json"
    edit(begun, lambda c: c | {"versions": c["versions"] | {"optax": "0.0.1"}})
    for times in (1, 2):
        process, before = Process(copy.parent, "resume", copy), size(copy)
        assert process.when(lambda before=before: size(copy) not in (0, before))
        for _ in range(times):
            process.send(signal.SIGINT)
            time.sleep(0.02)
        status, _, error = process.end()
        assert status == 130, error
        assert "begun with optax 0.0.1" in error
        assert "Ctrl-C again stops at once" in error and f"sps-jax resume {copy}" in error
        assert "all is saved" in error or times == 2
    finish(copy, whole)


def truncate(step):
    for path in step.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["two", "all"])
def test_checkpoints_that_cannot_be_used_are_set_aside_for_the_one_before(how, copy, whole):
    good, older, newest = steps(copy)
    folder = copy / "checkpoints"
    replace_newest(copy, {})
    for step in [older] if how == "two" else [older, good]:
        truncate(folder / str(step))
    error = finish(copy, whole)
    for step in (newest, older):
        assert f"checkpoint {folder / str(step)} cannot be used" in error
        assert (folder / f"unreadable-{step}").is_dir()
    where = "from its beginning" if how == "all" else f"after round {good} of {ROUNDS}"
    assert f"sparse_proxskip (seed 0) resumes {where}" in error


@pytest.mark.slow
def test_what_is_finished_is_said_to_be_and_table_and_picture_are_made_anew(whole, tmp_path):
    out = shutil.copytree(whole.folder, tmp_path / "out")
    for name in ("summary.json", "curves.png"):
        (out / name).unlink()
    assert "all 4 runs" in finish(out, whole)


def replace_newest(out, about):
    folder, newest = out / "checkpoints", steps(out)[-1]
    shutil.rmtree(folder / str(newest))
    checkpoint.save(folder, newest, {"foreign": np.ones(3)}, about)


REFUSED = {
    "setting": (
        lambda out: edit(out / "config.json", lambda c: c | {"settings": c["settings"] | {"sparsity": 0.5}}),
        "sparsity was 0.9, now 0.5",
    ),
    "format": (
        lambda out: edit(out / "checkpoints" / "begun.json", lambda c: c | {"format": 7}),
        "has format 7 (of sps_jax 0.",
    ),
    "another version's checkpoint": (
        lambda out: replace_newest(out, {"format": 7, "versions": {"sps_jax": "9.1"}}),
        "has format 7 (of sps_jax 9.1); this version reads only 2",
    ),
    "no config": (lambda out: (out / "config.json").unlink(), "is not the folder of a run"),
    "torn config": (lambda out: os.truncate(out / "config.json", 40), "config.json is damaged"),
    "no checkpoints": (lambda out: shutil.rmtree(out / "checkpoints"), "has no checkpoints"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name_and_left_as_it_is(case, copy, command):
    change, message = REFUSED[case]
    change(copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    done = command("resume", copy)
    assert done.returncode == 2 and message in done.stderr
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_folder_is_for_one_process_at_a_time(copy):
    with journal.locked(copy):
        status, _, error = Process(copy.parent, "resume", copy).end()
    assert status == 2 and f"another process is at work in {copy}" in error


@pytest.mark.slow
def test_a_full_disk_is_said_and_what_was_saved_is_gone_on_with(whole, tmp_path):
    disk, out = tmp_path / "disk", tmp_path / "disk" / "out"
    disk.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(small, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        status, _, error = Process(tmp_path, "run", *SMALL, "--out", out).end()
        assert status == 1, error
        assert "No space left on device" in error and f"sps-jax resume {out}" in error
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        finish(out, whole)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
