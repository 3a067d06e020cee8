"""One size for the data of several seeds: padded to it, they share compiled programs.

Clients of a skewed partition differ in size from seed to seed, and so does what is held out of them. Padding of the
clients changes no more than last bits of their losses; that of held-out examples changed none on a CPU. With it
``sps-jax run --seeds 3`` compiled for 49 s instead of 139 s, on two busy CPU cores.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sps_jax.cli.catalogue import PROBLEMS, maker
from sps_jax.cli.from_options import build_problem
from sps_jax.cli.options import Run
from sps_jax.problem import Problem
from sps_jax.simulation.stacking import lengthened

Sizes = Mapping[str, int]
"""``data`` and the held-out parts of a problem -> the number of their rows, padding included."""
HELD = ("test", "validation")
SKEWED = ("dirichlet", "few_labels", "quantity")
"""Partitions whose clients' sizes are drawn."""


def sizes(problem: Problem) -> Sizes:
    """Return the sizes of a problem.

    >>> from sps_jax.problems import quadratic
    >>> sizes(quadratic(clients=3))
    {'data': 1}
    """
    held = {part: rows for part in HELD if (rows := getattr(problem, part)) is not None}
    return {"data": problem.data[0].shape[1]} | {part: len(rows[0]) for part, rows in held.items()}


def common(found: Iterable[Sizes]) -> Sizes:
    """Return the largest of each size that differs between problems; nothing if none does.

    >>> common([{"data": 5, "test": 9}, {"data": 7, "test": 9}]), common([])
    ({'data': 7}, {})
    """
    several = list(found)
    names = several[0] if several else ()
    return {name: max(own) for name in names if len(own := {each[name] for each in several}) > 1}


def padded(problem: Problem, to: Sizes) -> Problem:
    """Return the problem with each part that is in ``to`` padded to so many rows, by its first one."""
    held = {part: getattr(problem, part) for part in HELD if part in to}
    counts = {part: jnp.asarray(len(rows[0]), jnp.int32) for part, rows in held.items()}
    longer: dict[str, Any] = {part: _lengthened(rows, to[part]) for part, rows in held.items()}
    data = lengthened(problem.data, to.get("data", 0))
    return dataclasses.replace(problem, data=data, held_counts=counts or None, **longer)


def _lengthened(rows: tuple[jax.Array, ...], to: int) -> tuple[jax.Array, ...]:
    """Return (m, ...) padded to (to, ...), as the data of one client."""
    return tuple(a[0] for a in lengthened(tuple(a[None] for a in rows), to))


def redrawn(options: Run) -> bool:
    """Return whether each of several seeds draws its own data; a problem without a seed's parameter draws none."""
    drawn = {"data_seed", "seed"} & inspect.signature(PROBLEMS[options.problem]).parameters.keys()
    return options.seeds > 1 and options.data_seed is None and bool(drawn)


def of_seeds(options: Run) -> Sizes:
    """Return what the problems of all seeds are to be padded to, at the price of building each of them twice."""
    default = inspect.signature(maker("problem", options.problem)).parameters.get("partition")
    how = getattr(options, "partition", None) or (default and default.default)
    if not redrawn(options) or how not in SKEWED:
        return {}
    seeds = range(options.seed, options.seed + options.seeds)
    return common(sizes(build_problem(dataclasses.replace(options, seed=seed))) for seed in seeds)


def built(options: Run, to: Sizes) -> Problem:
    """Return the problem that the options describe for their first seed, padded; see :func:`build_problem`."""
    return build_problem(options, lambda problem: padded(problem, to))
