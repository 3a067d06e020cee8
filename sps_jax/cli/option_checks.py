"""Checks of the options that need no data."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

from sps_jax.cli import own_code
from sps_jax.cli.catalogue import ALGORITHMS, CRITERIA, PROBLEMS, maker, makers
from sps_jax.cli.from_options import lost, sparsifier
from sps_jax.cli.options import Run, flag, number, own_options
from sps_jax.compression import SCOPES
from sps_jax.compression.bits import ENCODINGS
from sps_jax.errors import refuse_unknown
from sps_jax.problems.supervised import PRECISIONS
from sps_jax.runs import trackers
from sps_jax.runs.models import KEEP
from sps_jax.simulation.cohort import BY, ESTIMATES
from sps_jax.simulation.method import MATMUL_PRECISIONS
from sps_jax.simulation.watching import Watch


def check(options: Run) -> None:
    """Raise a ``ValueError`` for a bad name or number, before any data are loaded."""
    check_names(options)
    check_seeds(options)
    if options.data_seed is not None and options.data_seed < 0:
        raise ValueError(f"--data-seed must be at least 0, not {options.data_seed}")
    for name in ("rounds", "evaluate_every", "checkpoint_every"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{flag(name)} must be at least 1, not {getattr(options, name)}")
    if options.cohort is None and (options.cohort_by, options.cohort_estimate) != ("uniform", "unbiased"):
        raise ValueError("--cohort-by and --cohort-estimate need --cohort")
    lost(options)
    if local_steps(options) >= 2**31:
        raise ValueError(f"{local_steps(options):.3g} local steps (rounds / prob) exceed the limit of 2**31")
    for name, value in vars(options).items():
        if isinstance(value, float) and not np.isfinite(value):  # JSON cannot hold it
            raise ValueError(f"{flag(name)} must be finite, not {value}")
    if options.stream and options.cohort is None:
        raise ValueError("--stream needs --cohort: without it all clients are on the devices at once")
    if options.stream and options.coordinator is not None:
        raise ValueError("--stream needs a single process: leave out --coordinator, or --stream")
    refuse_unknown("keep", options.keep, KEEP)
    Watch(None, options.stop_at, options.patience, options.best_by)
    for to in options.track:
        trackers.split(to)
    norm = number("clip-norm", options.clip_norm, float, "none", "auto")
    if isinstance(norm, float) and not 0 < norm < np.inf:
        raise ValueError(f"--clip-norm must be positive and finite, 'none' or 'auto', not {norm:g}")


def local_steps(options: Run) -> float:
    """Return the expected number of local steps per client over all rounds."""
    if options.local_steps is not None:
        return options.rounds * options.local_steps
    return options.rounds / options.prob if options.prob is not None and 0 < options.prob <= 1 else options.rounds


def check_seeds(options: Any) -> None:
    """Raise a ``ValueError`` for a seed outside 32 bits; JAX keeps 32 bits of a seed, so larger ones would repeat."""
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, not {options.seeds}")
    if not 0 <= options.seed <= 2**32 - options.seeds:
        raise ValueError(f"a seed must be from 0 to 2**32 - 1; --seed {options.seed} --seeds {options.seeds} is not")


def check_names(options: Any) -> None:
    """Raise a ``ValueError`` for an unknown name, or for names that do not go together."""
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
    for name, allowed in choices.items():
        refuse_unknown(name, getattr(options, name), allowed)
    sparsifier(options)
    for name in options.algorithm:
        refuse_unknown("algorithm", name, ALGORITHMS)
    if len(set(map(own_code.label, options.algorithm))) < max(1, len(options.algorithm)):
        given = ", ".join(options.algorithm) or "none"
        raise ValueError(f"--algorithm must name at least one algorithm, each only once, not: {given}")


COMMON = {"stepsize": "stepsize", "prob": "prob", "local_steps": "prob", "data_seed": "data_seed"}
COMMON |= {"sparsity": "sparsity", "sparsity_rounds": "sparsity"}
COMMON |= dict.fromkeys(("criterion", "structure", "scope", "prune_leaves", "prune_ends"), "prune")
"""Common options that only some problems or algorithms take -> the parameter by which to recognise those."""


def refuse_strangers(options: Run) -> None:
    """Raise a ``ValueError`` for a given option that neither the problem nor any chosen algorithm takes."""
    used = [PROBLEMS[options.problem], *(ALGORITHMS[name] for name in options.algorithm)]
    used.append(maker("criterion", options.criterion))
    taken = {name for make in used for name in inspect.signature(make).parameters}
    untold = {field.name: {field.default} for field in dataclasses.fields(Run)}
    untold |= {"prob": {None, 1}, "local_steps": {None, 1}}  # 1 is what a method without a coin does
    for name, needed in ({name: name for name in own_options(makers(vars(options)))} | COMMON).items():
        if getattr(options, name) not in untold.get(name, {None}) and needed not in taken:
            chosen = ", ".join(map(own_code.label, [options.problem, *options.algorithm]))
            raise ValueError(f"{flag(name)} is not an option of the chosen problem and algorithms ({chosen})")
