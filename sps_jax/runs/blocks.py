"""Run one algorithm on one problem from one seed in blocks of rounds, with progress, divergence and records."""

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from sps_jax.results.reading import records
from sps_jax.runs.drivers import Driver
from sps_jax.simulation.footprint import footprint
from sps_jax.simulation.history import advance, asked_rounds, diverged_at
from sps_jax.simulation.method import Method
from sps_jax.simulation.placement import summary
from sps_jax.simulation.state import Past, State

Row = dict[str, Any]


def block_length(rounds: int, checkpoint_every: int | None = None, blocks: int = 20) -> int:
    """Return the largest divisor of ``rounds`` that gives at least ``blocks`` blocks (1 if there are fewer rounds).

    It also divides ``checkpoint_every``, if given, so that all blocks have one length and checkpoints end a block.
    """
    common = math.gcd(rounds, checkpoint_every or rounds)
    return next(length for length in range(max(1, rounds // blocks), 0, -1) if common % length == 0)


class Standing(NamedTuple):
    """The complete progress of a run between two blocks, from which it can resume.

    Attributes:
      state: the simulation state; its buffers are donated to the next block.
      past: the rounds done, and the bits sent in them.
      iterations: the iterations done.
      seconds: the seconds spent.
      diverged: the first round whose numbers are not finite, which ended the run; None if it has not diverged.
      stopped: the rule that ended the run early, see :class:`sps_jax.simulation.watching.Watch`; None if none has.
    """

    state: State
    past: Past = Past()
    iterations: int = 0
    seconds: float = 0.0
    diverged: int | None = None
    stopped: str | None = None

    def ended(self, rounds: int) -> bool:
        """Return whether a run of ``rounds`` rounds has ended."""
        return self.past.rounds == rounds or self.diverged is not None or self.stopped is not None


def start_run(method: Method, driver: Driver, key: jax.Array) -> Standing:
    """Return the progress of a run before its first round."""
    return Standing(driver.start(method, key))


def go_on(
    method: Method, driver: Driver, key: jax.Array, start: Standing, *, rounds: int, evaluate_every: int, encoding: str
) -> Iterator[tuple[Standing, list[Row]]]:
    """Run the remaining rounds of ``rounds``, a multiple of the block length, or until the numbers are not finite.

    Yields:
      After each block, the run's progress and the records of the block's evaluations. The seconds of the run include
      the caller's time between two blocks.
    """
    evaluated, began = asked_rounds(rounds, evaluate_every), time.perf_counter() - start.seconds
    progress, run = start, driver.take_up(method, start.state, key, evaluated[start.past.rounds :])
    while progress.past.rounds < rounds and progress.diverged is None:
        block = evaluated[progress.past.rounds :][: driver.length]
        state, metrics = run(block)
        bad = diverged_at(metrics, block)
        done = driver.length if bad is None else bad - 1
        past, iterations, rows = progress.past, progress.iterations, []
        if done:
            metrics = {name: values[:done] for name, values in metrics.items()}
            history, past = advance(metrics, block[:done], driver.shapes, encoding, past)
            iterations, rows = int(metrics["iteration"][-1]), records(history)
        diverged = None if bad is None else past.rounds + 1
        progress = Standing(state, past, iterations, time.perf_counter() - began, diverged)
        yield progress, rows


def summarise(driver: Driver, end: Standing) -> Row:
    """Return the summary of a whole run.

    It has ``rounds``, ``iterations``, ``run_seconds``, ``client_steps_per_second``, ``diverged_at_round`` (None if it
    did not diverge), ``compile_seconds``, the layout and, if a rule ended it early, ``stopped``: that rule.
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
        **({} if end.stopped is None else {"stopped": end.stopped}),
    }


def run_blocks(method: Method, driver: Driver, key: jax.Array, **settings: Any) -> tuple[list[Row], Row]:
    """Run all rounds, and return the records of the evaluations, in order, and the summary of :func:`summarise`.

    Args:
      method, driver, key: the method, its driver and the random key of the run.
      settings: the keyword arguments of :func:`go_on`.
    """
    steps = list(go_on(method, driver, key, start_run(method, driver, key), **settings))
    return [row for _, rows in steps for row in rows], summarise(driver, steps[-1][0])
