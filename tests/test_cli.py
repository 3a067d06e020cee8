"""The command line: what a wrong input gets, and, through real processes, what a right one leaves behind."""

import json

import pytest

from sps_jax.results.files import read_jsonl

SMALL = ["--rounds", "6", "--clients", "4", "--algorithm", "sparse_proxskip", "gd"]


WRONG = {
    "problem": (["--problem", "digts"], "unknown problem 'digts': did you mean 'digits'?"),
    "algorithm": (["--algorithm", "fedvag"], "unknown algorithm 'fedvag': did you mean 'fedavg'?"),
    "option": (["--stepsze", "1"], "--stepsize"),
    "prob": (["--prob", "0"], "prob must be in (0, 1], not 0"),
    "sparsity": (["--sparsity", "1"], "sparsity must be in [0, 1), not 1"),
    "stepsize": (["--stepsize", "-1"], "stepsize must be positive and finite, not -1"),
    "stepsize word": (["--stepsize", "big"], "--stepsize must be a number or 'auto', not 'big'"),
    "clients": (["--clients", "100000"], "allowed is at most 1438"),
    "both schedules": (["--prob", "0.5", "--local-steps", "2"], "not both"),
    "stranger": (["--kappa", "3"], "--kappa is not an option of the chosen problem and algorithms (digits"),
    "chunk": (["--chunk", "0"], "chunk must be between 1 and the"),
    "chunk word": (["--chunk", "most"], "--chunk must be a number or 'all' or 'auto', not 'most'"),
    "devices": (["--devices", "0"], "--devices must be at least 1, or 'auto', not 0"),
    "rounds": (["--rounds", "0"], "--rounds must be at least 1, not 0"),
    "clip norm": (["--clip-norm", "0"], "--clip-norm must be positive and finite, 'none' or 'auto', not 0"),
    "clip word": (["--clip-norm", "much"], "--clip-norm must be a number or 'none' or 'auto', not 'much'"),
    "nothing to prune": (["--no-prune-ends"], "--no-prune-ends needs a network of several layers; digits has one"),
    "model": (["--problem", "cifar10", "--model", "renset18"], "unknown model 'renset18': did you mean 'resnet18'?"),
    "width that is none": (["--problem", "cifar10", "--width", "0"], "width must be at least 1, not 0"),
    "model's width": (
        ["--problem", "shakespeare", "--model", "transformer", "--width", "0"],
        "width must be at least 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_message_status_2_and_leaves_nothing(case, tmp_path, command):
    arguments, message = WRONG[case]
    done = command("run", *arguments)
    assert done.returncode == 2
    assert message in " ".join((done.stdout + done.stderr).split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_ends_the_same_way(tmp_path, shell):
    arguments, message = WRONG["chunk"]
    done = shell("run", *arguments)
    assert done.returncode == 2 and message in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_names_address_and_option(tmp_path, command):
    done = command("run", "--problem", "femnist", "--manual-dir", tmp_path, "--data-dir", tmp_path / "data")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "parquet" in done.stderr


@pytest.mark.parametrize("blocked", ["a file", "not empty"])
def test_output_folder_is_never_overwritten(blocked, tmp_path, command):
    out = tmp_path / "out"
    kept = out
    if blocked == "not empty":
        out.mkdir()
        kept = out / "mine"
    kept.write_text("precious")
    done = command("run", *SMALL, "--out", out)
    assert done.returncode == 2
    assert str(out) in done.stderr and "Traceback" not in done.stderr
    assert kept.read_text() == "precious"


@pytest.mark.slow
def test_run_leaves_whole_result_files(tmp_path, command):
    done = command("run", *SMALL, "--seeds", "2", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert sorted(f.name for f in out.iterdir()) == [
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "models",
        "summary.json",
    ]
    rows = read_jsonl(out / "metrics.jsonl")
    assert len(rows) == 2 * 2 * 6
    wanted = {"algorithm", "problem", "seed", "round", "iteration", "train_loss", "test_loss", "test_accuracy"}
    wanted |= {"uplink_bits", "downlink_bits", "density", "control_sum", "stepsize"}
    assert all(wanted <= row.keys() for row in rows)
    assert all(row["control_sum"] is None for row in rows if row["algorithm"] == "gd")
    summary = json.loads((out / "summary.json").read_text())
    assert [(s["algorithm"], s["seed"]) for s in summary] == [
        (name, seed) for name in ("sparse_proxskip", "gd") for seed in (0, 1)
    ]
    assert {"final", "best", "compile_seconds", "run_seconds", "client_steps_per_second"} <= summary[0].keys()
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["rounds"] == 6 and "jax" in config["versions"] and "platform" in config["device"]
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_same_seed_same_records_and_a_script_gets_one_document_and_silence(tmp_path, shell, command):
    assert shell("run", *SMALL, "--batch-size", "8", "--out", "a").returncode == 0
    done = shell("run", *SMALL, "--batch-size", "8", "--out", "b", "--json", "--quiet")
    assert done.returncode == 0 and done.stderr == ""
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    summaries = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert json.loads(done.stdout) == {"results": "b", "summaries": summaries}
    settings = json.loads((tmp_path / "b" / "config.json").read_text())["settings"]
    assert not {"json", "quiet"} & settings.keys()  # they are no part of what was run
    rows = json.loads(command("table", tmp_path / "b", "--json").stdout)["rows"]
    assert [row["algorithm"] for row in rows] == ["sparse_proxskip", "gd"]
    assert rows[1]["mean"] == summaries[1]["final"]["test_accuracy"]


def test_divergence_is_reported_with_its_round_and_earlier_records_are_kept(tmp_path, command):
    out = tmp_path / "out"
    done = command("run", "--algorithm", "gd", "--stepsize", "1e6", "--rounds", "20", "--out", out)
    assert done.returncode == 3
    (summary,) = json.loads((out / "summary.json").read_text())
    diverged = summary["diverged_at_round"]
    assert f"gd (seed 0) diverged in round {diverged}" in done.stderr
    assert [row["round"] for row in read_jsonl(out / "metrics.jsonl")] == list(range(1, diverged))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_damaged_data_file_is_refused_by_name(damage, shared_data, tmp_path, shell):
    whole = (shared_data / "blogfeedback" / "BlogFeedback.zip").read_bytes()
    (tmp_path / "BlogFeedback.zip").write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"not a zip")
    places = ["--manual-dir", tmp_path, "--data-dir", tmp_path / "data", "--out", tmp_path / "out"]
    done = shell("run", "--problem", "blog_feedback", *places)
    assert done.returncode == 2
    assert "BlogFeedback.zip" in done.stderr and "sha256" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_output_folder_that_cannot_be_made(tmp_path, shell):
    (tmp_path / "file").write_text("")
    done = shell("run", *SMALL, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot write to the output folder" in done.stderr and "Traceback" not in done.stderr
