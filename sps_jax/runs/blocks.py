"""One algorithm on one problem from one seed, in blocks of rounds: progress, divergence, records."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.layout import Plan, place
from sps_jax.problem import Problem
from sps_jax.results.reading import records
from sps_jax.simulation.history import Past, asked_rounds, diverged_at, tabulate
from sps_jax.simulation.method import Method
from sps_jax.simulation.placement import Shapes, footprint, shapes, summary
from sps_jax.simulation.round import State
from sps_jax.simulation.simulate import placed, run_rounds, start_rounds
from sps_jax.simulation.stream import columns, start_streaming, stream_rounds

Row = dict[str, Any]


def block_length(rounds: int, checkpoint_every: int | None = None, blocks: int = 20) -> int:
    """The largest divisor of ``rounds`` that makes at least ``blocks`` blocks (1 where there are fewer rounds).

    With ``checkpoint_every`` it divides that too, so that all blocks are of one length and one of them ends there.
    """
    common = math.gcd(rounds, checkpoint_every or rounds)
    return next(length for length in range(max(1, rounds // blocks), 0, -1) if common % length == 0)


class Block(NamedTuple):
    """Some rounds, compiled.

    Attributes:
      run: (method, problem, state, key, asked) -> state, seen, as :func:`sps_jax.simulation.simulate.run_rounds`; None
        where the clients' data and memory stay on the host.
      plan: the layout it is compiled for.
      problem: what is simulated, on the devices of the plan.
      shapes: what clients and server hold.
      length: how many rounds.
      compile_seconds: what compilation took; None where the first round compiles.
    """

    run: Callable | None
    plan: Plan
    problem: Problem
    shapes: Shapes
    length: int
    compile_seconds: float | None


class Standing(NamedTuple):
    """Where a run is between two blocks: all there is to know to go on.

    Attributes:
      state: of the simulation; the next block takes its memory over.
      past: the rounds done and the bits sent.
      iterations: done in them.
      seconds: that they took.
      diverged: the first round whose numbers are not finite, which ended the run; None while there is none.
    """

    state: State
    past: Past = Past()
    iterations: int = 0
    seconds: float = 0.0
    diverged: int | None = None


def compile_blocks(
    method: Method,
    plan: Plan,
    problem: Problem,
    key: jax.Array,
    rounds: int,
    evaluate_every: int,
    checkpoint_every: int | None = None,
    streamed: bool = False,
) -> Block:
    """The :class:`Block` of a method (from :func:`sps_jax.prepare`).

    Where ``streamed`` the data of ``problem`` are NumPy arrays.
    """
    of = shapes(method, problem)
    length = block_length(rounds, checkpoint_every)
    if streamed:
        return Block(None, plan, problem, of, length, None)
    asked = jnp.asarray(asked_rounds(rounds, evaluate_every)[:length])
    problem = placed(plan, problem)
    state = start_rounds(method, problem, key, plan=plan)
    began = time.perf_counter()
    run = run_rounds.lower(method, plan, problem, state, key, asked).compile()
    return Block(run, plan, problem, of, length, round(time.perf_counter() - began, 3))


def start_run(method: Method, block: Block, key: jax.Array) -> Standing:
    """Where a run begins."""
    if block.run is None:
        return Standing(start_streaming(method, block.problem, key))
    return Standing(start_rounds(method, block.problem, key, plan=block.plan))


def go_on(
    method: Method, block: Block, key: jax.Array, start: Standing, *, rounds: int, evaluate_every: int, encoding: str
) -> Iterator[tuple[Standing, list[Row]]]:
    """Run what is left of ``rounds``, a multiple of the block's, or up to the first whose numbers are not finite.

    Yields:
      After each block where the run is then, and the records of the evaluations in it. The time that the caller takes
      between two blocks counts among the seconds of the run.
    """
    asked, began, problem = asked_rounds(rounds, evaluate_every), time.perf_counter() - start.seconds, block.problem
    at, run = start, block.run
    if run is None:
        run = streaming(method, block, key, start, asked)
    else:
        at = start._replace(state=start.state._replace(memory=place(block.plan, start.state.memory)))
    while at.past.rounds < rounds and at.diverged is None:
        some = asked[at.past.rounds :][: block.length]
        state, seen = run(method, problem, at.state, key, jnp.asarray(some))
        seen = jax.tree.map(np.asarray, seen)
        bad = diverged_at(seen, some)
        done = block.length if bad is None else bad - 1
        past, iterations, rows = at.past, at.iterations, []
        if done:
            last = np.arange(done) == done - 1  # it is asked for the totals alone where it was not evaluated
            seen = {name: values[:done] for name, values in seen.items()}
            rows = records(tabulate(seen, some[:done] | last, block.shapes, encoding, past))
            past = Past(past.rounds + done, rows[-1]["uplink_bits"], rows[-1]["downlink_bits"])
            iterations = int(seen["iteration"][-1])
            rows = rows if some[done - 1] else rows[:-1]
        diverged = None if bad is None else past.rounds + 1
        at = Standing(state, past, iterations, time.perf_counter() - began, diverged)
        yield at, rows


def streaming(method: Method, block: Block, key: jax.Array, start: Standing, asked: np.ndarray) -> Callable:
    """What a :class:`Block` runs, for clients on the host: the next so many rounds after ``start``, call by call."""
    rounds = stream_rounds(method, block.plan, block.problem, key, asked[start.past.rounds :], start.state)

    def run(method: Method, problem: Problem, state: State, key: jax.Array, some: jax.Array) -> tuple:
        taken = list(itertools.islice(rounds, len(some)))
        return taken[-1][0], columns([seen for _, seen in taken])

    return run


def summarise(block: Block, end: Standing) -> Row:
    """What is said of a whole run.

    ``rounds``, ``iterations``, ``run_seconds``, ``client_steps_per_second``, ``diverged_at_round`` (None if it did
    not), ``compile_seconds`` and the layout.
    """
    return {
        "rounds": end.past.rounds,
        "iterations": end.iterations,
        "run_seconds": round(end.seconds, 3),
        "client_steps_per_second": round(
            end.iterations * (block.shapes.cohort or block.problem.clients) / end.seconds, 1
        ),
        "diverged_at_round": end.diverged,
        "compile_seconds": block.compile_seconds,
        **summary(block.plan, footprint(block.shapes, block.problem, block.plan)),
    }


def run_blocks(method: Method, block: Block, key: jax.Array, **settings: Any) -> tuple[list[Row], Row]:
    """A run from its first round: the records of its evaluations, in order, and :func:`summarise`'s.

    Args:
      settings: as :func:`go_on` takes them.
    """
    steps = list(go_on(method, block, key, start_run(method, block, key), **settings))
    return [row for _, rows in steps for row in rows], summarise(block, steps[-1][0])
