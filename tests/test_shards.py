"""Sweeps in parts: shards of an array job, jobs of submitit, and generations that optuna proposes."""

import json
from importlib.util import find_spec

import pytest

from sps_jax.results.files import read_jsonl
from sps_jax.simulation.simulate import run_points

SMALL = ("--problem", "quadratic", "--clients", 2, "--rounds", 2, "--quiet")
SWEEP = ("sweep", *SMALL, "--algorithm", "gd", "fedavg", "--stepsize", "0.1", "0.2", "--prob", 0.5, "--seeds", 2)


def by_point(*paths):
    rows = [row for path in paths for row in read_jsonl(path)]
    return sorted(rows, key=lambda row: (row["point"], row.get("round")))


@pytest.mark.slow
def test_shards_are_the_sweep_in_parts_and_are_merged(command, tmp_path):
    """8 points in 3 shards: the records of the whole; a killed shard goes on; table and plot take the folder above."""
    assert command(*SWEEP, "--out", "whole").returncode == 0
    for shard in ("1/3", "2/3"):
        assert command(*SWEEP, "--out", "parts", "--shard", shard).returncode == 0
    said = command("table", "parts")
    assert said.returncode == 0 and "parts has records of 2 of 3 shards" in said.stderr
    assert command(*SWEEP, "--out", "parts", "--shard", "3/3").returncode == 0
    folders = [tmp_path / "parts" / f"shard-{i}-of-3" for i in (1, 2, 3)]
    assert [len(read_jsonl(folder / "summary.jsonl")) for folder in folders] == [3, 3, 2]
    whole = by_point(tmp_path / "whole" / "metrics.jsonl")
    assert by_point(*(folder / "metrics.jsonl" for folder in folders)) == whole

    torn = (folders[1] / "summary.jsonl").read_text().splitlines(keepends=True)
    (folders[1] / "summary.jsonl").write_text("".join(torn[:1]) + torn[1][:9])
    assert command(*SWEEP, "--out", "parts", "--shard", "2/3").returncode == 0
    assert by_point(*(folder / "metrics.jsonl" for folder in folders)) == whole
    merged, alone = (command("table", folder, "--json") for folder in ("parts", "whole"))
    assert merged.stderr == "" and json.loads(merged.stdout) == json.loads(alone.stdout)
    assert command("plot", "parts").returncode == 0 and (tmp_path / "parts" / "plot.png").is_file()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--shard", "0/3", "--out", "x"), "--shard must be i/N with i from 1 to N, such as 1/4, not '0/3'"),
        (("--shard", "two", "--out", "x"), "--shard must be i/N with i from 1 to N"),
        (("--shard", "1/3"), "--shard needs --out"),
        (("--submit", "slrum", "--jobs", 2, "--out", "x"), "unknown --submit 'slrum': did you mean 'slurm'?"),
        (("--submit", "local", "--out", "x"), "--submit needs --jobs"),
        (("--submit", "local", "--out", "x", "--jobs", 2, "--shard", "1/2"), "leave out --shard"),
        (("--search", "optune"), "unknown --search 'optune': did you mean 'optuna'?"),
    ],
)
def test_what_is_no_part_is_refused_in_a_sentence(more, says, command, tmp_path):
    done = command(*SWEEP, *more)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed: pip install 'sps_jax[submit]'")
def test_jobs_of_submitit_compute_the_shards(command, shell, tmp_path):
    """By its local executor, with an own method: the records of the whole sweep; what goes wrong is said."""
    (tmp_path / "mine.py").write_text(
        "import sps_jax as sps\n\n\ndef method(*, stepsize, pull=0.5):\n    return sps.gd(stepsize=stepsize)\n"
    )
    few = ("sweep", *SMALL, "--algorithm", "mine.py:method", "--stepsize", "0.1", "0.2", "--pull", "0.1", "0.3")
    assert command(*few, "--out", "whole").returncode == 0
    jobs = ("--submit", "local", "--jobs", 2, "--submit-with", "timeout_min=10")
    done = shell(*few, "--out", "parts", *jobs)
    assert done.returncode == 0, done.stderr
    folders = [tmp_path / "parts" / f"shard-{i}-of-2" for i in (1, 2)]
    assert by_point(*(folder / "metrics.jsonl" for folder in folders)) == by_point(tmp_path / "whole/metrics.jsonl")
    wrong = shell(*few, "--out", "wrong", *jobs[:4], "--submit-with", "slurm_partitoin=gpu")
    assert wrong.returncode == 2 and "slurm_partitoin" in wrong.stderr
    failing = shell(*few, "--out", "failing", *jobs, "--points-chunk", 0)
    assert failing.returncode == 2 and "shard 1/2: status 2" in failing.stderr


# --- searches ----------------------------------------------------------------------------------------------------

SEARCH = ("sweep", *SMALL, "--algorithm", "gd", "fedavg", "--prob", 0.5, "--seeds", 2, "--search", "optuna")
RANGES = ("--stepsize", "logspace:1e-3:1")


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="optuna is not installed: pip install 'sps_jax[search]'")


@pytest.mark.slow
def test_a_search_is_a_sweep_whose_points_are_proposed(optuna, command, tmp_path):
    """16 trials of two methods with 2 seeds are 64 points; a killed search goes on to the same ones, bit for bit.

    The seeds of a trial share its step size. Of step sizes up to 1/L = 1, gradient descent on a quadratic is best with
    the largest.
    """
    done = command(*SEARCH, *RANGES, "--trials", 16, "--out", "out")
    assert done.returncode == 0, done.stderr
    points = read_jsonl(tmp_path / "out" / "summary.jsonl")
    assert sorted(point["point"] for point in points) == list(range(64))
    sizes = {(p["point"] // 2, p["algorithm"]): p["stepsize"] for p in points}
    assert len(sizes) == 32 and all(1e-3 <= size <= 1 for size in sizes.values())
    gd = [size for (_, name), size in sorted(sizes.items()) if name == "gd"]
    assert len(set(gd)) == 16
    best = json.loads(command("table", "out", "--json").stdout)["rows"]
    assert best[0]["point"]["stepsize"] == max(gd)
    rows = [row for row in read_jsonl(tmp_path / "out" / "metrics.jsonl") if row["algorithm"] == "gd"]
    assert {row["uplink_bits"] / row["round"] for row in rows} == {2 * 20 * 32}  # of two clients, as is asked for

    before = {name: by_point(tmp_path / "out" / f"{name}.jsonl") for name in ("summary", "metrics")}
    lines = (tmp_path / "out" / "summary.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "summary.jsonl").write_text("".join(lines[:41]))
    assert command(*SEARCH, *RANGES, "--trials", 16, "--out", "out").returncode == 0
    assert before == {name: by_point(tmp_path / "out" / f"{name}.jsonl") for name in ("summary", "metrics")}


def test_generations_share_one_program(optuna, command, tmp_path):
    """Three generations of gd are one compiled program."""
    few = ("--search", "optuna", "--trials", 24, *RANGES, "--out", "out")
    before = run_points._cache_size()
    assert command("sweep", *SMALL, "--algorithm", "gd", *few, "--dimension", 7).returncode == 0
    assert run_points._cache_size() == before + 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (RANGES, "--search needs --trials"),
        ((*RANGES, "--trials", 0), "--search needs --trials"),
        (("--trials", 4, "--stepsize", "0.1"), "--search needs a range or a list to choose from"),
        (("--trials", 4, "--stepsize", "logspace:0:1"), "--stepsize must be one range, logspace:first:last, or values"),
        (("--trials", 4, "--stepsize", "logspace:1"), "--stepsize must be one range, logspace:first:last, or values"),
        (("--trials", 4, *RANGES, "--l1", "0.1"), "--l1 is not an option of the chosen problem and algorithms"),
        (("--trials", 4, *RANGES, "--shard", "1/2", "--out", "x"), "leave out --shard"),
        (("--trials", 4, *RANGES, "--clients", 2, 3), "compares points on the same data: give one value of --clients"),
    ],
)
def test_a_search_without_sense_is_refused_in_a_sentence(more, says, optuna, command, tmp_path):
    done = command(*SEARCH, *more)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
