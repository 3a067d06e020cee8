"""Random command lines: each works, or ends with one message and status 2 and leaves nothing."""

import multiprocessing
import os
from pathlib import Path

import fuzzing
import jax
import pytest


@pytest.fixture
def no_settings(monkeypatch):
    """JAX's settings, and where they are, stay as the tests have them."""
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_that_is_refused(seed, tmp_path, no_settings):
    table = fuzzing.tables()
    line = fuzzing.case(seed, table, wrong=1.0)
    assert not fuzzing.obey([*line, "--scope", "globe"], tmp_path / "here")


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
