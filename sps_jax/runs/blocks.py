"""One algorithm on one problem from one seed, in blocks of rounds: progress, divergence, records."""

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from sps_jax.results.reading import records
from sps_jax.runs.drivers import Driver
from sps_jax.simulation.history import Past, asked_rounds, diverged_at, tabulate
from sps_jax.simulation.method import Method
from sps_jax.simulation.placement import footprint, summary
from sps_jax.simulation.round import State

Row = dict[str, Any]


def block_length(rounds: int, checkpoint_every: int | None = None, blocks: int = 20) -> int:
    """The largest divisor of ``rounds`` that makes at least ``blocks`` blocks (1 where there are fewer rounds).

    With ``checkpoint_every`` it divides that too, so that all blocks are of one length and one of them ends there.
    """
    common = math.gcd(rounds, checkpoint_every or rounds)
    return next(length for length in range(max(1, rounds // blocks), 0, -1) if common % length == 0)


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


def start_run(method: Method, driver: Driver, key: jax.Array) -> Standing:
    """Where a run begins."""
    return Standing(driver.start(method, key))


def go_on(
    method: Method, driver: Driver, key: jax.Array, start: Standing, *, rounds: int, evaluate_every: int, encoding: str
) -> Iterator[tuple[Standing, list[Row]]]:
    """Run what is left of ``rounds``, a multiple of the block's, or up to the first whose numbers are not finite.

    Yields:
      After each block where the run is then, and the records of the evaluations in it. The time that the caller takes
      between two blocks counts among the seconds of the run.
    """
    asked, began = asked_rounds(rounds, evaluate_every), time.perf_counter() - start.seconds
    at, run = start, driver.take_up(method, start.state, key, asked[start.past.rounds :])
    while at.past.rounds < rounds and at.diverged is None:
        some = asked[at.past.rounds :][: driver.length]
        state, seen = run(some)
        bad = diverged_at(seen, some)
        done = driver.length if bad is None else bad - 1
        past, iterations, rows = at.past, at.iterations, []
        if done:
            last = np.arange(done) == done - 1  # it is asked for the totals alone where it was not evaluated
            seen = {name: values[:done] for name, values in seen.items()}
            rows = records(tabulate(seen, some[:done] | last, driver.shapes, encoding, past))
            past = Past(past.rounds + done, rows[-1]["uplink_bits"], rows[-1]["downlink_bits"])
            iterations = int(seen["iteration"][-1])
            rows = rows if some[done - 1] else rows[:-1]
        diverged = None if bad is None else past.rounds + 1
        at = Standing(state, past, iterations, time.perf_counter() - began, diverged)
        yield at, rows


def summarise(driver: Driver, end: Standing) -> Row:
    """What is said of a whole run.

    ``rounds``, ``iterations``, ``run_seconds``, ``client_steps_per_second``, ``diverged_at_round`` (None if it did
    not), ``compile_seconds`` and the layout.
    """
    clients = driver.shapes.cohort or driver.problem.clients
    return {
        "rounds": end.past.rounds,
        "iterations": end.iterations,
        "run_seconds": round(end.seconds, 3),
        "client_steps_per_second": round(end.iterations * clients / end.seconds, 1),
        "diverged_at_round": end.diverged,
        "compile_seconds": driver.compile_seconds,
        **summary(driver.layout, footprint(driver.shapes, driver.problem, driver.layout)),
    }


def run_blocks(method: Method, driver: Driver, key: jax.Array, **settings: Any) -> tuple[list[Row], Row]:
    """A run from its first round: the records of its evaluations, in order, and :func:`summarise`'s.

    Args:
      settings: as :func:`go_on` takes them.
    """
    steps = list(go_on(method, driver, key, start_run(method, driver, key), **settings))
    return [row for _, rows in steps for row in rows], summarise(driver, steps[-1][0])
