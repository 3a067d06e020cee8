"""What checkpoints cost: the time of a run on FEMNIST digits with one every 10 rounds and without.

``python benchmarks/checkpoint.py --manual-dir ../shared/data/femnist --json benchmarks/results/speed/checkpoint.jsonl``
runs ``sps-jax run`` alternately both ways, ``--runs`` times each, in fresh processes (100 clients, Sparse-ProxSkip at
99 %, 10 local steps, full batches, 200 rounds: both ways in blocks of 10), after one run that fills the cache of
compiled programs. A line a run: ``run_seconds`` from the first round to the last, saving and what waits for it
included, and ``process_seconds``; then the medians. Aimed at: less than 5 % of ``run_seconds``.

``--alone`` measures instead what a checkpoint takes of a processor where nothing computes: 20 of them, of as many
floats as that run has and of eight; it adds its lines to the file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sps_jax.results.files import append_jsonl

CLIENTS, PARAMETERS = 100, 7_850
COMMAND = ["--problem", "femnist", "--classes", "digits", "--clients", str(CLIENTS), "--algorithm", "sparse_proxskip"]
COMMAND += ["--stepsize", "2.0", "--local-steps", "10", "--sparsity", "0.99", "--batch-size", "full"]


def measure(manual_dir: Path, rounds: int, every: int | None) -> dict:
    """The seconds of one run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        options = ["--manual-dir", str(manual_dir), "--rounds", str(rounds), "--out", str(out)]
        options += [] if every is None else ["--checkpoint-every", str(every)]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sps_jax", "run", *COMMAND, *options], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        (summary,) = json.loads((out / "summary.json").read_text())
    times = {"run_seconds": summary["run_seconds"], "process_seconds": round(seconds, 3)}
    return {"rounds": rounds, "checkpoint_every": every} | times


def alone(floats: int, saves: int = 20) -> dict:
    """Milliseconds that a checkpoint of so many floats takes, of the clock and of processors, in this process."""
    from sps_jax.runs.checkpoint import Checkpoints

    tree = {"memory": np.random.default_rng(0).normal(size=floats).astype(np.float32)}
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        checkpoints.save(0, tree)
        checkpoints.wait()
        clock, processors = time.perf_counter(), time.process_time()
        for step in range(1, saves + 1):
            checkpoints.save(step, tree)
            checkpoints.wait()
        spent = time.perf_counter() - clock, time.process_time() - processors
    of_clock, of_processors = (round(1e3 * seconds / saves, 1) for seconds in spent)
    return {"floats": floats, "clock_ms": of_clock, "processor_ms": of_processors}


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manual-dir", type=Path)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.alone:
        rows = [alone(floats) for floats in (CLIENTS * PARAMETERS, 8)]
        print(json.dumps(rows))
        if options.json:
            append_jsonl(options.json, rows)
        return
    if options.manual_dir is None:
        parser.error("--manual-dir is needed")
    for every in (None, options.every):
        measure(options.manual_dir, options.rounds, every)
    rows = []
    for _ in range(options.runs):
        for every in (None, options.every):
            rows.append(measure(options.manual_dir, options.rounds, every))
            print(json.dumps(rows[-1]), flush=True)
    for name in ("run_seconds", "process_seconds"):
        without, with_them = (
            statistics.median(row[name] for row in rows if row["checkpoint_every"] == every)
            for every in (None, options.every)
        )
        print(f"{name}: {without:.2f} without, {with_them:.2f} with, {100 * (with_them / without - 1):+.1f} %")
    if options.json:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
