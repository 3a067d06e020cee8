"""``sps-jax sweep``: run every combination of hyperparameters and seeds; an interrupted sweep can be continued.

    sps-jax sweep --algorithm sparse_proxskip server_pruning --stepsize logspace:0.1:10:5 --sparsity 0.9 0.95 \\
                  --seeds 3 --rounds 100 --evaluate-every 10 --out results
    sps-jax table results
    sps-jax plot results --against uplink_bits
    sps-jax plot results --heat stepsize sparsity

Every combination of step size, probability or number of local steps, sparsity and seed is a point. The points share as
few compiled programs as possible, the devices share the points, and each device computes several at once if that is
faster (``--points-chunk``). A tenth of each client's examples is held out (``--validation``); ``table`` and ``plot``
show each algorithm at the point that is best on these examples, never on test data; ``--best-by validation_top5`` names
a metric of your own. To continue a killed sweep, start it again with the same ``--out``. A point that diverges is
recorded; it does not fail the sweep.

A seed draws the data too, unless ``--data-seed`` is given. ``--clients``, ``--dirichlet-alpha`` and ``--data-seed``
also take several values; ``table`` and ``plot`` compare the algorithms at each of them separately. Seeds share compiled
programs: their data are padded to one size (:mod:`sps_jax.cli.padding`).
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from sps_jax import results
from sps_jax.cli import own_code
from sps_jax.cli.drawing import Drawn
from sps_jax.cli.from_options import pruned_leaves, use_devices
from sps_jax.cli.job import configuration, keep_compiled, prepare_algorithm
from sps_jax.cli.option_checks import check, refuse_strangers
from sps_jax.cli.options import Run, number
from sps_jax.cli.run import folder_named
from sps_jax.cli.search import search, searched_by
from sps_jax.cli.shards import part, placed, submit
from sps_jax.cli.sweep_options import completed, points
from sps_jax.problem import Problem
from sps_jax.results import files
from sps_jax.results.statistics import unmoved
from sps_jax.runs import console
from sps_jax.simulation.sweep import Outcome, Seeded
from sps_jax.simulation.watching import measured

LAYOUT = ("points_chunk", "out", "manual_dir", "data_dir")
"""Settings that may differ when a sweep is continued: they change no result."""


def sweep(options: Any) -> int:
    """Run the points that the output folder does not have yet; return the exit status."""
    options = completed(options)
    if options.submit is not None:
        points(options)  # a wrong option is an error here and now
        return submit(options)
    if options.search is not None:
        return report(options, search(options, compute))
    return report(options, compute(placed(options), points(options)))


def compute(options: Any, runs: list[tuple[str, Run]], more: int = 0) -> Path:
    """Run the points that the output folder does not have yet; return the folder.

    Args:
      options: the sweep's options.
      runs: its points; a shard computes its part of them.
      more: the number of points that another call adds.
    """
    for _, one in runs:
        check(one)
    refuse_strangers(dataclasses.replace(runs[0][1], algorithm=options.algorithm))
    size = number("points-chunk", options.points_chunk, int, "auto")
    jax.config.update("jax_enable_x64", options.precision == "float64")
    use_devices(options)
    keep_compiled()
    console.doing(f"loading {options.problem}")
    drawn = Drawn([one for _, one in runs])
    first = drawn.problem(0)
    if options.best_by is not None:
        results.criterion(measured(first), options.best_by)
    config = configuration(options) | searched_by(options) | {"pruned": pruned_leaves(runs[0][1], first)}
    config["clients"] = first.clients
    seeded = drawn.measured(lambda i, problem: _prepared(runs[i], problem))
    with contextlib.ExitStack() as stack:
        begun = options.out is not None and (options.out / "config.json").is_file()
        if begun:
            stack.enter_context(_alone(options.out))
        done = _finished(options.out, config, len(runs) + more) if begun else set()
        mine = part(options.shard, len(runs))
        left = {i: seeded[i] for i in mine if i not in done}
        settings = {name: getattr(options, name) for name in ("rounds", "evaluate_every", "encoding")}
        outcomes = drawn.outcomes(left, settings | {"points_chunk": None if size == "auto" else size})
        out = _taken_up(options.out, done) if begun else _begin(options, config)
        if not begun:
            stack.enter_context(_alone(out))
        console.doing("")
        with console.progress(len(mine), len(mine) - len(left), "point") as bar:
            bar.set_description("compiling")
            for outcome in outcomes:
                number_of = outcome.point
                _append(out, _names(number_of, runs[number_of], seeded[number_of], drawn.several), outcome)
                bar.set_description(runs[number_of][0], refresh=False)
                bar.update()
    return out


def report(options: Any, out: Path) -> int:
    """Say how many points a folder has, and which seeds changed nothing; return the exit status."""
    summaries = files.read_jsonl(out / "summary.jsonl")
    for sentence in unmoved(_by_seed(_records(out))):
        console.say(f"sps-jax: {sentence}")
    diverged = sum(summary["diverged_at_round"] is not None for summary in summaries)
    if options.json:
        print(json.dumps({"results": str(out), "summaries": summaries}, indent=2, allow_nan=False))
    console.say(f"{len(summaries)} points, of which {diverged} diverged. Results: {out}")
    return 0


def _prepared(run: tuple[str, Run], problem: Problem) -> Seeded:
    name, one = run
    return Seeded(prepare_algorithm(one, name, problem), one.seed)


def _alone(out: Path) -> contextlib.AbstractContextManager[None]:
    return files.locked(out, out / "config.json")


def _names(number_of: int, run: tuple[str, Run], point: Seeded, several: Iterable[str]) -> dict[str, Any]:
    """Return the fields that identify a point in each of its records; ``several`` are the data settings that differ."""
    name, one = run
    names = {"point": number_of, "algorithm": own_code.label(name), "problem": own_code.label(one.problem)}
    names |= {"seed": one.seed} | ({"auto_stepsize": True} if one.stepsize == "auto" else {})
    return names | {name: getattr(one, name) for name in several} | point.method.recorded()


def _append(out: Path, names: dict[str, Any], outcome: Outcome) -> None:
    """Append the records of a point, then its summary: a point without a summary counts as not run."""
    files.append_jsonl(out / "metrics.jsonl", [names | record for record in results.records(outcome.history)])
    files.append_jsonl(out / "summary.jsonl", [names | {"diverged_at_round": outcome.diverged_at_round}])


def _begin(options: Any, config: dict[str, Any]) -> Path:
    out = files.new_folder(folder_named(options))
    files.write_json(out / "config.json", config)
    return out


def _finished(out: Path, config: dict[str, Any], points: int) -> set[int]:
    """Return the indices of the points, out of ``points``, whose summary and last record the folder ``out`` has.

    Raises:
      ValueError: if the folder holds another sweep, or is damaged.
    """
    begun = files.read_config(out / "config.json")
    own_code.refuse_changed(begun.get("sources", {}))
    before = begun["settings"]
    if begun.get("search") != config.get("search"):
        raise ValueError(f"the folder {out} holds a search by {begun.get('search')}, now {config.get('search')}")
    now = json.loads(json.dumps(config["settings"]))
    other = [name for name in now if name not in LAYOUT and before.get(name) != now[name]]
    if other:
        name = other[0]
        raise ValueError(
            f"the folder {out} holds a sweep with other settings: {name} was {before.get(name)!r}, now {now[name]!r}; "
            "give another --out"
        )
    summaries = files.read_jsonl(out / "summary.jsonl", ("point", "diverged_at_round"))
    done = [summary["point"] for summary in summaries]
    if len(set(map(str, done))) < len(done) or not all(type(point) is int and 0 <= point < points for point in done):
        raise ValueError(f"{out / 'summary.jsonl'} is damaged: it must have each of {points} points at most once")
    ends = {row["point"] for row in _records(out) if row["round"] == now["rounds"]}
    return {one["point"] for one in summaries if one["diverged_at_round"] is not None or one["point"] in ends}


def _records(out: Path) -> list[dict[str, Any]]:
    return files.read_jsonl(out / "metrics.jsonl", ("point", "round"))


def _by_seed(records: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the records of each algorithm and seed, without the number of the point, which differs by seed."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in records:
        bare = {name: value for name, value in record.items() if name != "point"}
        found.setdefault((record["algorithm"], record["seed"]), []).append(bare)
    return {run: sorted(own, key=json.dumps) for run, own in found.items()}  # points end in no fixed order


def _taken_up(out: Path, done: set[int]) -> Path:
    """Return the folder, after removing the points whose records are incomplete."""
    for path, rows in (
        (out / "summary.jsonl", files.read_jsonl(out / "summary.jsonl")),
        (out / "metrics.jsonl", _records(out)),
    ):
        files.write_jsonl(path, [row for row in rows if row["point"] in done])
    return out
