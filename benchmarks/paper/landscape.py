"""Over communication probability and sparsity: where is the optimum, and is it where theory puts it?

``python benchmarks/paper/landscape.py``, about 7 minutes of processor time. Two parts. Heat maps of accuracy and of
uplink bits to a target over the number of local steps and sparsity, on scikit-learn's digits, each cell at its own step
size, chosen on validation data. And rounds to an accuracy against p on mushrooms, logistic regression, one label a
client, for several condition numbers: theory has the optimum of dense ProxSkip at p = 1/sqrt(kappa), and nothing on the
sparse method. ``--full``: 5 splits, kappa to 10,000. Findings: ``benchmarks/results/README.md``.
"""

from functools import cache, partial
from pathlib import Path

import common
import jax
import jax.flatten_util
import numpy as np
import tables
from matplotlib import pyplot as plt

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.problems import digits, libsvm
from sps_jax.results.plots import Look, heat_map

METHODS = ("sparse_proxskip", "server_pruning", "fedavg_client_pruning")
LOCAL_STEPS = (1, 2, 5, 10, 20, 40)
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
STEPSIZES = (0.1, 0.3, 1.0, 3.0)
TARGET = 0.85
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of p, times 1/sqrt(kappa)
EPSILON = 1e-8
SPARSE = 0.8
KEPT = ("round", "train_loss", "control_sum")


def maps(options) -> None:
    """The heat maps of every method, and the best cell of each sparsity as a table."""
    makes, splits = common.algorithms(*METHODS), range(5 if options.full else 2)
    points = sps.grid(local_steps=LOCAL_STEPS, sparsity=SPARSITIES, stepsize=STEPSIZES)
    records = []
    for split in splits:
        build = partial(digits, clients=10, dirichlet_alpha=0.3, validation=0.1, data_seed=split)
        settings = {"rounds": 100, "evaluate_every": 2, "points_chunk": None, "keep": common.LITTLE}
        records += common.collect(options.out / "digits.jsonl", build, makes, points, data_seed=split, **settings)
    cells = common.groups(records, lambda r: (r["algorithm"], r["local_steps"], r["sparsity"]))
    chosen = {cell: next(iter(common.best(own, "validation_accuracy").values())) for cell, own in cells.items()}
    table = []
    for name in METHODS:
        accuracy, traffic = np.full((2, len(SPARSITIES), len(LOCAL_STEPS)), np.nan)
        for i, sparsity in enumerate(SPARSITIES):
            for j, k in enumerate(LOCAL_STEPS):
                own = chosen[name, k, sparsity]
                accuracy[i, j] = np.mean([common.end(record, "test_accuracy") for record in own])
                traffic[i, j] = (tables.bits(own, "test_accuracy", TARGET) or np.nan) / 1e6
            table.append(best_cells(name, sparsity, accuracy[i], traffic[i]))
        axes = ("sparsity", SPARSITIES), ("k", LOCAL_STEPS)
        title = f"{name}: test accuracy after 100 rounds"
        heat_map(accuracy, *axes, title, options.out / f"{name}_accuracy.png", "test accuracy")
        title = f"{name}: uplink Mbit to {TARGET:g}"
        heat_map(traffic, *axes, title, options.out / f"{name}_bits.png", "uplink, Mbit", Look(missing="never"))
    text = f"digits, 10 clients, 100 rounds, {len(splits)} splits; the best number of local steps by two measures"
    tables.show(table, options.out / "digits.txt", text)


def best_cells(name: str, sparsity: float, accuracy: np.ndarray, traffic: np.ndarray) -> dict[str, str]:
    """Where along the numbers of local steps a method does best at a sparsity."""
    reached = np.isfinite(traffic).any()
    return {
        "method": name,
        "sparsity": f"{sparsity:g}",
        "accuracy": ", ".join(f"{a:.3f}" for a in accuracy),
        "k of the best": str(LOCAL_STEPS[int(accuracy.argmax())]),
        f"Mbit to {TARGET:g}": ", ".join("-" if np.isnan(b) else f"{b:.3g}" for b in traffic),
        "k of the fewest": str(LOCAL_STEPS[int(np.nanargmin(traffic))]) if reached else "-",
    }


def minimum(problem: Problem) -> float:
    """min f, by Newton's method from 0."""
    x, back = jax.flatten_util.ravel_pytree(problem.init(jax.random.key(0)))

    @jax.jit
    def step(x):
        def f(x):
            return problem.objective(back(x))

        return x - jax.numpy.linalg.solve(jax.hessian(f)(x), jax.grad(f)(x)), f(x)

    for _ in range(20):
        x, value = step(x)
    return float(value)


def first(record: common.Record, level: float) -> float:
    """The first evaluated round whose training loss is at most ``level``, NaN if there is none."""
    found = [row["round"] for row in common.rows(record) if row["train_loss"] <= level]
    return found[0] if found else float("nan")


def over_p(options, kappa: float) -> tuple[dict, list[dict]]:
    """Rounds to the level against p, dense and sparse, of one condition number: curves, and lines of the table."""
    folder = str(options.shared / "libsvm")
    build = cache(partial(libsvm, kappa=kappa, clients=10, precision="float64", manual_dir=folder))
    gamma, least = 1 / float(build().smoothness.max()), minimum(build())
    zero = float(build().objective(build().init(jax.random.key(0))))
    ps = sorted({min(1.0, round(f / kappa**0.5, 6)) for f in FACTORS} | {1.0})
    seeds, dense, sparse = range(5 if options.full else 2), [], []
    for p in ps:
        own = partial(common.collect, options.out / "mushrooms.jsonl", build, kappa=kappa, points_chunk=None, keep=KEPT)
        need = 11 * max(p * kappa, 1 / p)  # on these data enough for EPSILON
        most = 2 ** int(np.ceil(np.log2(need)))  # few different numbers of rounds are few programs
        points = sps.grid(stepsize=gamma, prob=p, seed=seeds)
        dense += own(common.algorithms("proxskip"), points, rounds=most, evaluate_every=max(1, most // 200))
        points = sps.grid(stepsize=gamma, prob=p, sparsity=SPARSE, seed=seeds)
        sparse += own(common.algorithms("sparse_proxskip"), points, rounds=200, evaluate_every=1)
    reached = [min(r["history"]["train_loss"]) for r in sparse]
    levels = {"dense": least + EPSILON * (zero - least), "sparse": max(reached)}
    found = {}
    for name, records in (("dense", dense), ("sparse", sparse)):
        by_p = common.groups(records, lambda r: r["prob"])
        found[name] = [float(np.mean([first(r, levels[name]) for r in own])) for own in by_p.values()]
    ends = common.groups(sparse, lambda r: r["prob"]).values()
    lowest = [float(np.mean([common.end(r, "train_loss") - least for r in own])) for own in ends]
    lines = [
        {
            "kappa": f"{kappa:g}",
            "p": f"{p:.4g}",
            "p sqrt(kappa)": f"{p * kappa**0.5:.3g}",
            f"proxskip: rounds to {EPSILON:g}": f"{d:.0f}",
            "iterations": f"{d / p:.0f}",
            f"sparse_proxskip {SPARSE:g}: rounds to the level all reach": f"{s:.0f}",
            "its f - min f after 200 rounds": f"{low:.4g}",
        }
        for p, d, s, low in zip(ps, found["dense"], found["sparse"], lowest, strict=True)
    ]
    return {"p": ps, **found}, lines


def draw(curves: dict[float, dict], path: Path) -> None:
    """Rounds against p, with a vertical line at 1/sqrt(kappa)."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, axes in zip(("dense", "sparse"), panels, strict=True):
        for i, (kappa, own) in enumerate(curves.items()):
            axes.loglog(own["p"], own[name], "o-", color=f"C{i}", label=f"kappa = {kappa:g}")
            axes.axvline(kappa**-0.5, color=f"C{i}", linestyle=":")
        axes.set(xlabel="p (dotted: 1/sqrt(kappa))", ylabel="rounds to the level")
        axes.set_title(
            f"proxskip, to {EPSILON:g} of f(0) - min f" if name == "dense" else f"sparse_proxskip, {SPARSE:.0%}"
        )
        axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Both parts."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    maps(options)
    jax.config.update("jax_enable_x64", True)
    curves, lines = {}, []
    for kappa in (100.0, 1000.0, 10000.0) if options.full else (30.0, 100.0, 300.0):
        curves[kappa], own = over_p(options, kappa)
        lines += own
    text = "mushrooms, 10 clients by label, step size 1/L; rounds, means over seeds of the coin"
    tables.show(lines, options.out / "mushrooms.txt", text)
    draw(curves, options.out / "mushrooms.png")


if __name__ == "__main__":
    main()
