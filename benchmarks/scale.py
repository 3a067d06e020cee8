"""Very many clients: what a client-step and its memory cost, and how the methods do, as n and the cohort grow.

``python benchmarks/scale.py --out benchmarks/results/scale`` writes ``cost.jsonl``, ``accuracy.jsonl``, ``table.txt``
and ``scale.png``; about 25 minutes on 2 cores. Clients are made up (``synthetic_logistic``, 100 features, 10 examples),
with full gradients and 10 local steps a round.

Cost: FedAvg and Sparse-ProxSkip with all clients, in chunks, up to 100,000, and with a cohort of 1,000 up to a million.
Each point is a process of its own; the memory that was predicted stands beside what it has while it runs (the peak is
higher, the data exist twice while they are made). Accuracy: 90 % sparsity, 200 rounds, every method at the step size of
one grid that has the lowest training loss. Findings: ``benchmarks/README.md``.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import psutil
from scaling import timed

import sps_jax as sps
from sps_jax import results
from sps_jax.plan import Plan
from sps_jax.planning import footprint
from sps_jax.problems import synthetic_logistic

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FEATURES, STEPS, SPARSITY = 100, 10, 0.9
CLIENTS, COHORTS = (100, 1_000, 10_000, 100_000, 1_000_000), (10, 100, 1_000)
METHODS = ("sparse_proxskip", "server_pruning", "fedavg_client_pruning", "fedavg_server_pruning", "tamuna", "fedavg")
STEPSIZES = (0.3, 1.0, 3.0, 10.0)
ROUNDS = 200


def cost(method: str, n: int, cohort: int) -> dict:
    """One measurement, in this process; all clients where ``cohort`` is 0."""
    before = psutil.Process().memory_info().rss
    problem = synthetic_logistic(clients=n, features=FEATURES)
    hyper = {"stepsize": 1.0} | ({"sparsity": SPARSITY} if method == "sparse_proxskip" else {})
    prepared = sps.prepare(sps.ALGORITHMS[method], hyper, jnp.float32, local_steps=STEPS, cohort=cohort or None)
    plan, part = Plan(min(1_000, cohort or n)), cohort or n
    rounds = max(3, 20_000 // part)
    _, seconds = timed(prepared, plan, problem, rounds)
    return {
        "method": method,
        "clients": n,
        "cohort": cohort or None,
        "microseconds_per_client_step": 1e6 * seconds / (rounds * STEPS * part),
        "resident_bytes": psutil.Process().memory_info().rss - before,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10,
        "predicted_bytes": footprint(sps.shapes(*prepared[:2], problem), problem, plan).total,
    }


def costs(path: Path) -> list[dict]:
    """All measurements, each in a fresh process."""
    points = [(n, 0) for n in CLIENTS[:-1]] + [(n, 1_000) for n in CLIENTS[1:]]
    for method in ("fedavg", "sparse_proxskip"):
        for n, cohort in points:
            command = [sys.executable, __file__, "--cost", method, str(n), str(cohort)]
            record = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(record, flush=True)
            results.append_jsonl(path, [record])
    return results.read_jsonl(path)


def accuracies(path: Path) -> list[dict]:
    """The end of every method's best run, for each number of clients and cohort; what ``path`` has is not run again."""
    done = {(r["clients"], r["cohort"]) for r in results.read_jsonl(path)}
    for n in CLIENTS[:-1]:
        left = [c for c in COHORTS if c <= n and (n, c) not in done]
        problem = synthetic_logistic(clients=n, features=FEATURES) if left else None
        for cohort in left:
            rows = [best(problem, method, cohort) | {"clients": n, "cohort": cohort} for method in METHODS]
            print(*rows, sep="\n", flush=True)
            results.append_jsonl(path, rows)
    return results.read_jsonl(path)


def best(problem, method: str, cohort: int) -> dict:
    """The run with the lowest training loss over the grid of step sizes."""
    make = sps.ALGORITHMS[method]
    own = {"sparsity": SPARSITY} if "prun" in method or "sparse" in method else {}
    points = sps.grid(stepsize=STEPSIZES, local_steps=STEPS, **own)
    settings = {"rounds": ROUNDS, "evaluate_every": ROUNDS, "cohort": None if cohort == problem.clients else cohort}
    outcomes = [o for o in sps.sweep(make, problem, points, **settings) if o.diverged_at_round is None]
    if not outcomes:
        return {"method": method, "stepsize": None}
    chosen = min(outcomes, key=lambda o: o.history["train_loss"][-1])
    seen = ("train_loss", "test_accuracy", "uplink_bits", "downlink_bits", "control_sum")
    ends = {name: float(chosen.history[name][-1]) for name in seen if name in chosen.history}
    return {"method": method, "stepsize": chosen.point["stepsize"]} | ends


def table(records: list[dict]) -> str:
    """Test accuracy and uplink bits, a row for each n and cohort."""
    cells = {(r["clients"], r["cohort"], r["method"]): r for r in records}
    rows = []
    for n, cohort in dict.fromkeys((r["clients"], r["cohort"]) for r in records):
        row = {"clients": f"{n:,}", "cohort": f"{cohort:,}"}
        for method in METHODS:
            r = cells[n, cohort, method]
            row[method] = f"{r['test_accuracy']:.4f} {results.human(r['uplink_bits'])}" if r["stepsize"] else "diverged"
        rows.append(row)
    return results.table(rows)


def picture(cost: list[dict], accuracy: list[dict], path: Path) -> None:
    """Cost, memory and accuracy against n."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for method in ("fedavg", "sparse_proxskip"):
        for cohort, style in ((None, "o-"), (1_000, "s--")):
            own = [r for r in cost if (r["method"], r["cohort"]) == (method, cohort)]
            n = [r["clients"] for r in own]
            label = f"{method}, {'all' if cohort is None else f'cohort of {cohort:,}'}"
            axes[0].loglog(n, [r["microseconds_per_client_step"] for r in own], style, label=label)
            axes[1].loglog(n, [r["resident_bytes"] / 1e9 for r in own], style, label=label)
    for method in METHODS:
        own = [r for r in accuracy if r["method"] == method and r["cohort"] == 100 and r["stepsize"]]
        axes[2].semilogx([r["clients"] for r in own], [r["test_accuracy"] for r in own], "o-", label=method)
    axes[0].set(xlabel="clients", ylabel="client-step (microseconds)")
    axes[1].set(xlabel="clients", ylabel="resident memory (GB)")
    axes[2].set(xlabel="clients, 100 of them a round", ylabel="test accuracy")
    for one in axes[::2]:
        one.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    """All of it, or the one measurement that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cost", nargs=3, metavar=("METHOD", "CLIENTS", "COHORT"))
    options = parser.parse_args()
    if options.cost:
        method, n, cohort = options.cost
        print(json.dumps(cost(method, int(n), int(cohort))))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    accuracy = accuracies(options.out / "accuracy.jsonl")
    (options.out / "cost.jsonl").unlink(missing_ok=True)
    measured = costs(options.out / "cost.jsonl")
    text = table(accuracy)
    results.write_text(options.out / "table.txt", text + "\n")
    picture(measured, accuracy, options.out / "scale.png")
    print(text)


if __name__ == "__main__":
    main()
