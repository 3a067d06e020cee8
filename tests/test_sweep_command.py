"""``sps-jax sweep`` through real processes: what it leaves, how it goes on, what it refuses."""

import json
import subprocess
import sys

import pytest

SMALL = ["--algorithm", "sparse_proxskip", "gd", "--stepsize", "0.1", "0.5", "--sparsity", "0.5", "0.9"]
SMALL += ["--local-steps", "3", "--seeds", "2", "--clients", "4", "--rounds", "4", "--evaluate-every", "2"]
POINTS = 2 * 2 * 2 + 2 * 2  # gd has no sparsity


def sps_jax(*arguments, cwd):
    command = [sys.executable, "-m", "sps_jax", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_point_is_recorded_and_a_sweep_that_was_cut_off_goes_on(tmp_path):
    out = tmp_path / "out"
    done = sps_jax("sweep", *SMALL, "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{POINTS} points, of which 0 diverged" in done.stderr
    summaries, records = lines(out / "summary.jsonl"), lines(out / "metrics.jsonl")
    assert sorted(s["point"] for s in summaries) == list(range(POINTS))
    assert len({(s["algorithm"], s["stepsize"], s.get("sparsity"), s["seed"]) for s in summaries}) == POINTS
    assert [r["round"] for r in records] == [2, 4] * POINTS

    # killed while it wrote: a summary is torn, and another is missing
    torn = (out / "summary.jsonl").read_text().splitlines(keepends=True)
    (out / "summary.jsonl").write_text("".join(torn[:-2]) + torn[-2][:20])
    again = sps_jax("sweep", *SMALL, "--out", out, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    by_point = lambda rows: sorted(rows, key=lambda row: (row["point"], row.get("round")))  # noqa: E731
    assert by_point(lines(out / "summary.jsonl")) == by_point(summaries)
    assert by_point(lines(out / "metrics.jsonl")) == by_point(records)

    single = ["--algorithm", "gd", "--stepsize", "0.5", "--clients", "4", "--rounds", "4", "--seed", "1"]
    alone = sps_jax("run", *single, "--evaluate-every", "2", "--out", tmp_path / "alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    (point,) = [s["point"] for s in summaries if (s["algorithm"], s["stepsize"], s["seed"]) == ("gd", 0.5, 1)]
    own = [row for row in records if row["point"] == point]
    for row, want in zip(own, lines(tmp_path / "alone" / "metrics.jsonl"), strict=True):
        assert row.pop("point") == point
        assert row.keys() == want.keys()
        for name, value in want.items():
            assert row[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


def test_another_sweep_is_not_mixed_in(tmp_path):
    few = ["--algorithm", "gd", "--clients", "4", "--rounds", "2", "--out", tmp_path / "out"]
    assert sps_jax("sweep", *few, "--stepsize", "0.1", cwd=tmp_path).returncode == 0
    before = (tmp_path / "out" / "metrics.jsonl").read_text()
    done = sps_jax("sweep", *few, "--stepsize", "0.1", "0.2", cwd=tmp_path)
    assert done.returncode == 2 and "holds a sweep with other settings: stepsize was" in done.stderr
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == before


def test_a_diverging_point_is_a_record_and_not_an_end(tmp_path):
    few = ["--algorithm", "gd", "--clients", "4", "--rounds", "9", "--out", tmp_path / "out"]
    done = sps_jax("sweep", *few, "--stepsize", "logspace:0.1:1e7:2", cwd=tmp_path)
    assert done.returncode == 0 and "2 points, of which 1 diverged" in done.stderr
    good, bad = lines(tmp_path / "out" / "summary.jsonl")
    assert good["diverged_at_round"] is None and 1 <= bad["diverged_at_round"] <= 9


WRONG = {
    "problem": (["--problem", "digts"], "unknown problem 'digts': did you mean 'digits'?"),
    "list": (["--sparsity", "0.5", "high"], "--sparsity must be numbers or logspace:first:last:count"),
    "space": (["--stepsize", "logspace:1:2"], "--stepsize must be numbers or logspace:first:last:count"),
    "word": (["--stepsize", "0.1", "large"], "--stepsize must be a number or 'auto', not 'large'"),
    "range": (["--sparsity", "0.9", "1.5"], "sparsity must be in [0, 1), not 1.5"),
    "local steps": (["--local-steps", "2.5"], "--local-steps must be numbers"),
    "both schedules": (["--prob", "0.5", "--local-steps", "2"], "not both"),
    "stranger": (["--mu", "0.1", "--algorithm", "gd"], "--mu is an option of none of digits, gd"),
    "chunk": (["--points-chunk", "0"], "points_chunk must be at least 1, not 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_message_status_2_and_leaves_nothing(case, tmp_path):
    arguments, message = WRONG[case]
    done = sps_jax("sweep", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
