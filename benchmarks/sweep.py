"""A sweep of 64 points against 64 single runs.

``python benchmarks/sweep.py --json benchmarks/results/speed/sweep.jsonl`` runs 8 step sizes x 8 seeds of
Sparse-ProxSkip on digits, 100 rounds of 10 local steps: ``simulate`` 64 times in one process with everything
compiled and ``sweep`` once compiled, both with one CPU device and with one a core; ``sps-jax sweep`` with its start and
compilation; and one ``sps-jax run`` of the 64 (the mean of ``--runs``). With ``--femnist DIR`` also ``simulate`` and
``sweep`` of 8 points of FEMNIST digits. Each in a process of its own, no programs kept on disk; the final losses are
compared with those of ``simulate``. 10 minutes on 2 cores.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SETTINGS = {"rounds": 100, "evaluate_every": 10}
COMMAND = ["--algorithm", "sparse_proxskip", "--sparsity", "0.9", "--local-steps", "10", "--rounds", "100"]
COMMAND += ["--evaluate-every", "10", "--validation", "0", "--data-seed", "0"]
STEPSIZES = [float(g) for g in np.geomspace(0.05, 2, 8).astype(np.float32)]


def within(way: str, devices: int, folder: str | None, seeds: int) -> dict:
    """Seconds of ``simulate`` or ``sweep`` once compiled, and the final training losses of the points in order."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    import sps_jax as sps
    from sps_jax.problems import digits, femnist

    problem = digits() if folder is None else femnist(manual_dir=folder)
    points = sps.grid(stepsize=STEPSIZES, sparsity=0.9 if folder is None else 0.99, local_steps=10, seed=range(seeds))

    def single(point):
        hyper = {name: point[name] for name in ("stepsize", "sparsity")}
        key = jax.random.key(point["seed"])
        return sps.simulate(sps.sparse_proxskip, problem, hyper, key, local_steps=10, **SETTINGS)[1]

    def all_points():
        if way == "simulate":
            return [single(point) for point in points]
        found = {str(o.point): o.history for o in sps.sweep(sps.sparse_proxskip, problem, points, **SETTINGS)}
        return [found[str(point)] for point in points]

    single(points[0]) if way == "simulate" else all_points()  # compiles
    began = time.perf_counter()
    histories = all_points()
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 3), "losses": [float(h["train_loss"][-1]) for h in histories]}


def shell(arguments: list[str], runs: int) -> dict:
    """Seconds of a command of ``sps-jax``, the mean over ``runs`` fresh processes without kept programs."""
    began = time.perf_counter()
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"XDG_CACHE_HOME": folder}
            out = ["--out", str(Path(folder) / "out")]
            subprocess.run([sys.executable, "-m", "sps_jax", *arguments, *out], check=True, env=environment)
    return {"seconds": round((time.perf_counter() - began) / runs, 3)}


def main() -> None:
    """Measure, compare losses, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--femnist")
    parser.add_argument("--within", nargs=3, metavar=("WAY", "DEVICES", "SEEDS"))
    options = parser.parse_args()
    if options.within:
        way, devices, seeds = options.within
        print(json.dumps(within(way, int(devices), options.femnist, int(seeds))))
        return
    cores = len(os.sched_getaffinity(0))
    jobs = [("digits", None, 8)] + ([("femnist", options.femnist, 1)] if options.femnist else [])
    records = []
    for problem, folder, seeds in jobs:
        points, losses = len(STEPSIZES) * seeds, {}
        for devices, way in itertools.product(sorted({1, cores}), ("simulate", "sweep")):
            own = [sys.executable, __file__, "--within", way, str(devices), str(seeds)]
            own += ["--femnist", folder] if folder else []
            seen = json.loads(subprocess.run(own, check=True, capture_output=True, text=True).stdout)
            losses[way] = np.array(seen.pop("losses"))
            records.append({"problem": problem, "way": way, "devices": devices, "points": points, **seen})
            gap = np.abs(losses[way] - losses["simulate"]).max() / np.abs(losses["simulate"]).max()
            records[-1]["largest_relative_gap_of_losses"] = float(gap)
    one = shell(["run", *COMMAND, "--stepsize", "0.5"], options.runs)
    records.append({"problem": "digits", "way": "sps-jax run", "points": 1, **one})
    every = shell(["sweep", *COMMAND, "--stepsize", *map(str, STEPSIZES), "--seeds", "8"], 1)
    records.append({"problem": "digits", "way": "sps-jax sweep", "points": 64, **every})
    text = "".join(json.dumps(record) + "\n" for record in records)
    print(text, end="")
    if options.json:
        options.json.write_text(text)


if __name__ == "__main__":
    main()
