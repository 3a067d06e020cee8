"""What of the options can be judged before anything is loaded."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

from sps_jax.algorithms import ALGORITHMS
from sps_jax.cli.from_options import sparsifier
from sps_jax.cli.options import MAKERS, Run, number, own_options
from sps_jax.compression import CRITERIA, SCOPES
from sps_jax.compression.bits import ENCODINGS
from sps_jax.errors import unknown
from sps_jax.problems import PROBLEMS
from sps_jax.problems.supervised import PRECISIONS
from sps_jax.simulation.cohort import BY, ESTIMATES
from sps_jax.simulation.method import MATMUL_PRECISIONS


def check(options: Run) -> None:
    """Raise a ``ValueError`` for names and numbers that can be judged before anything is loaded."""
    check_names(options)
    check_seeds(options)
    for name in ("rounds", "evaluate_every", "checkpoint_every"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(options, name)}")
    if options.cohort is None and (options.cohort_by, options.cohort_estimate) != ("uniform", "unbiased"):
        raise ValueError("--cohort-by and --cohort-estimate are for runs with a --cohort")
    if local_steps(options) >= 2**31:
        raise ValueError(f"{local_steps(options):.3g} local steps (rounds / prob) are more than can be counted, 2**31")
    for name, value in vars(options).items():
        if isinstance(value, float) and not np.isfinite(value):  # no file of results could hold it
            raise ValueError(f"{name} must be finite, not {value}")
    if options.stream and options.cohort is None:
        raise ValueError("--stream is for runs with a --cohort: without one all clients are on the devices at once")
    if options.stream and options.coordinator is not None:
        raise ValueError("--stream is for a run on one process; with several, each has its own clients' data alone")
    norm = number("clip-norm", options.clip_norm, float, "none", "auto")
    if isinstance(norm, float) and not 0 < norm < np.inf:
        raise ValueError(f"clip_norm must be positive and finite, 'none' or 'auto', not {norm:g}")


def local_steps(options: Run) -> float:
    """How many local steps of a client are to be expected in all rounds."""
    if options.local_steps is not None:
        return options.rounds * options.local_steps
    return options.rounds / options.prob if options.prob is not None and 0 < options.prob <= 1 else options.rounds


def check_seeds(options: Any) -> None:
    """Raise a ``ValueError`` for seeds that are none; JAX's keys are made of 32 bits, the others would be repeated."""
    if options.seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {options.seeds}")
    if not 0 <= options.seed <= 2**32 - options.seeds:
        raise ValueError(f"a seed must be from 0 to 2**32 - 1; {options.seeds} from {options.seed} on are not")
    if (getattr(options, "data_seed", None) or 0) < 0:
        raise ValueError(f"data_seed must not be negative, not {options.data_seed}")


def check_names(options: Any) -> None:
    """Raise a ``ValueError`` for a name that is in no table, or names that do not go together."""
    choices: dict[str, Iterable[str]] = {
        "problem": PROBLEMS,
        "criterion": CRITERIA,
        "scope": SCOPES,
        "encoding": ENCODINGS,
        "cohort_by": BY,
        "cohort_estimate": ESTIMATES,
        "precision": PRECISIONS,
        "matmul_precision": MATMUL_PRECISIONS,
    }
    for name, allowed in (choices).items():
        if getattr(options, name) not in allowed:
            raise unknown(name, getattr(options, name), allowed)
    sparsifier(options)
    for name in options.algorithm:
        if name not in ALGORITHMS:
            raise unknown("algorithm", name, ALGORITHMS)
    if len(set(options.algorithm)) < max(1, len(options.algorithm)):
        raise ValueError(f"name each algorithm once, and at least one: {', '.join(options.algorithm) or 'none given'}")


COMMON = {"prob": "prob", "local_steps": "prob", "sparsity": "sparsity", "sparsity_rounds": "sparsity"}
COMMON |= dict.fromkeys(("criterion", "structure", "scope", "prune_leaves", "prune_ends"), "prune")
"""The common options that not every algorithm has, and the parameter of those that do."""


def refuse_strangers(options: Run) -> None:
    """Raise for an option that was given, and that neither the problem nor any of the algorithms has."""
    used = [PROBLEMS[options.problem], *(ALGORITHMS[name] for name in options.algorithm)]
    taken = {name for make in used for name in inspect.signature(make).parameters}
    untold = {field.name: {field.default} for field in dataclasses.fields(Run)}
    untold |= {"prob": {None, 1}, "local_steps": {None, 1}}  # what a method without a coin does
    for name, needed in ({name: name for name in own_options(MAKERS)} | COMMON).items():
        if getattr(options, name) not in untold.get(name, {None}) and needed not in taken:
            chosen = ", ".join([options.problem, *options.algorithm])
            raise ValueError(f"--{name.replace('_', '-')} is an option of none of {chosen}")
