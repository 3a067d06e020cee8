"""One algorithm on one problem from one seed, in blocks of rounds: progress, divergence, records."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.plan import Plan
from sps_jax.planning import Shapes, footprint, shapes, summary
from sps_jax.problem import Problem
from sps_jax.results import records
from sps_jax.simulation import asked_rounds, diverged_at, healthy_history, lay_out, run_rounds, start_rounds

Row = dict[str, Any]


def block_length(rounds: int, blocks: int = 20) -> int:
    """The largest divisor of ``rounds`` that makes at least ``blocks`` blocks (1 where there are fewer rounds)."""
    return next(length for length in range(max(1, rounds // blocks), 0, -1) if rounds % length == 0)


class Block(NamedTuple):
    """Some rounds, compiled.

    Attributes:
      run: (problem, hyper, schedule, state, key, asked) -> state, seen, as :func:`sps_jax.simulation.run_rounds`.
      plan: the layout it is compiled for.
      problem: what is simulated, on the devices of the plan.
      shapes: what clients and server hold.
      length: how many rounds.
      compile_seconds: what compilation took.
    """

    run: Callable
    plan: Plan
    problem: Problem
    shapes: Shapes
    length: int
    compile_seconds: float


def compile_blocks(prepared: tuple, plan: Plan, problem: Problem, key: jax.Array, rounds: int, evaluate_every: int):
    """The :class:`Block` of ``prepared`` (from :func:`sps_jax.hyperparameters.prepare`)."""
    setup, hyper, schedule = prepared
    of = shapes(setup, hyper, problem)
    length = block_length(rounds)
    asked = jnp.asarray(asked_rounds(rounds, evaluate_every)[:length])
    problem, state = lay_out(plan, problem, start_rounds(setup, problem, hyper, key))
    began = time.perf_counter()
    run = run_rounds.lower(setup, plan, problem, hyper, schedule, state, key, asked).compile()
    return Block(run, plan, problem, of, length, round(time.perf_counter() - began, 3))


def run_blocks(
    prepared: tuple,
    block: Block,
    key: jax.Array,
    *,
    rounds: int,
    evaluate_every: int,
    encoding: str,
    progress: Callable[[int], Any],
) -> tuple[list[Row], Row]:
    """Run all rounds, or up to the first whose numbers are not finite.

    Args:
      rounds: a multiple of the block's.
      progress: called with the number of rounds just done.

    Returns:
      The records of the evaluations, in order, and a summary: ``rounds``, ``iterations``, ``run_seconds``,
      ``client_steps_per_second``, ``diverged_at_round`` (None if it did not), ``compile_seconds`` and the layout.
    """
    setup, hyper, schedule = prepared
    problem = block.problem
    asked, length = asked_rounds(rounds, evaluate_every), block.length
    _, state = lay_out(block.plan, problem, start_rounds(setup, problem, hyper, key))
    blocks, began = [], time.perf_counter()
    for first in range(0, rounds, length):
        some = asked[first : first + length]
        state, seen = block.run(problem, hyper, schedule, state, key, jnp.asarray(some))
        blocks.append(jax.tree.map(np.asarray, seen))
        progress(length)
        if diverged_at(blocks[-1], some) is not None:
            break
    seconds = time.perf_counter() - began
    seen = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    history, diverged = healthy_history(seen, asked[: len(seen["iteration"])], block.shapes, encoding)
    done = len(seen["iteration"]) if diverged is None else diverged - 1
    iterations = int(seen["iteration"][done - 1]) if done else 0
    totals = {
        "rounds": done,
        "iterations": iterations,
        "run_seconds": round(seconds, 3),
        "client_steps_per_second": round(iterations * (block.shapes.cohort or problem.clients) / seconds, 1),
        "diverged_at_round": diverged,
        "compile_seconds": block.compile_seconds,
        **summary(block.plan, footprint(block.shapes, problem, block.plan)),
    }
    return records(history), totals
