"""``benchmarks/accelerator.py``: its whole, shrunken, on a CPU and in real processes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARTS = ("jobs", "masks", "sweeps", "agreement", "images", "rates", "cifar", "many")


def call(*options, platform="cpu"):
    """The command where JAX may use one platform."""
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), *map(str, options)]
    environment = os.environ | {"JAX_PLATFORMS": platform}
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

    one = call("--small", "--out", out, "--only", "masks", "--again")
    assert (one.returncode, one.stdout.splitlines()[0].startswith("masks: 9 records")) == (0, True)
    changed = {path.name for path in out.iterdir() if path.stat().st_mtime_ns != before[path]}
    assert changed == {"masks.jsonl", "table.md"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "platform, options, words",
    [
        ("cpu", (), "no accelerator found: JAX has only a CPU here"),
        ("nonesuch", (), "no accelerator found: "),
        ("cpu", ("--small",), "--small needs --out DIR"),
        ("cpu", ("--minutes", "0"), "--minutes must be positive, not 0"),
    ],
)
def test_it_refuses_in_one_sentence(platform, options, words):
    """And leaves nothing among the results."""
    before = {path.name for path in (BENCHMARKS / "results").iterdir()}
    done = call(*options, platform=platform)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"accelerator.py: error: {words}") and done.stderr.count("\n") == 1
    assert {path.name for path in (BENCHMARKS / "results").iterdir()} == before


@pytest.mark.slow
def test_shrunken_results_are_not_mixed_with_others(tmp_path):
    """A folder holds one kind; nothing is written beside the other."""
    (tmp_path / "masks.jsonl").write_text(json.dumps({"small": False}) + "\n")
    done = call("--small", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds results without --small" in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["masks.jsonl"]
