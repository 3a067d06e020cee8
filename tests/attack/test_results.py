"""Result folders: damaged ones are refused by name, and one process at a time works in each."""

import contextlib
import io
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from test_files import damaged

from sps_jax import results
from sps_jax.cli import main
from sps_jax.results import files
from sps_jax.results.files import read_jsonl

RUN = [
    "run",
    "--problem",
    "quadratic",
    "--clients",
    "4",
    "--rounds",
    "4",
    "--algorithm",
    "gd",
    "--checkpoint-every",
    "2",
]
SWEEP = ["sweep", "--problem", "quadratic", "--clients", "4", "--rounds", "2", "--algorithm", "gd"]
SWEEP += ["--stepsize", "0.5", "0.25", "0.125"]


def command(*line):
    """Status and all that was said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main.command([str(word) for word in line])
        except SystemExit as end:
            status = end.code
    return status, said.getvalue()


@pytest.fixture(autouse=True, scope="module")
def quick():
    """JAX's settings stay as the tests have them, and pictures are not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.config, "update", lambda name, value: None)
        patch.setattr(
            "matplotlib.figure.Figure.savefig", lambda self, path, **kwargs: Path(path).write_bytes(b"picture")
        )
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run and a sweep that ended, not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    assert command(*RUN, "--out", folder / "run")[0] == 0
    assert command(*SWEEP, "--out", folder / "sweep")[0] == 0
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


ATTACKS = {
    "table": ("run", ["metrics.jsonl"], lambda out: ["table", out]),
    "table of a sweep": ("sweep", ["metrics.jsonl"], lambda out: ["table", out]),
    "plot": ("sweep", ["metrics.jsonl"], lambda out: ["plot", out]),
    "resume": (
        "run",
        ["config.json", "metrics.jsonl", "checkpoints/begun.json", "checkpoints/finished.jsonl"],
        lambda out: ["resume", out],
    ),
    "sweep": ("sweep", ["config.json", "summary.jsonl"], lambda out: [*SWEEP, "--out", out]),
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's closed event loop
def test_files_damaged_at_random(attack, whole, tmp_path):
    """It works with what can be read, or one message names the file and nothing is changed."""
    kind, names, line = ATTACKS[attack]
    draw, refused = random.Random(attack), 0
    for i in range(40):
        out = shutil.copytree(whole / kind, tmp_path / f"out{i}")
        victim = out / draw.choice(names)
        victim.write_bytes(damaged(victim.read_bytes(), draw))
        if attack in ("resume", "sweep") and victim.suffix == ".jsonl" and not victim.read_bytes().endswith(b"\n"):
            continue  # cut off while it was written: what is missing is computed again, see the slow test
        before = contents(out)
        status, said = command(*line(out))
        assert status in (0, 2), said
        if status == 2:
            refused += 1
            assert said.count("sps-jax: error:") == 1 and (str(out) in said or "of several problems" in said)
            assert contents(out) == before
        shutil.rmtree(out)
    assert refused > 5


SWAPPED = {  # a file in the place of another
    "config of a sweep": ("run", "sweep/config.json", "config.json"),
    "records of a sweep": ("run", "sweep/metrics.jsonl", "metrics.jsonl"),
    "begun of a sweep": ("run", "sweep/config.json", "checkpoints/begun.json"),
    "summary for finished": ("run", "run/metrics.jsonl", "checkpoints/finished.jsonl"),
    "records for config": ("run", "run/metrics.jsonl", "config.json"),
}


@pytest.mark.parametrize("case", SWAPPED)
def test_files_swapped(case, whole, tmp_path):
    kind, one, other = SWAPPED[case]
    out = shutil.copytree(whole / kind, tmp_path / "out")
    shutil.copy(whole / one, out / other)
    before = contents(out)
    status, said = command("resume", out)
    assert status == 2 and said.count("sps-jax: error:") == 1 and str(out) in said, said
    assert contents(out) == before


DAMAGED = [
    ("3\n", "damaged in line 1: it is not a JSON object"),
    ("[]\n", "it is not a JSON object"),
    ("\x00\n", "damaged in line 1"),
    ('{"algorithm": "gd"}\n', "it has no "),
    ("{GOOD}\n{GOOD", "round is '2'"),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_records_that_are_none(text, message, tmp_path):
    good = {"algorithm": "gd", "problem": "p", "seed": 0, "round": "2", "uplink_bits": 1, "downlink_bits": 1}
    good |= {"train_loss": 1.0, "control_sum": None}
    (tmp_path / "metrics.jsonl").write_text(text.replace("{GOOD}", json.dumps(good)))
    for read in (results.read_records, results.load):
        with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 1") as error:
            read(tmp_path)
        assert message in str(error.value)


def test_a_byte_that_is_no_text_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 1"):
        results.read_records(tmp_path)


def test_a_point_that_lost_its_records_is_computed_again(whole, tmp_path):
    out = shutil.copytree(whole / "sweep", tmp_path / "out")
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:-1]) + lines[-1][:10])
    assert command(*SWEEP, "--out", out)[0] == 0
    assert read_jsonl(out / "metrics.jsonl") == read_jsonl(whole / "sweep" / "metrics.jsonl")


# --- at once --------------------------------------------------------------------------------------------------------


def test_of_many_that_want_a_new_folder_one_gets_it(tmp_path):
    def want(barrier, out, got):
        barrier.wait()
        try:
            files.write_json(files.new_folder(out) / "config.json", {"who": threading.get_ident()})
            got.append(threading.get_ident())
        except ValueError as error:
            assert "is not empty" in str(error)

    for i in range(100):
        barrier, out, got = threading.Barrier(4), tmp_path / f"{i}", []
        threads = [threading.Thread(target=want, args=(barrier, out, got)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [path.name for path in out.iterdir()] == ["config.json"]
        assert [json.loads((out / "config.json").read_text())["who"]] == got


def test_a_sweep_and_a_resume_wait_for_nobody(whole, tmp_path):
    """While another is at work in the folder they end with status 2."""
    for kind, file, line in (
        ("run", "checkpoints/begun.json", ["resume"]),
        ("sweep", "config.json", [*SWEEP, "--out"]),
    ):
        out = shutil.copytree(whole / kind, tmp_path / kind)
        before = contents(out)
        with files.locked(out, out / file):
            status, said = command(*line, out)
        assert status == 2 and f"another process is at work in {out}" in said
        assert contents(out) == before
        assert command(*line, out)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "run without checkpoints", "sweep", "resume"])
def test_two_processes_at_once(kind, whole, tmp_path):
    """One wins and leaves what it would have left alone; the other says so."""
    out = tmp_path / "out"
    line = {"run": RUN[:-2], "run without checkpoints": RUN[:-2], "sweep": SWEEP, "resume": ["resume"]}[kind]
    many = ["--rounds", "400"] + ["--checkpoint-every", "100"] * (kind == "run")
    if kind == "resume":
        begin = [sys.executable, "-m", "sps_jax", *RUN[:-2], *many, "--checkpoint-every", "100", "--out", str(out)]
        process = subprocess.Popen(begin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(out.glob("checkpoints/[0-9]*")):
            time.sleep(0.01)
        process.kill()
        process.wait()
    command = [
        sys.executable,
        "-m",
        "sps_jax",
        *line,
        *(many if kind.startswith("run") else []),
        *([] if kind == "resume" else ["--out"]),
        str(out),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    ends = [(*process.communicate(timeout=240), process.returncode) for process in both]
    assert sorted(status for *_, status in ends)[0] == 0 and all("Traceback" not in error for _, error, _ in ends), ends
    records = read_jsonl(out / "metrics.jsonl")
    if kind.startswith("run"):
        assert sorted(status for *_, status in ends) == [0, 2]
    if kind != "sweep":
        assert [record["round"] for record in records] == list(range(1, 401))
    if kind == "sweep":  # the second may come when the first has ended
        assert sorted((r["point"], r["round"]) for r in records) == [(p, r) for p in range(3) for r in (1, 2)]
    for _, error, status in ends:
        assert status == 0 or (status == 2 and error.count("sps-jax: error:") == 1), error
