"""The options of ``sps-jax sweep``, and the single runs that they describe."""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from tyro.conf import Suppress

from sps_jax.cli.catalogue import ALGORITHMS, PROBLEMS, makers
from sps_jax.cli.option_checks import check_names, check_seeds
from sps_jax.cli.options import Run, command_type, flag, own_options, with_fields
from sps_jax.cli.own_code import label

SPACES: dict[str, Callable[..., np.ndarray]] = {"logspace": np.geomspace, "linspace": np.linspace}
VALIDATION = 0.1
DATA: dict[str, type] = {"clients": int, "dirichlet_alpha": float, "data_seed": int}
"""Settings of the data that take several values in a sweep -> the type of a value."""
OF_RUNS = (
    *("metric", "target", "stop_at", "patience", "checkpoint_every"),
    *("coordinator", "num_processes", "process_id"),
)
"""The options that a sweep lacks."""
APART: dict[str, tuple[Any, str]] = {
    "shard": (str, "i/N, to compute the i-th of N parts of the points, in a folder of its own within --out."),
    "submit": (str, "slurm or local, to run the shards as jobs through submitit; local waits for them."),
    "jobs": (int, "number of shards to submit."),
    "submit_with": (str, "parameters of submitit, NAME=VALUE, such as slurm_partition=gpu or timeout_min=60."),
    "search": (
        str,
        "optuna, to propose --trials points from ranges, such as logspace:first:last, and lists.",
    ),
    "trials": (int, "number of points that --search tries with each algorithm, each with all seeds."),
}
"""The options that only a sweep has, of computing it in parts, and their help."""
MOST = 1_000_000
"""Largest number of points per algorithm, and of values per option."""


def lists(settings: Mapping[str, Any]) -> dict[str, type]:
    """Return the options that take several values in a sweep -> the type of a value."""
    own = {name: kind for name, (kind, _) in own_options(makers(settings, "algorithm")).items() if kind is float}
    return {"stepsize": str, "prob": float, "local_steps": int, "sparsity": float} | own | DATA


def sweep_type(settings: Mapping[str, Any] | None = None) -> type:
    """Return :class:`Run` with lists for hyperparameters: numbers, ``logspace:1e-3:1:7`` or ``linspace:0:1:3``."""
    settings = settings or {}
    own, swept = own_options(makers(settings)), lists(settings)
    several = [(name, tuple[str, ...], ("auto",) if name == "stepsize" else ()) for name in swept]
    single = [(name, kind | None, None) for name, (kind, _) in own.items() if name not in swept]
    others: list[tuple[str, Any, Any]] = [("points_chunk", str, "auto")]
    others += [("chunk", Suppress[str], "auto"), ("devices", Suppress[str], "auto")]
    others += [("stream", Suppress[bool], False), ("keep", Suppress[str], "none"), ("track", Suppress[tuple], ())]
    others += [("shard", str | None, None), ("submit", str | None, None), ("jobs", int | None, None)]
    others += [("submit_with", tuple[str, ...], ()), ("search", str | None, None), ("trials", int | None, None)]
    others += [(name, Suppress[None], None) for name in OF_RUNS]  # type: ignore[misc]  # an alias of Annotated
    helps = (
        own
        | APART
        | {
            "points_chunk": (str, "number of points that a device computes at once, or auto."),
            "validation": (float, f"fraction of each client's examples held out for choosing points. [{VALIDATION}]"),
        }
    )
    made = with_fields("Sweep", Run, helps, [*several, *single, *others])
    doc = (made.__doc__ or "").replace(
        "Compare algorithms on a problem; write results, table and plot.",
        "Run or continue all combinations of hyperparameters and seeds.",
    )
    ways = (
        "one or more values, as for every hyperparameter: numbers, logspace:first:last:count, linspace:first:last:count"
    )
    made.__doc__ = doc.replace("stepsize: step size", f"stepsize: {ways}; step size")
    return made


def completed(options: Any) -> Any:
    """Return the options, with the default ``validation`` if none is given and the problem takes it.

    Raises:
      ValueError: for an unknown name or an invalid seed.
    """
    check_names(options)
    check_seeds(options)
    if options.validation is None and "validation" in inspect.signature(PROBLEMS[options.problem]).parameters:
        return dataclasses.replace(options, validation=VALIDATION)
    return options


def points(options: Any) -> list[tuple[str, Run]]:
    """Return the single runs of a sweep, each as an algorithm and its options for one seed.

    Raises:
      ValueError: for a value that is not a number, several values for an option of the problem that is not in
        :data:`DATA`, an option that neither the problem nor any chosen algorithm takes, or more than :data:`MOST`
        points per algorithm.
    """
    made, of_problem = command_type(vars(options)), set(inspect.signature(PROBLEMS[options.problem]).parameters)
    takes = {name: taken_by(name) | of_problem for name in options.algorithm}
    several = {option: values(option, getattr(options, option), kind) for option, kind in lists(vars(options)).items()}
    for option, chosen in several.items():
        if option in of_problem - DATA.keys() and len(chosen) > 1:
            raise ValueError(f"{flag(option)} is an option of the problem {options.problem}: give one value")
        if chosen and not any(option in each for each in takes.values()):
            names = ", ".join(map(label, [options.problem, *takes]))
            raise ValueError(f"{flag(option)} is not an option of the chosen problem and algorithms ({names})")
    defaults = {field.name: field.default for field in dataclasses.fields(made)}
    common = {name: getattr(options, name) for name in defaults}
    found = []
    most = options.seeds * math.prod(len(chosen) or 1 for chosen in several.values())
    if most > MOST:
        raise ValueError(f"a sweep has at most {MOST:,} points per algorithm, not {most:,}")
    for name in options.algorithm:
        grid = [(option in takes[name] and chosen) or [defaults[option]] for option, chosen in several.items()]
        for *point, seed in itertools.product(*grid, range(options.seed, options.seed + options.seeds)):
            own = dict(zip(several, point, strict=True)) | {"algorithm": (name,), "seed": seed, "seeds": 1}
            found.append((name, made(**common | own)))
    return found


def taken_by(name: str) -> set[str]:
    """Return the options of an algorithm; only one that takes ``prob`` takes ``local_steps``."""
    takes = set(inspect.signature(ALGORITHMS[name]).parameters)
    return takes | {"local_steps"} if "prob" in takes else takes


def values(option: str, texts: Iterable[str], kind: type) -> list[Any]:
    """Return the values in ``texts``, in order: numbers, ``logspace:first:last:count`` and ``linspace:...``.

    Raises:
      ValueError: for any other text.
    """
    found = []
    for text in texts:
        way, *ends = text.split(":")
        try:
            if way in SPACES and ends:
                first, last, count = float(ends[0]), float(ends[1]), int(ends[2])
                if not (1 <= count <= MOST and math.isfinite(first) and math.isfinite(last)):
                    raise ValueError
                found += [kind(float(v)) for v in SPACES[way](first, last, count)]
            else:
                found.append(text if kind is str else kind(text))
        except (ValueError, IndexError):
            ways = " or ".join(f"{way}:first:last:count" for way in SPACES)
            raise ValueError(f"{flag(option)} must be numbers or {ways}, not {text!r}") from None
    return found
