"""An environment that is not as it should be: every command works, or says in one sentence what is wrong."""

import os
import subprocess
import sys

import pytest

import sps_jax as sps

RUN = ("run", "--problem", "quadratic", "--clients", "4", "--rounds", "1", "--algorithm", "gd")
COMMANDS = {
    "version": ("--version",),
    "list": ("list",),
    "doctor": ("doctor",),
    "run": RUN,
    "table": ("table", "made"),
    "help": ("run", "--help"),
}
UNHEARD = {"import": set(COMMANDS), "devices": {"doctor", "run"}, "nothing": set(), "divergence": {"run"}}
ENVIRONMENTS = {  # name -> variables, None for unset, and what cannot work in it: the commands of UNHEARD
    "backend": ({"MPLBACKEND": "nonsense"}, "nothing"),
    "no cuda": ({"JAX_PLATFORMS": "cuda"}, "devices"),
    "no platform": ({"JAX_PLATFORMS": "nonsense"}, "devices"),
    "x64": ({"JAX_ENABLE_X64": "nonsense"}, "import"),
    "generator": ({"JAX_DEFAULT_PRNG_IMPL": "nonsense"}, "import"),
    "nans": ({"JAX_DEBUG_NANS": "1"}, "divergence"),
    "ranks": ({"JAX_NUMPY_RANK_PROMOTION": "raise"}, "nothing"),
    "dtypes": ({"JAX_NUMPY_DTYPE_PROMOTION": "strict"}, "nothing"),
    "cache": ({"JAX_COMPILATION_CACHE_DIR": "/proc/nowhere"}, "nothing"),
    "home": ({"HOME": None, "XDG_CACHE_HOME": None}, "nothing"),
    "no home": ({"HOME": "/proc/nowhere", "XDG_CACHE_HOME": None}, "nothing"),
    "temporary": ({"TMPDIR": "/proc/nowhere"}, "nothing"),
    "warnings": ({"PYTHONWARNINGS": "error"}, "nothing"),
    "ascii": ({"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, "nothing"),
    "narrow": ({"COLUMNS": "10"}, "nothing"),
}


def process(folder, arguments, variables=None, end=""):
    """``sps-jax`` started in ``folder`` by a shell, which may send its output elsewhere by ``end``."""
    own = {**os.environ, **(variables or {})}
    line = f'"$@" {end}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", sys.executable, "-m", "sps_jax", *arguments],
        cwd=folder,
        env={name: value for name, value in own.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the results ``made`` of a run, in a good environment."""
    folder = tmp_path_factory.mktemp("environment")
    assert process(folder, [*RUN, "--out", "made"]).returncode == 0
    return folder


def judge(done, works, name=""):
    """Status 0, or another and one line that begins with ``sps-jax: `` and names the variable; never a traceback."""
    assert "Traceback" not in done.stdout + done.stderr and "Exception ignored" not in done.stderr
    if works:
        assert done.returncode == 0, done.stderr
        return
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(("sps-jax: error", "sps-jax: broken"))]
    assert done.returncode in (1, 2, 3) and name in line, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_strange_environment(name, command, request, tmp_path):
    """JAX refuses some values when it is imported and others when it looks for devices; the rest must work.

    Of a method that converges JAX_DEBUG_NANS finds nothing wrong, see below for one that diverges.
    """
    folder = request.getfixturevalue("made") if command == "table" else tmp_path
    variables, kind = ENVIRONMENTS[name]
    works = command not in UNHEARD[kind] or kind == "divergence"
    judge(process(folder, COMMANDS[command], variables), works, next(iter(variables)))


@pytest.mark.slow
def test_doctor_says_all_else_where_there_is_no_device(tmp_path):
    done = process(tmp_path, ["doctor"], {"JAX_PLATFORMS": "cuda"})
    judge(done, False, "JAX_PLATFORMS=cuda")
    assert done.returncode == 1 and "\ndevices     none\n" in done.stdout and "\ndata  " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", ["doctor", "run"])
def test_a_flag_that_xla_does_not_know(command, tmp_path):
    """XLA ends the process itself, with status 1, having said why; doctor looks in another process."""
    done = process(tmp_path, COMMANDS[command], {"XLA_FLAGS": "--xla_nonsense=1"})
    assert "Traceback" not in done.stderr and "XLA_FLAGS" in done.stderr
    if command == "doctor":
        judge(done, False, "XLA_FLAGS")
        assert "\ndata  " in done.stdout


@pytest.mark.slow
def test_a_divergence_that_jax_is_asked_to_stop_at(tmp_path):
    """Steps of 1e30 overflow in float32; the user wants the first nan to be an error."""
    done = process(tmp_path, [*RUN, "--rounds", "9", "--stepsize", "1e30"], {"JAX_DEBUG_NANS": "1"})
    judge(done, False, "JAX_DEBUG_NANS")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["| true", "| head -1", "2>&1 >/dev/null | true", ">&-", "2>&-", "<&-"])
@pytest.mark.parametrize("command", ["run", "help"])
def test_a_reader_that_goes_away(command, end, tmp_path):
    """It loses what it does not read, and nobody else loses anything: the run is finished, its results are there."""
    done = process(tmp_path, [*COMMANDS[command], *(["--out", "here"] if command == "run" else [])], end=end)
    assert done.returncode == 0 and "Broken" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert command == "help" or (tmp_path / "here" / "summary.json").is_file()


@pytest.mark.slow
def test_a_run_with_checkpoints_goes_on_without_readers(tmp_path):
    done = process(tmp_path, [*RUN, "--checkpoint-every", "1", "--out", "here"], end="2>&1 | true")
    assert done.returncode == 0 and done.stderr == "" and (tmp_path / "here" / "summary.json").is_file()


@pytest.mark.parametrize("command", ["version", *(pytest.param(c, marks=pytest.mark.slow) for c in ("run", "help"))])
def test_an_output_that_is_full(command, tmp_path):
    """/dev/full: writing fails with ENOSPC. The results of a run are files and are there."""
    done = process(tmp_path, [*COMMANDS[command], *(["--out", "here"] if command == "run" else [])], end=">/dev/full")
    judge(done, False, "standard output cannot be written: No space left on device")
    assert done.returncode == 1 and (command != "run" or (tmp_path / "here" / "curves.png").is_file())


def test_names_that_the_package_shows():
    """What is public and nothing that it happens to import; each can be had."""
    modules = {"bits", "checkpoint", "clock", "compression", "partition", "plots", "problems", "results", "tables"}
    assert {name for name in dir(sps) if not name.startswith("__")} == modules | set(sps.__all__)
    assert all(hasattr(sps, name) for name in dir(sps)) and callable(sps.checkpoint.save)
