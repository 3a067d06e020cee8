"""``benchmarks/accelerator.py``: its whole, shrunken, on a CPU and in real processes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARTS = ("jobs", "masks", "sweeps", "images", "cifar", "many", "agreement", "rates")


def call(*options):
    """The command on a CPU."""
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), *map(str, options)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


def numbers(record):
    """Every number of a record, those in lists too."""
    for value in record.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                yield one


@pytest.mark.slow
def test_every_part_leaves_finite_figures_once(tmp_path):
    """Ten minutes of a card in the small: records, a table, losses that agree; and a second call has nothing to do."""
    out = tmp_path / "results"
    done = call("--small", "--out", out, "--minutes", 14)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in out.glob("*.jsonl")}
    assert sorted(found) == sorted(PARTS)
    for records in found.values():
        assert records and all(math.isfinite(number) for one in records for number in numbers(one))
        assert not [one for one in records if "failed" in one or one.get("holds") is False]
        for name in ("commit", "versions", "card", "command"):
            assert all(one[name] for one in records), name
    measured = [one for records in found.values() for one in records if "seconds" in one]
    assert measured and all(len(one["seconds"]) >= 2 and min(one["seconds"]) > 0 for one in measured)
    gaps = [one["loss_gap"] for one in found["jobs"] if one.get("rounds") == 1]
    assert len(gaps) >= 8 and max(gaps) <= 1e-4
    assert {one["system"] for one in found["jobs"]} == {"sps_jax", "jax_vmap", "torch_loop", "torch_vmap"}
    assert {one["way"] for one in found["many"]} == {"stream", "chunks", "all on the device"}
    text = (out / "table.md").read_text()
    assert all(f"## {part}\n" in text for part in PARTS)

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = call("--small", "--out", out)
    assert (again.returncode, again.stderr) == (0, "")
    assert [line.partition(":")[0] for line in again.stdout.splitlines()] == list(PARTS)
    assert all(line.endswith("nothing to do") for line in again.stdout.splitlines())
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    mixed = call("--out", out)
    assert mixed.returncode == 2


def test_it_refuses_a_cpu_in_one_sentence(tmp_path):
    """And a shrunken run without a folder of its own; neither leaves anything among the results."""
    for options, words in (((), "no accelerator found"), (("--small",), "--small needs --out DIR")):
        done = call(*options)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"accelerator.py: error: {words}") and done.stderr.count("\n") == 1
    assert not (BENCHMARKS / "results" / "accelerator").exists()
