"""Sweeps: run many simulations that differ in hyperparameters and seeds, with few compiled programs.

Points with the same static choices, a fixed number of local steps among them, share a program. A device computes
several of them at once, under ``vmap``, if they also communicate at the same iterations: where a coin decides, they
share its probability and seed. Each point therefore gives the result that it would give alone, and no local step is
wasted.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sps_jax.algorithms.base import Algorithm
from sps_jax.errors import described, whole
from sps_jax.layout import Layout, random_key
from sps_jax.problem import Problem
from sps_jax.simulation.choices import Choices, with_shared
from sps_jax.simulation.footprint import Shapes, at_work, footprint, free_memory, shapes
from sps_jax.simulation.history import asked_rounds, healthy_history
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.placement import CACHE, choose
from sps_jax.simulation.simulate import own_padding, run_points


class Outcome(NamedTuple):
    """The result of one point of a sweep.

    Attributes:
      point: the point's hyperparameters and seed, as given.
      history: as from :func:`sps_jax.simulate`, up to the round before divergence.
      diverged_at_round: the round that diverged, or None.
    """

    point: Any
    history: dict[str, np.ndarray]
    diverged_at_round: int | None


class Seeded(NamedTuple):
    """A checked point: a method from :func:`sps_jax.prepare`, and the seed of its random key."""

    method: Method
    seed: int

    @property
    def one_coin(self) -> bool:
        """Whether a coin decides when the clients communicate."""
        return self.method.schedule.local_steps is None

    @property
    def lockstep(self) -> tuple:
        """The values that all points under one ``vmap`` must share, besides a fixed number of local steps."""
        prob = float(self.method.schedule.prob)
        return (prob, self.seed) if self.one_coin else (prob,)


def grid(**values: Any) -> list[dict[str, Any]]:
    """Return all combinations of hyperparameters, as points for :func:`sweep`; the last name varies fastest.

    >>> grid(stepsize=[0.1, 0.2], local_steps=10, seed=range(2))[1]
    {'stepsize': 0.1, 'local_steps': 10, 'seed': 1}

    Raises:
      ValueError: if a hyperparameter has no value.
    """
    several = [_several(name, value) for name, value in values.items()]
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*several)]


def _several(name: str, value: Any) -> list:
    # to iterate over mappings and data frames gives their keys, over sets no fixed order
    if isinstance(value, Mapping | set | frozenset) or hasattr(value, "columns"):
        raise ValueError(f"{name} must be a value, or several in a list, not {described(value)}")
    several = list(value) if np.iterable(value) and not isinstance(value, str | bytes) else [value]
    if not several:
        raise ValueError(f"{name} has no value, so the grid has no points")
    return several


@with_shared()
def sweep(
    make: Callable[..., Algorithm],
    problem: Problem,
    points: Sequence[Mapping[str, Any]],
    *,
    rounds: int,
    evaluate_every: int = 1,
    encoding: str = "cheapest",
    points_chunk: int | None = None,
    **choices: Unpack[Choices],
) -> Iterator[Outcome]:
    """Simulate an algorithm at many points on all devices, each point as :func:`sps_jax.simulate` would.

    Args:
      make: the algorithm's factory, from the table ``ALGORITHMS`` or your own.
      problem: the problem, the same for all points.
      points: a list of dicts of the factory's keyword arguments, plus ``seed`` (0 by default) and, instead of ``prob``,
        ``local_steps``; see :func:`grid`.
      points_chunk: how many points a device computes at once; None to choose by cache and memory.
      rounds, evaluate_every, encoding: as in :func:`sps_jax.simulate`.
      local_steps: k, the fixed number of local steps per round of the points that do not give their own.

    Yields:
      An :class:`Outcome` per point as soon as it is computed, in the order of ``points`` if they all share a program
      and communicate at the same iterations.

    Raises:
      ValueError: if a hyperparameter is unknown, missing or out of range; before anything is computed.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> points = grid(stepsize=[0.25, 0.5], local_steps=2)
      >>> for point, history, diverged_at in sweep(sps.proxskip, quadratic(clients=2, dimension=1), points, rounds=2):
      ...     print(point["stepsize"], history["iteration"].tolist(), diverged_at)
      0.25 [2, 4] None
      0.5 [2, 4] None
    """
    points = _points(points)
    prepared = [_prepare(make, point, problem, **choices) for point in points]
    settings: dict[str, Any] = {"evaluate_every": evaluate_every, "encoding": encoding, "points_chunk": points_chunk}
    outcomes = sweep_prepared(problem, prepared, rounds=rounds, **settings)
    return (outcome._replace(point=points[outcome.point]) for outcome in outcomes)


def _points(points: Any) -> list[Mapping[str, Any]]:
    """Return the points as a list of mappings; reject a data frame and a single point."""
    listed = list(points) if np.iterable(points) and not hasattr(points, "keys") else [points]
    if not listed:
        raise ValueError("there are no points to sweep over")
    strange = [point for point in listed if point is points or not hasattr(point, "keys")]
    if strange:
        allowed = "a list of dicts, as from grid, or from a data frame by to_dict('records')"
        raise ValueError(f"points must be {allowed}, not {described(strange[0])}")
    return listed


def _prepare(
    make: Callable[..., Algorithm], point: Mapping[str, Any], problem: Problem, **choices: Unpack[Choices]
) -> Seeded:
    hyper = dict(point)
    seed = hyper.pop("seed", 0)
    choices["local_steps"] = hyper.pop("local_steps", choices["local_steps"])
    number = whole(seed)
    if number is None or not 0 <= number < 2**32:
        raise ValueError(
            f"seed must be an integer from 0 to 2**32 - 1, because keys are made of 32 bits, not {described(seed)}"
        )
    return Seeded(prepare(make, hyper, problem.ridge.dtype, **choices), number)


def sweep_prepared(
    problem: Problem,
    points: Sequence[Seeded],
    *,
    rounds: int,
    evaluate_every: int,
    encoding: str = "cheapest",
    points_chunk: int | None = None,
) -> Iterator[Outcome]:
    """Sweep over prepared points of any algorithms; an outcome's ``point`` is its index in ``points``."""
    mesh = jax.make_mesh((jax.device_count(),), ("points",), axis_types=(AxisType.Auto,))
    problem = own_padding(jax.device_put(problem, NamedSharding(mesh, PartitionSpec())))
    evaluated, groups = asked_rounds(rounds, evaluate_every), []
    for _, numbers in _grouped(range(len(points)), lambda i: jax.tree.structure(points[i].method)):
        points[numbers[0]].method.check_rounds(rounds)
        specs = shapes(points[numbers[0]].method, problem)
        layout, most = _lay_out(specs, problem, mesh.size, points_chunk)
        groups.append((specs, layout, _lanes(numbers, lambda i: points[i].lockstep, most)))
    return _run(groups, problem, points, mesh, evaluated, encoding)


def _run(
    groups: list[tuple], problem: Problem, points: Sequence[Seeded], mesh: Mesh, evaluated: np.ndarray, encoding: str
) -> Iterator[Outcome]:
    for specs, layout, lanes in groups:
        width, one_coin = max(map(len, lanes)), points[lanes[0][0]].one_coin
        for some in (lanes[i : i + mesh.size] for i in range(0, len(lanes), mesh.size)):
            method, key = _stacked([[points[i] for i in lane] for lane in some], mesh.size, width, one_coin)
            metrics = run_points(method, layout, mesh, one_coin, problem, key, jnp.asarray(evaluated))
            metrics = jax.tree.map(np.asarray, metrics)
            for d, lane in enumerate(some):
                for c, number in enumerate(lane):
                    one = {name: values[d, c] for name, values in metrics.items()}
                    yield Outcome(number, *healthy_history(one, evaluated, specs, encoding))


def _grouped(numbers: Sequence[int], key: Callable[[int], Any]) -> list[tuple[Any, list[int]]]:
    """Group the numbers by key, in the order of each key's first appearance."""
    groups: dict[Any, list[int]] = {}
    for number in numbers:
        groups.setdefault(key(number), []).append(number)
    return list(groups.items())


def _lanes(numbers: Sequence[int], lockstep: Callable[[int], Any], most: int) -> list[list[int]]:
    """Split the points into lanes that a device computes at once: in lockstep, of nearly equal size, up to ``most``."""
    lanes = []
    for _, group in _grouped(numbers, lockstep):
        parts = np.array_split(group, -(-len(group) // most))
        lanes += [part.tolist() for part in parts]
    return lanes


def _lay_out(specs: Shapes, problem: Problem, devices: int, points_chunk: int | None) -> tuple[Layout, int]:
    """Choose the layout of a point's clients on one device, and how many points the device computes at once."""
    if points_chunk is not None and points_chunk < 1:
        raise ValueError(f"points_chunk must be at least 1, not {points_chunk}")
    layout, memory = choose(specs, problem, devices=1), free_memory(devices)
    need = footprint(specs, problem, layout)
    fitting = None if memory is None else (memory - need.data) // (need.total - need.data)
    if points_chunk is not None:
        if fitting is not None and points_chunk > max(1, fitting):
            raise ValueError(f"{points_chunk} points at once do not fit in memory; {max(1, fitting)} would")
        return layout, points_chunk
    most = 2**31 if fitting is None else max(1, fitting)
    if jax.devices()[0].platform == "cpu":
        most = min(
            most, 1 if layout.chunk else max(1, CACHE // ((specs.cohort or problem.clients) * at_work(specs, problem)))
        )
    return layout, most


def _stacked(lanes: list[list[Seeded]], devices: int, width: int, one_coin: bool) -> tuple[Method, jax.Array]:
    """Stack ``method`` and ``key`` for :func:`run_points`, padded by repeating the last point and the last lane."""
    lanes = [lane + lane[-1:] * (width - len(lane)) for lane in lanes]
    lanes += lanes[-1:] * (devices - len(lanes))
    each = _stack([_stack([point.method for point in lane]) for lane in lanes])
    common = _stack([lane[0].method for lane in lanes])
    hyper = each.hyper | {name: value for name, value in common.hyper.items() if name == "prob"}
    seeds = np.array([[p.seed for p in lane] for lane in lanes])
    key = jax.vmap(random_key)(seeds[:, 0]) if one_coin else jax.vmap(jax.vmap(random_key))(seeds)
    return replace(each, hyper=hyper, schedule=common.schedule), key


def _stack(methods: list[Method]) -> Method:
    return jax.tree.map(lambda *numbers: np.stack(numbers), *methods)
