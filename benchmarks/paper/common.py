"""What the experiments on the paper's questions share: records that a killed script takes up again, choices.

A record is one simulation: its labels, algorithm and point, the round it diverged at, and its history by columns.
"""

import argparse
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.results.files import append_jsonl, read_jsonl

RESULTS = Path("benchmarks/results/paper")
PRUNED = (
    "sparse_proxskip",
    "sparse_proxskip_local",
    "server_pruning",
    "server_pruning_modified",
    "fedavg_server_pruning",
    "fedavg_client_pruning",
)
DENSE = ("proxskip", "fedavg")
POINT = ("stepsize", "local_steps", "prob", "sparsity", "seed")
LITTLE = ("round", "uplink_bits", "validation_accuracy", "test_accuracy", "control_sum")
Record = dict[str, Any]


def parse(doc: str, script: str, **more: dict[str, Any]) -> argparse.Namespace:
    """The common options, and more of them: name -> keyword arguments of ``add_argument``."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared/data"), help="folder of the downloaded data sets"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / Path(script).stem)
    parser.add_argument("--full", action="store_true", help="the full size instead of what fits in half an hour")
    for name, choices in more.items():
        parser.add_argument(f"--{name}", **choices)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def all_cores() -> None:
    """A JAX device for every core; before anything is computed."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count())


def algorithms(*names: str) -> dict[str, Callable[..., sps.Algorithm]]:
    """Those of the table with these names that there are."""
    return {name: sps.ALGORITHMS[name] for name in names if name in sps.ALGORITHMS}


def started(problem: Problem, scale: float) -> Problem:
    """The problem, to be started from ``scale`` times a normal vector."""
    return replace(problem, init=normal(problem.init, scale)) if scale else problem


@cache
def normal(like: Callable, scale: float) -> Callable:
    """A starting point of the shapes of another; equal arguments give the same, so that a program is found again."""

    def init(key):
        return jax.tree.map(lambda a: scale * jax.random.normal(key, a.shape, a.dtype), like(key))

    return init


def collect(
    path: Path,
    problem: Callable[[], Problem],
    makes: Mapping[str, Callable[..., sps.Algorithm]],
    points: Sequence[Mapping[str, Any]] | Callable[[str], Sequence[Mapping[str, Any]]],
    *,
    rounds: int,
    evaluate_every: int,
    points_chunk: int | None = 2,
    keep: Sequence[str] | None = None,
    clip: float | None = None,
    cohort: int | sps.Cohort | None = None,
    **labels: Any,
) -> list[Record]:
    """Records of each algorithm at each point, appended to ``path`` as they come; what is there is not run again.

    Args:
      problem: makes it, at most once, and only if something is to be run.
      makes: name -> algorithm; of a point each is given what it takes.
      points: for all, or name -> points.
      points_chunk: see :func:`sps_jax.sweep`.
      keep: columns of the histories, None for all.
      clip: the norm at which the local direction is clipped, None for no clipping.
      cohort: who takes part, and what is lost; to be told by ``labels``.
      labels: what else tells these records from others of the file.
    """
    labels |= {} if clip is None else {"clip": clip}
    problem, found = cache(problem), {identity(record): record for record in read_jsonl(path)}
    settings = {
        "rounds": rounds,
        "evaluate_every": evaluate_every,
        "transform": clip and optax.clip_by_global_norm(clip),
        "cohort": cohort,
    }
    wanted = []
    for name, make in makes.items():
        own = unique(taken(make, point) for point in (points(name) if callable(points) else points))
        heads = [labels | {"algorithm": name, "rounds": rounds} | point for point in own]
        missing = [point for point, head in zip(own, heads, strict=True) if identity(head) not in found]
        wanted += [identity(head) for head in heads]
        if missing:
            print(f"{path.stem} {labels} {name}: {len(missing)} points", file=sys.stderr, flush=True)
            for point, history, diverged in outcomes(make, problem(), missing, points_chunk, settings):
                head = labels | {"algorithm": name, "rounds": rounds} | point
                record = head | {"diverged_at_round": diverged, "history": columns(history, keep)}
                append_jsonl(path, [record])
                found[identity(head)] = record
    return [found[one] for one in wanted]


def outcomes(make, problem: Problem, points: Sequence[Mapping[str, Any]], chunk: int | None, settings: dict[str, Any]):
    """:func:`sps_jax.sweep`'s; a lone point has all cores to itself, which a sweep would give to copies of it."""
    if len(points) > 1:
        yield from sps.sweep(make, problem, points, points_chunk=chunk, **settings)
        return
    hyper = dict(points[0])
    key, local_steps = jax.random.key(hyper.pop("seed", 0)), hyper.pop("local_steps", None)
    _, history = sps.simulate(make, problem, hyper, key, local_steps=local_steps, **settings)
    bad = ~np.isfinite(history["train_loss"])
    whole = int(bad.argmax()) if bad.any() else len(bad)
    diverged = int(history["round"][whole]) if bad.any() else None
    yield points[0], {name: column[:whole] for name, column in history.items()}, diverged


def identity(record: Mapping[str, Any]) -> str:
    """What tells a record from others."""
    return json.dumps({k: v for k, v in record.items() if k not in ("history", "diverged_at_round")}, sort_keys=True)


def taken(make: Callable, point: Mapping[str, Any]) -> dict[str, Any]:
    """Of a point what an algorithm takes."""
    names = [*inspect.signature(make).parameters, "seed", "local_steps"]
    return {name: value for name, value in point.items() if name in names}


def unique(points: Iterable[dict]) -> list[dict]:
    """Each point once: to a dense method points that differ in sparsity alone are one."""
    return list({json.dumps(point, sort_keys=True): point for point in points}.values())


def columns(history: Mapping[str, np.ndarray], keep: Sequence[str] | None) -> dict[str, list]:
    """A history that JSON can hold, five digits of each float32 number and twelve of a float64 one."""

    def short(column):
        if column.dtype.kind in "iO":
            return column.tolist()
        digits = 5 if column.dtype.itemsize == 4 else 12
        return [float(f"{value:.{digits}g}") for value in column]

    kept = [name for name in history if keep is None or name in keep]
    return {name: short(np.asarray(history[name])) for name in kept}


def rows(record: Record) -> list[dict[str, Any]]:
    """A record's history as a list of evaluations."""
    names = record["history"]
    return [dict(zip(names, row, strict=True)) for row in zip(*names.values(), strict=True)]


def end(record: Record, metric: str) -> float:
    """A metric at the last round, NaN if the run did not get there."""
    return float("nan") if record["diverged_at_round"] else record["history"][metric][-1]


def point_of(record: Record) -> tuple:
    """Its hyperparameters but the seed."""
    return tuple((name, record[name]) for name in POINT if name in record and name != "seed")


def groups(records: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    """Records by key, in the order of first appearance."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found


def best(records: Iterable[Record], metric: str) -> dict[str, list[Record]]:
    """For each algorithm the records of the point whose last ``metric``, mean over the rest, is best.

    Args:
      metric: ``validation_accuracy`` (more is better) or ``validation_loss`` (less is).

    Raises:
      ValueError: for a metric of test data.
    """
    if metric.startswith("test"):
        raise ValueError("a point is not chosen on test data")
    sign = 1 if metric.endswith("accuracy") else -1

    def score(own: list[Record]) -> float:
        value = sign * float(np.mean([end(record, metric) for record in own]))
        return value if np.isfinite(value) else -np.inf

    by_name = groups(records, lambda record: record["algorithm"])
    return {name: max(groups(own, point_of).values(), key=score) for name, own in by_name.items()}


def references(records: Sequence[Record], metric: str) -> dict[str, Record]:
    """Of each centralised reference of ``ceiling.py`` the record of the first split that is best on validation data.

    A run that diverged is none.
    """
    name, pick = f"validation_{metric}", max if metric == "accuracy" else min
    first = (r for r in records if r["data_seed"] == 0 and np.isfinite(r[name]))
    by_method = groups(first, lambda record: record["method"])
    return {method: pick(own, key=lambda record: record[name]) for method, own in by_method.items()}


def on_splits(
    path: Path,
    build: Callable[[int], Problem],
    makes: Mapping[str, Callable[..., sps.Algorithm]],
    grid: Sequence[Mapping[str, Any]],
    splits: int,
    **settings: Any,
) -> list[Record]:
    """Records of each algorithm on all splits, at each sparsity at its point of best mean validation accuracy.

    One split would not do: rounding alone can move the end of a run by a point of accuracy.

    Args:
      path, makes: as in :func:`collect`.
      build: data seed -> problem.
      grid: the points that are tried.
      splits: how many data seeds.
      settings: of :func:`collect`.
    """
    found: list[Record] = []
    for split in range(splits):
        labels = {"stage": "grid", "data_seed": split}
        found += collect(path, partial(build, split), makes, grid, **labels, **settings)
    by_sparsity = groups(found, lambda record: record["sparsity"]).values()
    return [r for own in by_sparsity for chosen in best(own, "validation_accuracy").values() for r in chosen]
