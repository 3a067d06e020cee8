"""Where the rounds of a method are computed: all clients on the devices, or a cohort at a time from the host."""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.layout import Layout, place
from sps_jax.problem import Problem
from sps_jax.simulation.method import Method
from sps_jax.simulation.placement import Shapes, shapes
from sps_jax.simulation.round import State
from sps_jax.simulation.simulate import run_rounds, shard_problem, start_rounds
from sps_jax.simulation.stream import columns, start_streaming, stream_rounds

Run = Callable[[np.ndarray], tuple[State, dict[str, np.ndarray]]]
"""``asked -> state, seen``: the next rounds, as many as ``asked`` has, evaluated where it says so."""


class Driver(NamedTuple):
    """Rounds of one method, in blocks of one length. Methods that differ in numbers alone share a driver.

    Attributes:
      start: ``method, key -> state``, where a simulation begins.
      take_up: ``method, state, key, asked -> run``: the rounds after ``state``, block by block. ``asked`` has all that
        are left, of which each call of ``run`` gets the next.
      length: how many rounds a block has.
      layout: the layout.
      problem: what is simulated, on the devices of the layout or on the host.
      shapes: what clients and server hold.
      compile_seconds: what compilation took; None where the first round compiles.
    """

    start: Callable[[Method, jax.Array], State]
    take_up: Callable[[Method, State, jax.Array, np.ndarray], Run]
    length: int
    layout: Layout
    problem: Problem
    shapes: Shapes
    compile_seconds: float | None


def on_devices(method: Method, layout: Layout, problem: Problem, key: jax.Array, length: int) -> Driver:
    """The driver of clients that are on the devices together; it compiles a block."""
    problem = shard_problem(layout, problem)

    def start(method: Method, key: jax.Array) -> State:
        return start_rounds(method, problem, key, layout=layout)

    state, asked, began = start(method, key), jnp.zeros(length, bool), time.perf_counter()
    compiled = run_rounds.lower(method, layout, problem, state, key, asked).compile()
    seconds = round(time.perf_counter() - began, 3)

    def take_up(method: Method, state: State, key: jax.Array, asked: np.ndarray) -> Run:
        state = state._replace(memory=place(layout, state.memory))

        def run(some: np.ndarray) -> tuple[State, dict[str, np.ndarray]]:
            nonlocal state
            state, seen = compiled(method, problem, state, key, jnp.asarray(some))
            return state, jax.tree.map(np.asarray, seen)

        return run

    return Driver(start, take_up, length, layout, problem, shapes(method, problem), seconds)


def on_host(method: Method, layout: Layout, problem: Problem, length: int) -> Driver:
    """The driver of clients whose data, NumPy arrays, and memory are on the host: see :func:`sps_jax.stream`."""

    def start(method: Method, key: jax.Array) -> State:
        return start_streaming(method, problem, key)

    def take_up(method: Method, state: State, key: jax.Array, asked: np.ndarray) -> Run:
        rounds = stream_rounds(method, layout, problem, key, asked, state)

        def run(some: np.ndarray) -> tuple[State, dict[str, Any]]:
            taken = list(itertools.islice(rounds, len(some)))
            return taken[-1][0], columns([seen for _, seen in taken])

        return run

    return Driver(start, take_up, length, layout, problem, shapes(method, problem), None)
