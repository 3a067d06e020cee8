"""``sps-jax`` on several processes: the records of one, files of the first, and none waits for one that has gone."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest

from sps_jax.runs import processes

COMMON = ["--precision", "float64", "--clients", "8", "--algorithm", "sparse_proxskip", "gd", "--evaluate-every", "5"]
LONG = [*COMMON, "--rounds", "1200", "--checkpoint-every", "30"]


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


class Processes:
    """``sps-jax`` in ``folder`` by ``count`` processes, the ``last`` with more options, begun and not waited for."""

    def __init__(self, folder, count, *arguments, last=()):
        port, self.all = free_port(), []
        for own in range(count):
            command = [sys.executable, "-m", "sps_jax", *map(str, arguments)]
            if count > 1:
                command += ["--coordinator", f"localhost:{port}", "--num-processes", count, "--process-id", own]
                command += last if own == count - 1 else []
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            self.all.append(subprocess.Popen(list(map(str, command)), cwd=folder, **pipes))

    def wait_for(self, condition):
        """Wait until something is so, which it must be before they end."""
        begun = time.monotonic()
        while not condition():
            assert all(process.poll() is None for process in self.all), self.end()
            assert time.monotonic() - begun < 300
            time.sleep(0.05)

    def end(self):
        """Of each: status, standard output, standard error."""
        said = [process.communicate(timeout=300) for process in self.all]
        assert not any("Traceback" in error for _, error in said), said
        return [(process.returncode, *each) for process, each in zip(self.all, said, strict=True)]


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def agree(one, other):
    one, other = records(one), records(other)
    assert len(one) == len(other) > 0
    for row, like in zip(one, other, strict=True):
        assert row.keys() == like.keys()
        for name, value in row.items():
            if isinstance(value, float):
                np.testing.assert_allclose(value, like[name], rtol=1e-10, atol=1e-10, err_msg=name)
            else:
                assert value == like[name], name


def steps(out):
    folder = out / "checkpoints"
    return [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []


@pytest.mark.slow
def test_two_processes_leave_the_records_of_one_and_only_the_first_says_and_writes(tmp_path):
    run = ["run", *COMMON, "--rounds", "20"]
    ((status, _, error),) = Processes(tmp_path, 1, *run, "--devices", "1", "--out", "one").end()
    assert status == 0, error
    ended = Processes(tmp_path, 2, *run, "--devices", "2", "--out", "two").end()
    assert [status for status, _, _ in ended] == [0, 0], ended
    agree(tmp_path / "one", tmp_path / "two")
    assert "4 devices" in ended[0][2] and "sparse_proxskip" not in ended[1][1] + ended[1][2]
    assert "sparse_proxskip  0 " in ended[0][1]
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == files
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


WRONG = {
    "folder": (["--out", "full", "--clients", "8"], "output folder full is not empty"),
    "clients": (["--out", "new", "--clients", "7"], "devices must divide the 7 clients"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_begin_ends_all_with_a_message(case, tmp_path):
    arguments, message = WRONG[case]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (status, _, error), (other, _, theirs) = Processes(tmp_path, 2, "run", "--devices", "1", *arguments).end()
    assert (status, other) == (2, 2), (error, theirs)
    assert message in error and (message if case == "clients" else "process 0 of this run failed") in theirs
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "file"}


@pytest.mark.slow
def test_processes_that_are_not_started_alike_are_told_in_what(tmp_path):
    run = ["run", "--devices", "1", "--clients", "8", "--sparsity", "0.5", "--out", "new"]
    ended = Processes(tmp_path, 2, *run, last=["--prob", "0.2"]).end()
    assert [status for status, _, _ in ended] == [2, 2], ended
    for (_, _, error), own in zip(ended, ("None", "0.2"), strict=True):
        assert f"need the same options, but these differ; here: prob {own}\n" in error
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A long run of one process that was not cut off."""
    out = tmp_path_factory.mktemp("whole") / "out"
    ((status, _, error),) = Processes(out.parent, 1, "run", *LONG, "--devices", "1", "--out", out).end()
    assert status == 0, error
    return out


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(whole, tmp_path):
    out = tmp_path / "out"
    begun = Processes(tmp_path, 1, "run", *LONG, "--devices", "2", "--out", out)
    begun.wait_for(lambda: steps(out))
    begun.all[0].kill()
    begun.end()
    ((status, _, error),) = Processes(tmp_path, 1, "resume", out, "--devices", "1").end()
    assert status == 0, error
    assert "resumes after round" in error and "2 devices" in error
    agree(whole, out)


@pytest.mark.slow
def test_a_run_whose_process_is_killed_ends_and_goes_on_with_other_processes(whole, tmp_path):
    out = tmp_path / "out"
    begun = Processes(tmp_path, 2, "run", *LONG, "--devices", "1", "--out", out)
    begun.wait_for(lambda: steps(out))
    begun.all[1].kill()
    killed = time.monotonic()
    (status, _, error), _ = begun.end()
    assert time.monotonic() - killed < 60
    assert status == 4 and "another process of this run has ended" in error, error

    again = Processes(tmp_path, 2, "resume", out, "--devices", "2")
    before = max(map(int, (path.name for path in steps(out))))
    again.wait_for(lambda: max((int(path.name) for path in steps(out)), default=0) > before)
    again.all[1].terminate()  # one is asked to stop: all do
    ended = again.end()
    assert [status for status, _, _ in ended] == [143, 143], ended
    assert "resumes after round" in ended[0][2] and "all is saved" in ended[0][2]

    ((status, _, error),) = Processes(tmp_path, 1, "resume", out, "--devices", "1").end()
    assert status == 0, error
    assert "resumes after round" in error
    agree(whole, out)


MEET = """
import sys, time
from sps_jax.runs import processes
processes.join("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
print("met", flush=True)
time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_before_anything_is_computed_ends_the_other_with_a_message(victim):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    port = str(free_port())
    both = [subprocess.Popen([sys.executable, "-c", MEET, port, str(own)], **pipes) for own in range(2)]
    assert [process.stdout.readline() for process in both] == ["met\n"] * 2
    both[victim].kill()
    killed = time.monotonic()
    _, error = both[1 - victim].communicate(timeout=90)
    assert both[1 - victim].returncode == 4 and time.monotonic() - killed < 60
    assert error.splitlines()[-1].startswith("sps-jax: error: another process of this run has ended")
    both[victim].communicate()


def launched(own, job):
    """What ``srun`` and ``mpirun`` tell one of two tasks on a node, by the names that JAX reads."""
    return {
        "slurm": {
            "SLURM_JOB_ID": job,
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": 2,
            "SLURM_PROCID": own,
            "SLURM_LOCALID": own,
        },
        "mpirun": {
            "OMPI_MCA_orte_hnp_uri": f"{job * 4096}.0;tcp://127.0.0.1:1",
            "OMPI_COMM_WORLD_SIZE": 2,
            "OMPI_COMM_WORLD_RANK": own,
            "OMPI_COMM_WORLD_LOCAL_RANK": own,
        },
    }


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", "mpirun"])
def test_a_launcher_says_who_the_processes_are(launcher, tmp_path):
    """``--coordinator auto``: two processes by nothing but the launcher's environment, and resumed by it when done."""
    run = ["run", *COMMON, "--rounds", "4", "--checkpoint-every", "2", "--out", "two", "--devices", "2"]
    for arguments, job in ((run, free_port() % 4000), (["resume", "two"], free_port() % 4000)):
        started = []
        for own in range(2):
            environment = {name: str(value) for name, value in launched(own, job)[launcher].items()}
            command = [sys.executable, "-m", "sps_jax", *arguments, "--coordinator", "auto"]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, cwd=tmp_path, env=os.environ | environment, **pipes))
        ended = [process.communicate(timeout=300) for process in started]
        assert [process.returncode for process in started] == [0, 0], ended
        assert "sparse_proxskip  0 " in ended[0][0] and "sparse_proxskip" not in ended[1][0]
    assert json.loads((tmp_path / "two" / "summary.json").read_text())[0]["devices"] == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None or find_spec("mpi4py") is None, reason="no Open MPI with mpi4py")
def test_open_mpi_starts_two_processes(tmp_path):
    """By ``mpirun`` itself: one run, on the devices of both, which only the first tells."""
    run = ["run", *COMMON, "--rounds", "2", "--out", "two", "--devices", "2", "--coordinator", "auto"]
    launch = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-m", "sps_jax", *run]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("sparse_proxskip  0 ") == 1, done.stderr
    assert json.loads((tmp_path / "two" / "summary.json").read_text())[0]["devices"] == 4


def test_open_mpi_5_does_not_say_where_the_first_process_is(monkeypatch):
    """It sets the rank and no address, which Open MPI 4 sets too; without mpi4py the processes cannot tell it."""
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    assert processes._launcher() is None
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"needs mpi4py under Open MPI 5: pip install 'sps_jax\[mpi\]'"):
        processes._launcher()
    monkeypatch.setattr(processes, "find_spec", lambda name: name)
    assert processes._launcher() == "mpi4py"
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "4096.0;tcp://127.0.0.1:1")
    assert processes._launcher() is None


@pytest.mark.slow
def test_without_a_launcher_auto_says_so(tmp_path, shell):
    for more, says in (
        ([], "--coordinator auto found no other processes: start them by Slurm"),
        (["--process-id", "0"], "leave out --num-processes, --process-id"),
    ):
        done = shell("run", *COMMON, "--coordinator", "auto", *more)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
