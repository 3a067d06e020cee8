"""Build what the options describe: devices, problem, hyperparameters, sparsifier and transform of the direction."""

import dataclasses
import inspect
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import optax

from sps_jax import tree
from sps_jax.cli.catalogue import ALGORITHMS, PROBLEMS, maker
from sps_jax.cli.options import Run, flag, number
from sps_jax.compression import Sparsifier
from sps_jax.compression.leaves import names
from sps_jax.errors import described
from sps_jax.problem import Problem
from sps_jax.runs import processes
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.host import to_host
from sps_jax.simulation.lost import Lost

HUNDRED_DAYS = 100 * 24 * 3600
"""In seconds."""


def use_devices(options: Run) -> int | None:
    """Set the number of CPU devices in JAX and join the other processes; return the requested number, None for auto.

    Call it before JAX computes anything. A run on several processes uses the devices of all of them.
    """
    asked = number("devices", options.devices, int, "auto")
    count = None if asked == "auto" else asked
    if count is not None and count < 1:
        raise ValueError(f"--devices must be at least 1, or 'auto', not {count}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", count or cores)
    wait_for_late_devices()
    if processes.join(options.coordinator, options.num_processes, options.process_id):
        return jax.device_count()
    return count


def wait_for_late_devices() -> None:
    """Let CPU devices wait for each other for :data:`HUNDRED_DAYS`; XLA's default ends the process after a minute.

    A device falls behind when the machine is busy, the more so at low priority, or when its clients take more steps.
    Call it before JAX computes anything. A limit already in ``XLA_FLAGS`` is kept.
    """
    flags, limit = os.environ.get("XLA_FLAGS", ""), "--xla_cpu_collective_call_terminate_timeout_seconds"
    if limit not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {limit}={HUNDRED_DAYS}".strip()


def build_problem(options: Run, change: Callable[[Problem], Problem] = lambda problem: problem) -> Problem:
    """Build the problem that the options describe for their first seed; with ``--stream`` its data stay on the host.

    Args:
      options: the data are drawn with ``--data-seed``, or else with the seed itself.
      change: what is done to it before it moves to the host.
    """
    make = PROBLEMS[options.problem]
    seed = options.seed if options.data_seed is None else options.data_seed
    chosen = given(dataclasses.replace(options, data_seed=seed), make)
    if "batch_size" in chosen:
        size = number("batch-size", chosen["batch_size"], int, "full")
        chosen["batch_size"] = None if size == "full" else size
    if not options.stream:
        return change(made(make, chosen))
    with jax.default_device(jax.devices("cpu")[0]):
        return to_host(change(made(make, chosen)))


def made(make: Callable, chosen: dict[str, Any]) -> Problem:
    """Return the problem that ``make`` makes.

    Raises:
      ValueError: if it lacks an argument, or returns anything else.
    """
    needed = [name for name, p in inspect.signature(make).parameters.items() if p.default is p.empty]
    if missing := [flag(name) for name in needed if name not in chosen]:
        raise ValueError(f"the problem {make.__name__} needs {' and '.join(missing)}")
    problem = make(**chosen)
    if not isinstance(problem, Problem):
        hint = ": is its `return` missing?" if problem is None else ""
        raise ValueError(f"{make.__name__} must return an sps_jax.Problem, not {described(problem)}{hint}")
    return problem


def given(options: Run, make: Callable) -> dict[str, Any]:
    """Return the options that the user gave and ``make`` takes as parameters."""
    takes = inspect.signature(make).parameters
    return {name: v for name in takes if (v := getattr(options, name, None)) is not None}


def hyperparameters(options: Run, name: str, problem: Problem) -> dict[str, Any]:
    """Return the keyword arguments for algorithm ``name``."""
    make = ALGORITHMS[name]
    hyper = given(options, make)
    stepsize = number("stepsize", options.stepsize, float, "auto")
    if stepsize == "auto":
        stepsize = 0.1 if problem.smoothness is None else _reciprocal(float(problem.smoothness.max()))
    takes = inspect.signature(make).parameters
    if "stepsize" in takes:
        hyper["stepsize"] = stepsize
    if "prob" in takes and options.prob is None and options.local_steps is None:
        hyper["prob"] = 0.1
    if "prune" in takes:
        hyper["prune"] = sparsifier(options)
    if "sparsity" in takes and options.sparsity_rounds is not None:
        hyper["sparsity_rounds"] = options.sparsity_rounds
    return hyper


def _reciprocal(smoothness: float) -> float:
    """Return 1/L, or raise a ``ValueError`` if L is zero: then no step size is preferred."""
    if smoothness <= 0:
        raise ValueError(f"--stepsize auto is 1/L, but L is {smoothness:g}; give --stepsize a number")
    return 1 / smoothness


def sparsifier(options: Run) -> Sparsifier:
    """Return the sparsifier that the options describe."""
    score = maker("criterion", options.criterion)
    return Sparsifier(score(**given(options, score)), options.structure, options.scope, prunable(options))


def prunable(options: Run) -> tuple[str, ...] | None:
    """Return the patterns of pruned leaves for :class:`sps_jax.compression.Sparsifier`; None is its default."""
    ends = () if options.prune_ends else ("!first", "!last")
    return (*options.prune_leaves, *ends) or None


def pruned_leaves(options: Run, problem: Problem) -> dict[str, Any]:
    """Return the names of the pruned leaves, their number of entries, and the number of entries of the model.

    Raises:
      ValueError: if no leaf is pruned, a pattern matches no leaf, or ``--no-prune-ends`` is given for a model of one
        layer.
    """
    params = jax.eval_shape(problem.init, jax.random.key(0))
    if not options.prune_ends and not any({"first", "last"} & set(name.split("/")) for name in names(params)):
        raise ValueError(f"--no-prune-ends needs a network of several layers; {options.problem} has one")
    found = sparsifier(options).leaves(params)
    return {"leaves": list(found), "entries": sum(found.values()), "of": tree.size(params)}


def lost(options: Run) -> Lost | None:
    """Return which messages are lost, None for none.

    Raises:
      ValueError: for a probability or a burst that is none, or options without a loss.
    """
    if not (options.lose_up or options.lose_down):
        if options.burst is not None or options.unaware:
            raise ValueError("--burst and --unaware need --lose-up or --lose-down")
        return None
    return Lost(options.lose_up, options.lose_down, options.burst, known=not options.unaware)


def cohort_of(options: Run, clients: int) -> Cohort | None:
    """Return how the cohort is drawn, None for all clients without losses."""
    losses = lost(options)
    if options.cohort is None and losses is None:
        return None
    return Cohort(options.cohort or clients, options.cohort_by, options.cohort_estimate, losses)


def clip(options: Run, problem: Problem) -> optax.GradientTransformation | None:
    """Return the optax transform of the local direction, None if it is not clipped."""
    norm = number("clip-norm", options.clip_norm, float, "none", "auto")
    if norm == "auto":
        norm = 1.0 if problem.smoothness is None else "none"
    return None if norm == "none" else _clip_at(norm)


@cache
def _clip_at(norm: float) -> optax.GradientTransformation:
    """Return one object per norm: JAX looks compiled programs up by the identity of the transform."""
    return optax.clip_by_global_norm(norm)
