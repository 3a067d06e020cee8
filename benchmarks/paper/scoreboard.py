"""The scoreboard: every method of the package on seven workloads, at equal tuning, by bits and by seconds to a target.

``python benchmarks/paper/scoreboard.py``; ``--only WORKLOAD`` chooses. The rules are AlgoPerf's (Dahl et al. 2023,
arXiv 2306.07179), carried over: each workload has one target, fixed before the methods are run; each method has
``TRIALS`` tuning trials on each workload, points of a Halton sequence in the ranges of ``SPACES``, and runs with
the point that is best on validation data (on the training loss where there are none); it is then run from other seeds,
on test data. Who does not reach the target in one of these runs has not reached it.

A method is scored by what it takes to the target, mean over seeds: bits up, bits up plus a tenth of the bits down,
and seconds on three networks (``sps_jax.results.clock``). A performance profile shows, for each method, the share of
workloads on which it takes at most tau times what the best method takes. All records are in ``OUT/WORKLOAD.jsonl``;
what is there is not run again, and tables and pictures are made of the workloads that are there.

A method that communicates after every step has as many rounds as the others have steps. A target asks for a loss or an
accuracy alone: the tables say which methods ship a sparse model and which a dense one.

A method that enters the table of the package is in the scoreboard; a number that is new to it needs a line in
``SPACES``. Findings: ``benchmarks/results/README.md``.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import tables
from common import Record
from matplotlib import pyplot as plt
from scipy.stats import qmc
from workloads import WORKLOADS, Workload

import sps_jax as sps
from sps_jax.problems import quadratic
from sps_jax.results.clock import NETWORKS, elapsed
from sps_jax.results.plots import COLOURS
from sps_jax.results.reading import human

TRIALS = 5
SPACES = {
    "mu": (1e-3, 1.0),
    "l1": (1e-6, 1e-3),
    "alpha": (1e-2, 1.0),
    "gradient_prob": (0.5, 1.0),
    "server_stepsize": (0.03, 3.0),
    "epsilon": (1e-4, 1e-1),
    "momentum": (0.05, 1.0),
    "beta": (0.05, 1.0),
    "rho": (0.1, 1.0),
    "eta": (0.01, 1.0),
    "beta1": (0.5, 0.99),
    "beta2": (0.9, 0.999),
    "weight_decay": (1e-5, 1e-2),
    "ridge": (1e-4, 1e-1),
}
"""Ranges of the numbers that are tuned beside the step size; those that have a default keep it."""
METHODS = sps.ALGORITHMS | {"mask_proxskip": partial(sps.mask_proxskip, score="step")}
"""A mask by |weight x gradient| would say nothing at a start at zero."""
KEEP = ("round", "iteration", "uplink_bits", "downlink_bits", "train_loss", "control_sum")
KEEP += ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")


def signature(make: Callable[..., sps.Algorithm]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a method."""
    return inspect.signature(make).parameters


def tuned_names(make: Callable[..., sps.Algorithm]) -> list[str]:
    """The numbers of a method that are tuned beside its step size: those of ``SPACES`` that have no default."""
    required = [p.name for p in signature(make).values() if p.default is p.empty]
    fixed = {"stepsize", "prob", "sparsity"}
    if strangers := [name for name in required if name not in {*fixed, *SPACES}]:
        raise ValueError(f"SPACES has no range for {', '.join(strangers)}")
    return [name for name in required if name not in fixed]


def points(make: Callable[..., sps.Algorithm], work: Workload) -> list[dict[str, Any]]:
    """The tuning trials of a method: a Halton sequence over the logarithms of its ranges, the step size first."""
    names = ["stepsize", *tuned_names(make)]
    ranges = np.log([work.stepsizes, *(SPACES[name] for name in names[1:])])
    unit = qmc.Halton(len(names), scramble=False).random(TRIALS + 1)[1:]  # the first is a corner
    values = np.exp(ranges[:, 0] + unit * (ranges[:, 1] - ranges[:, 0]))
    fixed = {"sparsity": work.sparsity} | ({"local_steps": work.local_steps} if "prob" in signature(make) else {})
    return [{name: float(f"{v:.4g}") for name, v in zip(names, row, strict=True)} | fixed for row in values]


@cache
def shipped(make: Callable[..., sps.Algorithm]) -> str:
    """Return "sparse" if a method's model has the asked sparsity after two rounds on a small quadratic, else "dense".

    The union of the clients' masks, which is the model of ``fedcomloc_com``, counts as dense.
    """
    takes = {"local_steps", *signature(make)}
    point = {name: value for name, value in points(make, WORKLOADS["quadratic"])[0].items() if name in takes}
    (_, history, _), *_ = sps.sweep(make, quadratic(clients=5), [point], rounds=2)
    return "sparse" if history["density"][-1] <= 1 - point.get("sparsity", 0) < 1 else "dense"


def chosen(records: Sequence[Record], metric: str) -> dict[str, Any] | None:
    """The point of the record that ends best, None if all diverged."""
    sign = 1 if metric.endswith("accuracy") else -1
    ends = [sign * common.end(record, metric) for record in records]
    finite = [i for i, value in enumerate(ends) if math.isfinite(value)]
    if not finite:
        return None
    best = records[max(finite, key=ends.__getitem__)]
    labels = ("workload", "stage", "data_seed", "algorithm", "rounds", "diverged_at_round", "history")
    return {name: value for name, value in best.items() if name not in labels}


def measure(name: str, work: Workload, options) -> dict[str, list[Record]]:
    """For each method the records of its chosen point, on all seeds; none where all its trials diverged."""
    build = cache(lambda seed: work.build(seed, options.shared))
    how = {"points_chunk": work.points_chunk, "keep": KEEP, "clip": work.clip, "workload": name}
    found: dict[str, list[Record]] = {}
    for method, make in METHODS.items():
        steps = 1 if "prob" in signature(make) else work.local_steps  # as many gradients, where each step is a round
        length = {"rounds": work.rounds * steps, "evaluate_every": work.evaluate_every * steps}
        collected = partial(common.collect, options.out / f"{name}.jsonl", **how, **length)
        trials = collected(partial(build, 0), {method: make}, points(make, work), stage="tuning", data_seed=0)
        best, found[method] = chosen(trials, work.tuned_by), []
        for seed in range(1, 1 + work.seeds) if best else ():
            own = [best | {"seed": seed}]
            found[method] += collected(partial(build, seed), {method: make}, own, stage="scored", data_seed=seed)
    return found


def costs(record: Record, work: Workload, clients: int, target: float) -> dict[str, float]:
    """What a run takes to the target, infinite if it does not reach it."""
    history = {name: np.asarray(column, float) for name, column in record["history"].items()}
    values = history[work.metric]
    there = values >= target if work.metric.endswith("accuracy") else values <= target
    first = int(there.argmax()) if there.any() else None
    up, down = history["uplink_bits"], history["downlink_bits"]
    spent = {"bits up": up, "bits up + down / 10": up + down / 10}
    whole = {name: column.astype(int) for name, column in history.items() if name in ("round", "iteration")}
    for network in NETWORKS:
        seconds = elapsed(history | whole, NETWORKS[network], clients).seconds.mean(axis=0)
        spent[f"seconds, {network}"] = seconds
    return {name: math.inf if first is None else float(column[first]) for name, column in spent.items()}


def scores(name: str, work: Workload, found: Mapping[str, Sequence[Record]], options) -> dict[str, dict[str, float]]:
    """method -> cost -> its mean over seeds, infinite if a run does not reach the target."""
    problem = cache(lambda seed: work.build(seed, options.shared))  # each seed draws its own data, with its own optimum
    target = cache(lambda s: work.target(problem(s), work.sparsity) if callable(work.target) else work.target)
    clients = problem(1).clients
    table = {}
    for method, own in found.items():
        each = [costs(record, work, clients, target(record["data_seed"])) for record in own]
        table[method] = {cost: float(np.mean([one[cost] for one in each])) if each else math.inf for cost in COSTS}
    return table


COSTS = ("bits up", "bits up + down / 10", *(f"seconds, {network}" for network in NETWORKS))


def lines(name: str, work: Workload, found: Mapping[str, Sequence[Record]], table) -> Iterator[dict[str, str]]:
    """A line a method, the one with the fewest bits up first; those that do not reach the target by their end."""
    sign = -1 if work.metric.endswith("accuracy") else 1

    def order(method: str) -> tuple[float, float]:
        end = np.mean([common.end(r, work.metric) for r in found[method]]) if found[method] else math.nan
        return table[method]["bits up"], sign * end if math.isfinite(end) else math.inf

    for method in sorted(found, key=order):
        own, ends = found[method], [common.end(r, work.metric) for r in found[method]]
        lost = sum(not math.isfinite(value) for value in ends)
        sums = [max(r["history"]["control_sum"]) for r in own if r["history"].get("control_sum")]
        shown = {cost: value if math.isfinite(value) else None for cost, value in table[method].items()}
        yield {
            "method": method,
            "model": shipped(METHODS[method]),
            "stepsize": f"{own[0]['stepsize']:.3g}" if own else "diverged",
            work.metric: f"{lost} of {len(ends)} diverged" if lost else tables.described(ends) if ends else "-",
            **{cost: human(value) for cost, value in shown.items() if cost.startswith("bits")},
            **{
                cost: "-" if value is None else f"{value:.3g}"
                for cost, value in shown.items()
                if cost.startswith("seconds")
            },
            "|sum h|": f"{max(sums):.0e}" if sums else "-",
        }


def ratios(boards: Mapping[str, Mapping[str, Mapping[str, float]]], cost: str) -> dict[str, np.ndarray]:
    """method -> by workload what it takes by what the best takes; infinite where it does not reach the target."""
    methods = next(iter(boards.values()))
    best = [min(own[cost] for own in board.values()) for board in boards.values()]
    return {
        method: np.array(
            [
                board[method][cost] / least if math.isfinite(board[method][cost]) else math.inf
                for board, least in zip(boards.values(), best, strict=True)
            ]
        )
        for method in methods
    }


def overall(boards: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, str]]:
    """A line a method: on how many workloads it reaches the target, and its area under each performance profile."""
    areas = {cost: {m: area(r) for m, r in ratios(boards, cost).items()} for cost in COSTS}
    reached = {m: int(np.isfinite(r).sum()) for m, r in ratios(boards, COSTS[0]).items()}
    return [
        {"method": m, "model": shipped(METHODS[m]), "targets reached": f"{reached[m]} of {len(boards)}"}
        | {cost: f"{areas[cost][m]:.2f}" for cost in COSTS}
        for m in sorted(reached, key=lambda m: -areas[COSTS[0]][m])
    ]


MOST = 100.0
OURS = "sparse_proxskip"


def area(ratio: np.ndarray) -> float:
    """The area under a profile from tau = 1 to ``MOST`` on a logarithmic axis, 1 for who is always best."""
    return float(np.mean(1 - np.log(np.minimum(ratio, MOST)) / np.log(MOST)))


def draw(boards, path: Path, most: int = 8) -> None:
    """The profiles of the methods of the largest areas over all costs and of the paper's, a panel a cost."""
    found = {cost: ratios(boards, cost) for cost in COSTS}
    ranked = sorted(found[COSTS[0]], key=lambda m: -np.mean([area(own[m]) for own in found.values()]))
    shown = list(dict.fromkeys([*ranked[: most - 1], OURS, *ranked]))[:most]
    figure, panels = plt.subplots(1, len(COSTS), figsize=(3.2 * len(COSTS) + 2, 3.6), layout="constrained", sharey=True)
    taus = np.geomspace(1, MOST, 200)
    for axes, cost in zip(panels, COSTS, strict=True):
        for method, colour in zip(shown, COLOURS, strict=True):
            share = [(found[cost][method] <= tau).mean() for tau in taus]
            axes.step(taus, share, where="post", color=colour, label=method)
        axes.set(xscale="log", xlabel="times what the best takes", title=cost, ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share of workloads")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Measure, score, draw."""
    options = common.parse(__doc__, __file__, only={"nargs": "+", "choices": list(WORKLOADS)})
    common.all_cores()
    boards = {}
    for name, work in WORKLOADS.items():
        wanted = not options.only or name in options.only
        if not wanted and not (options.out / f"{name}.txt").is_file():  # what was run before is scored too
            continue
        found = measure(name, work, options)
        boards[name] = scores(name, work, found, options)
        rows = lines(name, work, found, boards[name])
        tables.show(rows, options.out / f"{name}.txt", f"{name}, sparsity {work.sparsity:g}, {work.rounds} rounds")
    sparse = {name: {m: own for m, own in b.items() if shipped(METHODS[m]) == "sparse"} for name, b in boards.items()}
    for file, some, whose in (("scoreboard", boards, ""), ("sparse", sparse, ", of those that ship a sparse model")):
        text = f"Area under the performance profile over {', '.join(boards)}{whose}; 1 is always best"
        tables.show(overall(some), options.out / f"{file}.txt", text)
        draw(some, options.out / f"{file}.png")


if __name__ == "__main__":
    main()
