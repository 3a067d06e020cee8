"""``sps-jax sweep`` through real processes: what it leaves, how it goes on, what it refuses."""

import json

import pytest

from sps_jax.results.files import read_jsonl

SMALL = ["--algorithm", "sparse_proxskip", "gd", "--stepsize", "0.1", "0.5", "--sparsity", "0.5", "0.9"]
SMALL += ["--local-steps", "3", "--seeds", "2", "--clients", "4", "--rounds", "4", "--evaluate-every", "2"]
POINTS = 2 * 2 * 2 + 2 * 2  # gd has no sparsity


@pytest.mark.slow
def test_every_point_is_recorded_and_a_sweep_that_was_cut_off_goes_on(tmp_path, command):
    out = tmp_path / "out"
    done = command("sweep", *SMALL, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{POINTS} points, of which 0 diverged" in done.stderr
    summaries, records = read_jsonl(out / "summary.jsonl"), read_jsonl(out / "metrics.jsonl")
    assert sorted(s["point"] for s in summaries) == list(range(POINTS))
    assert len({(s["algorithm"], s["stepsize"], s.get("sparsity"), s["seed"]) for s in summaries}) == POINTS
    assert [r["round"] for r in records] == [2, 4] * POINTS
    assert {(s["algorithm"], s.get("local_steps"), s.get("prob")) for s in summaries} == {
        ("sparse_proxskip", 3, None),
        ("gd", None, None),
    }

    # killed while it wrote: a summary is torn, and another is missing
    torn = (out / "summary.jsonl").read_text().splitlines(keepends=True)
    (out / "summary.jsonl").write_text("".join(torn[:-2]) + torn[-2][:20])
    again = command("sweep", *SMALL, "--out", out)
    assert again.returncode == 0, again.stderr
    by_point = lambda rows: sorted(rows, key=lambda row: (row["point"], row.get("round")))  # noqa: E731
    assert by_point(read_jsonl(out / "summary.jsonl")) == by_point(summaries)
    assert by_point(read_jsonl(out / "metrics.jsonl")) == by_point(records)

    single = ["--algorithm", "gd", "--stepsize", "0.5", "--clients", "4", "--rounds", "4", "--seed", "1"]
    single += ["--validation", "0.1"]  # as sweeps do without being asked
    alone = command("run", *single, "--evaluate-every", "2", "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    (point,) = [s["point"] for s in summaries if (s["algorithm"], s["stepsize"], s["seed"]) == ("gd", 0.5, 1)]
    own = [row for row in records if row["point"] == point]
    for row, want in zip(own, read_jsonl(tmp_path / "alone" / "metrics.jsonl"), strict=True):
        assert row.pop("point") == point
        assert row.keys() == want.keys()
        for name, value in want.items():
            assert row[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


@pytest.mark.slow
def test_numbers_of_algorithms_take_lists_too(shell, tmp_path):
    few = ["--algorithm", "fedprox", "gd", "--mu", "0", "1", "--rounds", "2", "--clients", "4"]
    out = tmp_path / "out"
    out.mkdir()
    done = shell("sweep", *few, "--out", out)
    assert done.returncode == 0, done.stderr
    points = read_jsonl(out / "summary.jsonl")
    assert [(p["algorithm"], p.get("mu")) for p in points] == [("fedprox", 0.0), ("fedprox", 1.0), ("gd", None)]
    assert json.loads((out / "config.json").read_text())["settings"]["validation"] == 0.1
    for name in ("metrics", "summary"):  # killed before the first point was there
        (out / f"{name}.jsonl").unlink()
    assert shell("sweep", *few, "--out", out).returncode == 0
    assert read_jsonl(out / "summary.jsonl") == points


@pytest.mark.slow
def test_another_sweep_is_not_mixed_in(tmp_path, shell):
    few = ["--algorithm", "gd", "--clients", "4", "--rounds", "2", "--out", tmp_path / "out"]
    assert shell("sweep", *few, "--stepsize", "0.1").returncode == 0
    before = (tmp_path / "out" / "metrics.jsonl").read_text()
    done = shell("sweep", *few, "--stepsize", "0.1", "0.2")
    assert done.returncode == 2 and "holds a sweep with other settings: stepsize was" in done.stderr
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == before


def test_a_diverging_point_is_a_record_and_not_an_end(tmp_path, command):
    few = ["--algorithm", "gd", "--clients", "4", "--rounds", "9", "--out", tmp_path / "out"]
    done = command("sweep", *few, "--stepsize", "logspace:0.1:1e7:2")
    assert done.returncode == 0 and "2 points, of which 1 diverged" in done.stderr
    good, bad = read_jsonl(tmp_path / "out" / "summary.jsonl")
    assert good["diverged_at_round"] is None and 1 <= bad["diverged_at_round"] <= 9


WRONG = {
    "problem": (["--problem", "digts"], "unknown problem 'digts': did you mean 'digits'?"),
    "list": (["--sparsity", "0.5", "high"], "--sparsity must be numbers or logspace:first:last:count"),
    "space": (["--stepsize", "logspace:1:2"], "--stepsize must be numbers or logspace:first:last:count"),
    "word": (["--stepsize", "0.1", "large"], "--stepsize must be a number or 'auto', not 'large'"),
    "range": (["--sparsity", "0.9", "1.5"], "sparsity must be in [0, 1), not 1.5"),
    "local steps": (["--local-steps", "2.5"], "--local-steps must be numbers"),
    "both schedules": (["--prob", "0.5", "--local-steps", "2"], "not both"),
    "stranger": (
        ["--l1", "0.1", "0.2", "--algorithm", "gd"],
        "--l1 is not an option of the chosen problem and algorithms (digits, gd)",
    ),
    "problem's stranger": (
        ["--kappa", "3", "--algorithm", "gd"],
        "--kappa is not an option of the chosen problem and algorithms (digits, gd)",
    ),
    "problem's list": (["--problem", "quadratic", "--mu", "1", "2"], "--mu is an option of the problem quadratic"),
    "chunk": (["--points-chunk", "0"], "points_chunk must be at least 1, not 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_message_status_2_and_leaves_nothing(case, tmp_path, command):
    arguments, message = WRONG[case]
    done = command("sweep", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
