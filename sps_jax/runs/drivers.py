"""Drivers compute the rounds of a method with all clients on the devices, or stream cohorts from the host."""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.layout import Layout, place
from sps_jax.problem import Problem
from sps_jax.simulation.footprint import Shapes, shapes
from sps_jax.simulation.host import columns
from sps_jax.simulation.method import Method
from sps_jax.simulation.simulate import run_rounds, shard_problem, start_rounds
from sps_jax.simulation.state import State
from sps_jax.simulation.stream import start_streaming, stream_rounds

Run = Callable[[np.ndarray], tuple[State, dict[str, np.ndarray]]]
"""``evaluated -> state, metrics``: runs the next R rounds, and evaluates those that ``evaluated`` (R,) selects."""


class Driver(NamedTuple):
    """Runs a method in blocks of one length. Methods that differ only in numbers share a driver.

    Attributes:
      start: ``method, key -> state``, the state before the first round.
      take_up: ``method, state, key, evaluated -> run``: resumes after ``state``. ``evaluated`` covers all remaining
        rounds; each call of ``run`` gets the next block of it.
      length: the number of rounds per block.
      layout: the layout.
      problem: the problem, on the devices of the layout or on the host.
      shapes: the shapes of the clients' and the server's arrays.
      compile_seconds: the compile time; None if the first round compiles.
    """

    start: Callable[[Method, jax.Array], State]
    take_up: Callable[[Method, State, jax.Array, np.ndarray], Run]
    length: int
    layout: Layout
    problem: Problem
    shapes: Shapes
    compile_seconds: float | None


def on_devices(
    method: Method, layout: Layout, problem: Problem, key: jax.Array, length: int, programs: dict | None = None
) -> Driver:
    """Return the driver that keeps all clients on the devices; it compiles one block.

    Args:
      programs: compiled blocks of other drivers, to use where all but numbers is the same; a new one is added.
    """
    problem, programs = shard_problem(layout, problem), {} if programs is None else programs

    def start(method: Method, key: jax.Array) -> State:
        return start_rounds(method, problem, key, layout=layout)

    state, evaluated, began = start(method, key), jnp.zeros(length, bool), time.perf_counter()
    leaves, structure = jax.tree.flatten((method, problem))
    kind = layout, length, structure, tuple((jnp.shape(a), jnp.result_type(a)) for a in leaves)
    if kind not in programs:
        programs[kind] = run_rounds.lower(method, layout, problem, state, key, evaluated).compile()
    compiled = programs[kind]
    seconds = round(time.perf_counter() - began, 3)

    def take_up(method: Method, state: State, key: jax.Array, evaluated: np.ndarray) -> Run:
        state = state._replace(memory=place(layout, state.memory))

        def run(block: np.ndarray) -> tuple[State, dict[str, np.ndarray]]:
            nonlocal state
            state, metrics = compiled(method, problem, state, key, jnp.asarray(block))
            return state, jax.tree.map(np.asarray, metrics)

        return run

    return Driver(start, take_up, length, layout, problem, shapes(method, problem), seconds)


def on_host(method: Method, layout: Layout, problem: Problem, length: int) -> Driver:
    """Return the driver that keeps the clients' data and memory in NumPy arrays; see :func:`sps_jax.stream`."""

    def start(method: Method, key: jax.Array) -> State:
        return start_streaming(method, problem, key)

    def take_up(method: Method, state: State, key: jax.Array, evaluated: np.ndarray) -> Run:
        rounds = stream_rounds(method, layout, problem, key, evaluated, state)

        def run(block: np.ndarray) -> tuple[State, dict[str, Any]]:
            taken = list(itertools.islice(rounds, len(block)))
            return taken[-1][0], columns([metrics for _, metrics in taken])

        return run

    return Driver(start, take_up, length, layout, problem, shapes(method, problem), None)
