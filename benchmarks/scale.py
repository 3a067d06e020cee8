"""Very many clients: how the methods do as n and the cohort grow, and what a client-step and its memory cost.

``python benchmarks/scale.py --out benchmarks/results/scale`` does all there is and draws it anew; ``--only accuracy``
takes about 15 CPU-minutes and minds no noise, ``--only cost`` 5 minutes of a quiet machine. What the files have
is not run again, run by run. Clients are made up (``synthetic_logistic``, 100 features, 10 examples), with full
gradients and 10 local steps a round.

Accuracy (``accuracy.jsonl``, ``accuracy.txt``, ``accuracy.png``): 90 % sparsity, 200 rounds, n from 100 to 100,000 with
cohorts of 10, 100 and 1,000. Every method is shown at the step size of the grid, the same for all, with the lowest
training loss (seed 0); cohorts of 10 and 100 with that one from two more seeds. To be cheap cohorts of 1,000 have the
three middle step sizes and one seed. ``--full`` gives them all of both, and a million clients (8 GB, about two hours).

Cost (``cost.jsonl``, ``cost.png``): FedAvg and Sparse-ProxSkip with all clients, in chunks, up to 100,000, and with a
cohort of 1,000 up to a million. Each point is a process of its own; the memory that was predicted stands beside what it
has while it runs (the peak is higher, the data exist twice while they are made). Findings: ``benchmarks/README.md``.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
import psutil
from scaling import timed

import sps_jax as sps
from sps_jax import results
from sps_jax.layout import Layout
from sps_jax.problems import synthetic_logistic
from sps_jax.results import files
from sps_jax.simulation.footprint import footprint

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FEATURES, STEPS, SPARSITY = 100, 10, 0.9
CLIENTS, COHORTS = (100, 1_000, 10_000, 100_000, 1_000_000), (10, 100, 1_000)
METHODS = ("sparse_proxskip", "server_pruning", "fedavg_client_pruning", "fedavg_server_pruning", "tamuna", "fedavg")
STEPSIZES, MIDDLE = (0.1, 0.3, 1.0, 3.0, 10.0), (0.3, 1.0, 3.0)
ROUNDS, EVALUATE = 200, 40
SEEN = ("round", "train_loss", "test_accuracy", "uplink_bits", "downlink_bits", "control_sum")

Record = dict


def accuracies(path: Path, full: bool) -> list[Record]:
    """Every run, for each number of clients, cohort and method."""
    for n in CLIENTS if full else CLIENTS[:-1]:
        problem = None
        for cohort in (c for c in COHORTS if c <= n):
            cheap = cohort == max(COHORTS) and not full
            for method in METHODS:
                names = {"clients": n, "cohort": cohort, "method": method}
                for seeds in ((0,),) if cheap else ((0,), (1, 2)):
                    done = [r for r in files.read_jsonl(path) if r.items() >= names.items()]
                    steps = [chosen(done)] if seeds != (0,) else MIDDLE if cheap else STEPSIZES
                    had = [(r["stepsize"], r["seed"]) for r in done]
                    left = [(s, seed) for s in steps if s for seed in seeds if (s, seed) not in had]
                    if left:
                        problem = problem or synthetic_logistic(clients=n, features=FEATURES)
                        run(problem, names, left, path)
    return files.read_jsonl(path)


def run(problem, names: Record, left: list[tuple[float, int]], path: Path) -> None:
    """Runs of one method that differ in step size and seed; each is written as soon as it is there."""
    method, cohort = names["method"], names["cohort"]
    own = {"local_steps": STEPS} | ({"sparsity": SPARSITY} if "prun" in method or "sparse" in method else {})
    points = [{"stepsize": stepsize, "seed": seed} | own for stepsize, seed in left]
    settings = {"rounds": ROUNDS, "evaluate_every": EVALUATE, "cohort": None if cohort == problem.clients else cohort}
    for point, history, diverged in sps.sweep(sps.ALGORITHMS[method], problem, points, **settings):
        record = names | {"stepsize": point["stepsize"], "seed": point["seed"], "diverged_at_round": diverged}
        if diverged is None:
            record |= {name: history[name].tolist() for name in SEEN if name in history}
        files.append_jsonl(path, [record])
        print({name: v[-1] if isinstance(v, list) else v for name, v in record.items()}, flush=True)


def chosen(runs: list[Record]) -> float | None:
    """The step size with the lowest training loss at the end, of the runs with seed 0; None where all diverged."""
    ends = {r["stepsize"]: r["train_loss"][-1] for r in runs if r["seed"] == 0 and r["diverged_at_round"] is None}
    return min(ends, key=ends.get, default=None)


def cells(records: list[Record]) -> dict[tuple[int, int], dict[str, list[Record]]]:
    """For each n and cohort, in order, the runs of each method at the step size that was chosen."""
    found: dict[tuple[int, int], dict[str, list[Record]]] = {}
    for r in sorted(records, key=lambda r: (r["clients"], r["cohort"])):
        found.setdefault((r["clients"], r["cohort"]), {}).setdefault(r["method"], []).append(r)
    return {
        where: {
            method: [r for r in runs if r["stepsize"] == chosen(runs) and r["diverged_at_round"] is None]
            for method, runs in own.items()
        }
        for where, own in found.items()
    }


def table(records: list[Record]) -> str:
    """A row for each n, cohort and method: test accuracy and its range over seeds, chosen step size, uplink bits."""
    rows = []
    for (n, cohort), methods in cells(records).items():
        for method in METHODS:
            runs = methods.get(method, [])
            row = {"clients": f"{n:,}", "cohort": f"{cohort:,}", "rounds a client": f"{ROUNDS * cohort / n:g}"}
            none = "diverged" if method in methods else "not run"
            row |= {"method": method, "accuracy": none, "range": "", "train loss": "", "step": "", "uplink": ""}
            if runs:
                ends = [r["test_accuracy"][-1] for r in runs]
                row |= {
                    "accuracy": f"{np.mean(ends):.4f}",
                    "range": f"{np.ptp(ends):.4f}" if len(ends) > 1 else "-",
                    "train loss": f"{np.mean([r['train_loss'][-1] for r in runs]):.4f}",
                    "step": f"{runs[0]['stepsize']:g}",
                    "uplink": results.human(runs[0]["uplink_bits"][-1]),
                }
            rows.append(row)
    return results.aligned(rows)


def accuracy_picture(records: list[Record], path: Path) -> None:
    """Accuracy against n, a panel a cohort, a line a method."""
    figure, axes = plt.subplots(1, len(COHORTS), figsize=(13, 4), layout="constrained", sharey=True)
    own = cells(records)
    for one, cohort in zip(axes, COHORTS, strict=True):
        for method in METHODS:
            points = [(n, runs[method]) for (n, c), runs in own.items() if c == cohort and runs.get(method)]
            mean = [np.mean([r["test_accuracy"][-1] for r in runs]) for _, runs in points]
            one.semilogx([n for n, _ in points], mean, "o-", label=method)
        one.set(xlabel=f"clients, {cohort:,} of them a round")
    axes[0].set(ylabel=f"test accuracy after {ROUNDS} rounds")
    axes[-1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def cost(method: str, n: int, cohort: int) -> Record:
    """One measurement, in this process; all clients where ``cohort`` is 0."""
    before = psutil.Process().memory_info().rss
    problem = synthetic_logistic(clients=n, features=FEATURES)
    hyper = {"stepsize": 1.0} | ({"sparsity": SPARSITY} if method == "sparse_proxskip" else {})
    prepared = sps.prepare(sps.ALGORITHMS[method], hyper, jnp.float32, local_steps=STEPS, cohort=cohort or None)
    layout, part = Layout(min(1_000, cohort or n)), cohort or n
    rounds = max(3, 20_000 // part)
    _, seconds = timed(prepared, layout, problem, rounds)
    return {
        "method": method,
        "clients": n,
        "cohort": cohort or None,
        "microseconds_per_client_step": 1e6 * seconds / (rounds * STEPS * part),
        "resident_bytes": psutil.Process().memory_info().rss - before,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10,
        "predicted_bytes": footprint(sps.shapes(prepared, problem), problem, layout).total,
    }


def costs(path: Path) -> list[Record]:
    """All measurements, each in a fresh process."""
    done = [(r["method"], r["clients"], r["cohort"] or 0) for r in files.read_jsonl(path)]
    points = [(n, 0) for n in CLIENTS[:-1]] + [(n, 1_000) for n in CLIENTS[1:]]
    for method in ("fedavg", "sparse_proxskip"):
        for n, cohort in points:
            if (method, n, cohort) in done:
                continue
            command = [sys.executable, __file__, "--cost", method, str(n), str(cohort)]
            record = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(record, flush=True)
            files.append_jsonl(path, [record])
    return files.read_jsonl(path)


def cost_picture(records: list[Record], path: Path) -> None:
    """Cost and memory against n."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for method in ("fedavg", "sparse_proxskip"):
        for cohort, style in ((None, "o-"), (1_000, "s--")):
            own = [r for r in records if (r["method"], r["cohort"]) == (method, cohort)]
            n = [r["clients"] for r in own]
            label = f"{method}, {'all' if cohort is None else f'cohort of {cohort:,}'}"
            axes[0].loglog(n, [r["microseconds_per_client_step"] for r in own], style, label=label)
            axes[1].loglog(n, [r["resident_bytes"] / 1e9 for r in own], style, label=label)
    axes[0].set(xlabel="clients", ylabel="client-step (microseconds)")
    axes[1].set(xlabel="clients", ylabel="resident memory (GB)")
    axes[0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    """What is asked for, or the one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("accuracy", "cost"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cost", nargs=3, metavar=("METHOD", "CLIENTS", "COHORT"))
    options = parser.parse_args()
    if options.cost:
        method, n, cohort = options.cost
        print(json.dumps(cost(method, int(n), int(cohort))))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only != "cost":
        records = accuracies(options.out / "accuracy.jsonl", options.full)
        text = table(records)
        files.write_text(options.out / "accuracy.txt", text + "\n")
        accuracy_picture(records, options.out / "accuracy.png")
        print(text)
    if options.only != "accuracy":
        cost_picture(costs(options.out / "cost.jsonl"), options.out / "cost.png")


if __name__ == "__main__":
    main()
