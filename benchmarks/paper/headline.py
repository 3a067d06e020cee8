"""The paper's first experiments: which method wins at equal sparsity, and with how many bits?

``python benchmarks/paper/headline.py --only blog_feedback``, ``femnist_digits`` or ``femnist_all`` (all three without
``--only``), about 6, 10 and 8 minutes of processor time. Every method has the same grid of step sizes and numbers of
local steps; its point is the one that is best on validation data of the first split at the last round of a short run,
and is then run long on several splits, the first among them, where test data are looked at for the first time. With
full gradients, fixed local steps and a start at zero nothing but the split is random. ``--full``: longer runs, finer
grids, more splits, and all methods and numbers of local steps for the 62 classes. Findings:
``benchmarks/results/README.md``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import common
import tables
from common import DENSE, PRUNED, Record

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.problems import blog_feedback, femnist
from sps_jax.results.files import read_jsonl
from sps_jax.results.plots import Look, curves
from sps_jax.results.reading import human

BASELINES = ("server_pruning", "fedavg_server_pruning", "fedavg_client_pruning")

FEW = ("sparse_proxskip", *BASELINES)


@dataclass(frozen=True)
class Experiment:
    """One of the three.

    Attributes:
      build: data_seed -> problem, and the folder of its data.
      stepsizes: of the grid; multiples of 1/L of the worst client where ``relative``.
      short, long: rounds of the grid and of the chosen points.
      splits: data seeds of the chosen points.
      methods: that are compared.
    """

    build: Callable[..., Problem]
    folder: str
    sparsity: float
    metric: str
    stepsizes: Sequence[float]
    local_steps: Sequence[int]
    short: int
    long: int
    splits: int
    relative: bool = False
    methods: Sequence[str] = (*PRUNED, *DENSE)


def experiments(full: bool) -> dict[str, Experiment]:
    """As published, but for what is not known: step sizes, local steps, rounds."""
    hundred = {"clients": 100, "validation": 0.1}
    return {
        "blog_feedback": Experiment(
            partial(blog_feedback, **hundred),
            folder="blogfeedback",
            sparsity=0.9,
            metric="loss",
            stepsizes=(0.5, 1.0, 1.9),
            relative=True,
            local_steps=(5, 10, 20),
            short=1000 if full else 200,
            long=1000 if full else 500,
            splits=5 if full else 2,
        ),
        "femnist_digits": Experiment(
            partial(femnist, **hundred),
            folder="femnist",
            sparsity=0.99,
            metric="accuracy",
            stepsizes=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if full else (0.5, 1.0, 2.0, 4.0),
            local_steps=(5, 10, 20),
            short=200 if full else 60,
            long=200,
            splits=5 if full else 2,
        ),
        "femnist_all": Experiment(
            partial(femnist, classes="all", **hundred),
            folder="femnist",
            sparsity=0.99,
            metric="accuracy",
            stepsizes=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if full else (0.5, 1.0, 2.0, 4.0),
            local_steps=(5, 10, 20) if full else (10,),
            short=60 if full else 25,
            long=200 if full else 60,
            splits=3 if full else 1,
            methods=(*PRUNED, *DENSE) if full else FEW,
        ),
    }


def measure(name: str, one: Experiment, options) -> dict[str, list[Record]]:
    """For each algorithm the records of its chosen point, long, on all splits."""
    makes = common.algorithms(*one.methods)

    @cache
    def build(split):
        return one.build(data_seed=split, manual_dir=str(options.shared / one.folder))

    unit = 1.0
    if one.relative:
        unit = 1 / float(build(0).smoothness.max())
    grid = sps.grid(
        stepsize=[round(unit * g, 9) for g in one.stepsizes], local_steps=list(one.local_steps), sparsity=one.sparsity
    )
    path = options.out / f"{name}.jsonl"
    settings: dict[str, Any] = {"rounds": one.short, "evaluate_every": max(1, one.short // 20), "points_chunk": 2}
    tuned = common.collect(path, partial(build, 0), makes, grid, stage="grid", data_seed=0, **settings)
    chosen = {m: own[0] for m, own in common.best(tuned, f"validation_{one.metric}").items()}
    points = {m: [{k: r[k] for k in common.POINT if k in r}] for m, r in chosen.items()}
    found: list[Record] = []
    settings |= {"rounds": one.long, "evaluate_every": max(1, one.long // 100), "points_chunk": 1}
    for split in range(one.splits):
        labels = {"stage": "chosen", "data_seed": split}
        found += common.collect(path, partial(build, split), makes, points.__getitem__, **labels, **settings)
    return common.groups(found, lambda record: record["algorithm"])


def centralised(name: str, metric: str) -> Iterator[dict[str, str]]:
    """A line a reference of ``ceiling.py`` that has been run, all examples in one place: the ceiling of the table."""
    records = read_jsonl(common.RESULTS / "ceiling" / f"{name}.jsonl")
    for method, chosen in common.references(records, metric).items():
        own = [r[f"test_{metric}"] for r in records if (r["method"], r["point"]) == (method, chosen["point"])]
        yield {"method": f"centralised {method}", "runs": str(len(own)), f"test_{metric}": tables.described(own)}


def fewer_bits(chosen: Mapping[str, Sequence[Record]], metric: str):
    """A line a baseline: the bits to the level it ends at, its own and those of ``sparse_proxskip``."""
    ours = chosen["sparse_proxskip"]
    for name in [name for name in (*BASELINES, *DENSE) if name in chosen]:
        pairs = [(own, mine, common.end(own, metric)) for own, mine in zip(chosen[name], ours, strict=True)]
        own = [tables.bits([a], metric, level) for a, _, level in pairs]
        mine = [tables.bits([b], metric, level) for _, b, level in pairs]
        reached = None not in mine
        yield {
            "baseline": name,
            f"its {metric}": tables.described([level for *_, level in pairs]),
            "its bits to it": human(sum(own) / len(own)),
            "sparse_proxskip's": human(sum(mine) / len(mine)) if reached else "not reached",
            "times fewer": ", ".join(f"{a / b:.1f}" for a, b in zip(own, mine, strict=True)) if reached else "-",
        }


def masks(chosen: Mapping[str, Sequence[Record]]):
    """A line a method that prunes: how many coordinates the average has for each one a client sends, by round."""
    for name in [name for name in PRUNED if name in chosen]:
        history = chosen[name][0]["history"]
        spread = [a / b for a, b in zip(history["average_density"], history["density"], strict=True)]
        places = {history["round"][i]: spread[i] for i in (0, len(spread) // 2, len(spread) - 1)}
        yield {"method": name} | {f"after {r}": f"{value:.2f}" for r, value in places.items()}


def at_bits(chosen: Mapping[str, Sequence[Record]], metric: str, budgets: Sequence[float]):
    """A line a method: the metric of the first split at the last evaluation within each budget of uplink bits."""
    for name, own in chosen.items():
        rows = common.rows(own[0])
        within = [[row[metric] for row in rows if row["uplink_bits"] <= budget] for budget in budgets]
        cells = [f"{values[-1]:.4f}" if values else "-" for values in within]
        yield {"method": name} | dict(zip(map(human, budgets), cells, strict=True))


def main() -> None:
    """Measure, and write tables and pictures."""
    options = common.parse(__doc__, __file__, only={"nargs": "+", "choices": list(experiments(False))})
    common.all_cores()
    for name, one in experiments(options.full).items():
        if options.only and name not in options.only:
            continue
        chosen = measure(name, one, options)
        metric = f"test_{one.metric}"
        ends = [common.end(record, metric) for record in chosen["fedavg_client_pruning"]]
        level = float(f"{sum(ends) / len(ends):.3g}")
        lines, ratios = list(tables.method_rows(chosen, metric, level)), fewer_bits(chosen, metric)
        lines += [dict.fromkeys(lines[0], "-") | line for line in centralised(name, one.metric)]
        tables.show(lines, options.out / f"{name}.txt", f"{name}, sparsity {one.sparsity:g}, {one.long} rounds")
        tables.show(
            ratios, options.out / f"{name}_bits.txt", "Uplink bits to the level a baseline ends at, mean and by split"
        )
        tables.show(masks(chosen), options.out / f"{name}_masks.txt", "Nonzeros of the average by those of the model")
        most = max(common.end(record, "uplink_bits") for record in chosen["sparse_proxskip"])
        budgets = [most / 10, most / 3, most, 10 * most]
        tables.show(
            at_bits(chosen, metric, budgets), options.out / f"{name}_budgets.txt", f"{metric} within uplink bits"
        )
        runs = {m: [common.rows(record) for record in own] for m, own in chosen.items()}
        title, look = f"{name}, sparsity {one.sparsity:g}", Look(band="range")  # of two splits an interval tells little
        curves(runs, metric, "uplink_bits", title, options.out / f"{name}.png", look)


if __name__ == "__main__":
    main()
