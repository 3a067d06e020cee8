"""Strict JAX for every test: no silent promotion of dtype or rank; ``x64`` for float64."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import hypothesis
import jax
import pytest

# Most of the tests' time is compilation, of programs that run for milliseconds: without optimization, and with XLA's
# older, plainer code for fusions, it takes half as long (JAX 0.11 no longer has that code). The processes that tests
# start inherit this; the main job, the benchmarks and users have XLA's defaults.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
QUICK += " --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("compiles", deadline=None)  # the first example pays for compilation
hypothesis.settings.load_profile("compiles")

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Compiled programs, after each file: Linux gives a process 65,530 memory mappings, one more and it crashes."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Float64 for the time of one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def shell(tmp_path):
    """``shell(command, *options)``: ``sps-jax`` as a process in ``tmp_path``; its status, output and errors."""

    def run(*arguments):
        command = [sys.executable, "-m", "sps_jax", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``command(*options)``: the same within this process, which costs no start; JAX's settings stay as they are."""
    from sps_jax.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)

    def run(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing is strict, as for users
            try:
                status = main.command(list(map(str, arguments)))
            except SystemExit as end:
                status = end.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of checked copies of public data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no data folder {SHARED_DATA}")
    return SHARED_DATA
