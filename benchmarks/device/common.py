"""What the parts share: their settings, a clock, and one compiled program of rounds."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sps_jax import Layout, Method, Problem, State
from sps_jax.layout import random_key
from sps_jax.simulation.simulate import run_rounds, shard_problem, start_rounds

REPEATS = 3
Record = dict[str, Any]


class Settings(NamedTuple):
    """How the parts run.

    Attributes:
      small: whether all of it is shrunken, as a test of the command.
      torch: the interpreter that has torch.
      cifar: the folder with CIFAR-10's archive; None for random images.
    """

    small: bool = False
    torch: str = sys.executable
    cifar: str | None = None


def spent(run: Callable[[], Any]) -> float:
    """Seconds of one call, its result awaited."""
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


def timed(run: Callable[[], Any], repeats: int = REPEATS) -> Record:
    """The seconds of ``repeats`` calls and their median, after one that pays for compilation."""
    first, *seconds = [spent(run) for _ in range(1 + repeats)]
    return {"median_seconds": statistics.median(seconds), "seconds": seconds, "first_seconds": first}


def attempted(what: Record, measure: Callable[[], Record]) -> Record:
    """``what`` and what ``measure`` finds, or why the device would not: most often its memory is too small."""
    try:
        return what | measure()
    except jax.errors.JaxRuntimeError as error:
        return what | {"failed": str(error).splitlines()[0]}


def relative_gap(value: float, reference: float) -> float:
    """``|value - reference| / |reference|``."""
    return abs(value - reference) / abs(reference)


def with_gaps(records: list[Record], tolerance: float) -> list[Record]:
    """The records with the relative gap of their ``final_loss`` to the first that has one, and whether it holds."""
    losses = [one["final_loss"] for one in records if "final_loss" in one]
    return [
        one | {"loss_gap": (gap := relative_gap(one["final_loss"], losses[0])), "holds": gap <= tolerance}
        if "final_loss" in one
        else one
        for one in records
    ]


def run(problem: Problem, method: Method, layout: Layout, rounds: int, repeats: int = REPEATS) -> tuple[Record, State]:
    """Blocks of ``rounds`` rounds, one after another in one compiled program: seconds of a block, and the last state.

    The first block warms up, ``repeats`` are timed, and one more is evaluated.
    """
    key, nothing = random_key(0), jnp.zeros(rounds, bool)
    problem = shard_problem(layout, problem)
    state = jax.block_until_ready(start_rounds(method, problem, key, layout=layout))
    begun = time.perf_counter()
    program = run_rounds.lower(method, layout, problem, state, key, nothing).compile()
    compiled, seconds = time.perf_counter() - begun, []
    for _ in range(1 + repeats):
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(program(method, problem, state, key, nothing))
        seconds.append(time.perf_counter() - begun)
    state, metrics = program(method, problem, state, key, nothing.at[-1].set(True))
    return {
        "median_seconds": statistics.median(seconds[1:]),
        "seconds": seconds[1:],
        "compile_seconds": compiled,
        "final_loss": float(metrics["train_loss"][-1]),
    } | work(program), state


def work(program: jax.stages.Compiled) -> Record:
    """Gigabytes of a program's temporaries, where the backend tells them."""
    memory = program.memory_analysis()
    return {} if memory is None else {"work_gigabytes": memory.temp_size_in_bytes / 1e9}


def peak() -> Record:
    """The most gigabytes that this process has held on the device so far; nothing where the device does not count."""
    stats = jax.devices()[0].memory_stats() or {}
    return {"peak_gigabytes": stats["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in stats else {}
