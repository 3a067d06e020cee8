"""Resident memory of ``sps-jax run`` with very many clients, beside what it predicts.

``python benchmarks/memory.py --out benchmarks/results/scale`` writes ``memory.jsonl``; about 10 minutes, on a machine
with 8 GB free, and it minds no noise. A million clients with a cohort of 1,000, on the device and in host memory, and
100,000 and 500,000 clients that all take part, in chunks. The resident set is looked at every 50 ms from when the run
has made its folder, its data being there, to its end. What the interpreter, JAX and compiled programs take is no part
of a prediction: it is the same command's with 1,000 clients, less what that predicts, and is taken off. What it takes
varies by what glibc's allocator keeps for later of what compilation has freed, so each command is run as it is and with
one arena for all threads, ``MALLOC_ARENA_MAX=1``, which keeps least. What ``memory.jsonl`` has is not run again.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from sps_jax.results import files

COMMON = ["--problem", "synthetic_logistic", "--local-steps", "10", "--algorithm", "sparse_proxskip"]
RUNS = (
    ["--clients", "1000000", "--cohort", "1000", "--rounds", "20"],
    ["--clients", "1000000", "--cohort", "1000", "--rounds", "20", "--stream"],
    ["--clients", "100000", "--rounds", "5"],
    ["--clients", "500000", "--rounds", "5"],
)
ENVIRONMENTS: tuple[dict[str, str], ...] = ({}, {"MALLOC_ARENA_MAX": "1"})


def watched(options: list[str], environment: dict[str, str]) -> dict:
    """One run: the median and the largest resident set after its folder was there, and what was predicted."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "sps_jax", "run", *COMMON, *options, "--out", str(out)]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process, seen = psutil.Popen(command, env=os.environ | environment, **pipes), []
        while process.poll() is None:
            if (out / "config.json").exists():
                seen.append(process.memory_info().rss)
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(process.stderr.read())
        (summary,) = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {"median": statistics.median(seen), "largest": max(seen), "predicted": summary["predicted_bytes"]}


def name(options: list[str], environment: dict[str, str]) -> str:
    """The command of a run."""
    return " ".join([*(f"{k}={v}" for k, v in environment.items()), "sps-jax run", *COMMON, *options])


def measured(options: list[str], environment: dict[str, str]) -> dict:
    """The memory of one run without that of the program, and the ratio of the largest to the prediction."""
    few = watched(["--clients", "1000", *options[2:]], environment)
    run = watched(options, environment)
    program = few["largest"] - few["predicted"]
    return {
        "command": name(options, environment),
        "resident_bytes": run["largest"],
        "program_bytes": program,
        "predicted_bytes": run["predicted"],
        "largest_to_predicted": round((run["largest"] - program) / run["predicted"], 3),
        "median_to_predicted": round((run["median"] - program) / run["predicted"], 3),
    }


def main() -> None:
    """All runs that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "memory.jsonl"
    for run in itertools.product(RUNS, ENVIRONMENTS):
        if name(*run) not in [row["command"] for row in files.read_jsonl(path)]:
            files.append_jsonl(path, [measured(*run)])
            print(json.dumps(files.read_jsonl(path)[-1]), flush=True)


if __name__ == "__main__":
    main()
