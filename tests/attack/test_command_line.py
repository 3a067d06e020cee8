"""Random command lines: each works, or ends with one message and status 2 and leaves nothing."""

import multiprocessing
import os
import warnings
from pathlib import Path

import fuzzing
import jax
import pytest

from sps_jax.cli.main import command


@pytest.fixture
def alone(monkeypatch):
    """JAX's settings, and where they are, stay as the tests have them; nothing is strict, as for users."""
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


LATE = {"run": ["--chunk", "0"], "sweep": ["--points-chunk", "0"]}


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_that_is_refused(seed, tmp_path, alone):
    """Each has something wrong, if nothing else a name, seen at once, or a chunk, seen when all is loaded."""
    line = fuzzing.case(seed, fuzzing.tables(), wrong=1.0 if seed % 2 else 0.5)
    line += ["--scope", "globe"] if seed % 2 else LATE[line[0]]
    assert not fuzzing.obey(line, tmp_path / "here", status=2)


ABSURD = {
    "run --problem quadratic --dimension 1000000000000000": "this needs more memory than is available",
    "run --problem synthetic_logistic --clients 1000000000000000": "this needs more memory than is available",
    "run --seed 4294967296": "a seed must be from 0 to 2**32 - 1",
    "run --seeds 99999999999": "a seed must be from 0 to 2**32 - 1",
    "run --rounds 99999999999": "exceed the limit of 2**31",
    "run --target nan": "--target must be finite, not nan",
    "run --problem quadratic --algorithm gd --sparsity=-inf": "--sparsity must be finite, not -inf",
    "run --algorithm gd --prob inf": "--prob must be finite, not inf",
    "run --data-seed -1": "--data-seed must be at least 0, not -1",
    "run --prob 1e-9 --algorithm proxskip --rounds 1": "prob must be in (0, 1], but 1e-09 is 0 in float32",
    "sweep --seeds 0": "--seeds must be at least 1, not 0",
    "sweep --seeds 1000001": "at most 1,000,000 points per algorithm, not 1,000,001",
    "sweep --stepsize linspace:0.1:1:0": "--stepsize must be numbers or",
    "sweep --stepsize linspace:0.1:1:99999999999": "--stepsize must be numbers or",
    "sweep --stepsize logspace:nan:1:2": "--stepsize must be numbers or",
}


@pytest.mark.parametrize("line", ABSURD)
def test_absurd_numbers_are_refused_in_words(line, tmp_path, alone, capsys):
    assert command([*line.split(), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert ABSURD[line] in said and said.count("sps-jax: error:") == 1
    assert not (tmp_path / "out").exists()


def begin(cache: str, folder: str) -> None:
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": cache, "TFDS_DATA_DIR": str(Path(folder) / "data")}
    os.environ |= {"XDG_CACHE_HOME": str(Path(folder) / "cache")}
    fuzzing.alone()
    begin.folder, begin.table = Path(folder), fuzzing.tables()


def one(seed: int) -> str:
    if seed % 100 == 0:
        jax.clear_caches()
    return fuzzing.obey(fuzzing.case(seed, begin.table, wrong=0.6), begin.folder / str(seed))


@pytest.mark.slow
def test_a_thousand_command_lines(tmp_path):
    cases = int(os.environ.get("SPS_JAX_FUZZ", 1000))
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2, begin, (str(tmp_path / "cache"), str(tmp_path))) as pool:
        work = pool.imap(one, range(cases))
        wrong = [found for found in (work.next(timeout=120) for _ in range(cases)) if found]
    assert not wrong, f"{len(wrong)} of {cases}:\n" + "\n\n".join(wrong[:20])
