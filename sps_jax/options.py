"""The options of ``sps-jax run``, from the signatures and docstrings of problems and algorithms, and their checks."""

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import docstring_parser
import jax
import numpy as np
import optax

from sps_jax import processes
from sps_jax.algorithms import ALGORITHMS
from sps_jax.algorithms.base import Scalar
from sps_jax.cohort import BY
from sps_jax.communication import ENCODINGS
from sps_jax.errors import unknown
from sps_jax.problem import Problem
from sps_jax.problems import PROBLEMS
from sps_jax.problems.supervised import PRECISIONS
from sps_jax.sparsify import CRITERIA, SCOPES, Sparsifier, inner_matrices, matrices
from sps_jax.streaming import on_host

MAKERS = (*PROBLEMS.values(), *ALGORITHMS.values())
BASELINES = ("sparse_proxskip", "server_pruning", "fedavg_server_pruning", "fedavg_client_pruning", "proxskip")


@dataclasses.dataclass(frozen=True)
class Run:
    """Compare algorithms on a problem: a table, a picture, files.

    Attributes:
      problem: name of the problem.
      algorithm: names of the algorithms.
      stepsize: gamma, or auto: 1/L of the worst client, 0.1 where L is not known (deep networks).
      prob: p, probability of communicating after a step. Default 0.1, unless --local-steps is given.
      local_steps: k, fixed number of local steps instead of the coin.
      sparsity: fraction of the prunable weights set to zero.
      sparsity_rounds: T, the sparsity grows from 0 in so many rounds, by the cubic law. Default is none.
      criterion: what weights are ranked by: magnitude, weight_gradient or random.
      structure: what stays together: entries, rows, filters, blocks:RxC, groups:M or N:M (blocks:4x4, 2:4).
      scope: of the ranking: global, layerwise, or erk (layerwise with Erdos-Renyi-Kernel densities).
      prune_ends: whether the first and the last layer of a network are pruned too.
      cohort: clients that take part in a round, drawn for it; default is all.
      cohort_by: how they are drawn: uniform, or size (of their data).
      stream: keep clients' data and memory in the host's memory, and on the devices those of a round's cohort alone.
      batch_size: examples of a local gradient, or full; default is the problem's own.
      rounds: communications.
      evaluate_every: rounds from one evaluation to the next.
      seeds: how many seeds.
      seed: the first of them.
      clip_norm: clip the local direction at this norm; none; or auto, 1 where L is not known (deep networks).
      target: accuracy (or train loss) for the column of bits; default is what the weakest method reaches.
      encoding: of the messages: dense, indices, bitmap, entropy or cheapest.
      precision: float32, float64, or bfloat16 to compute in it with float32 parameters.
      devices: how many share the clients; auto for as many as there are (the cores of a CPU) and divide the clients.
      chunk: clients computed at once on a device: a number, all or auto.
      coordinator: host:port of process 0, for a run on several processes; each has --devices.
      num_processes: how many, on all hosts together.
      process_id: which of them this is, from 0; only process 0 writes.
      out: output folder, new or empty; default is a fresh one under runs/.
      checkpoint_every: rounds from one checkpoint to the next; `sps-jax resume` goes on from the last. Default is none.
      json: one JSON document of the summaries on standard output, instead of the table.
      quiet: nothing on standard error but errors.
    """

    problem: str = "digits"
    algorithm: tuple[str, ...] = BASELINES
    stepsize: str = "auto"
    prob: float | None = None
    local_steps: int | None = None
    sparsity: float = 0.9
    sparsity_rounds: int | None = None
    criterion: str = "magnitude"
    structure: str = "entries"
    scope: str = "global"
    prune_ends: bool = True
    cohort: int | None = None
    cohort_by: str = "uniform"
    stream: bool = False
    batch_size: str | None = None
    rounds: int = 200
    evaluate_every: int = 1
    seeds: int = 1
    seed: int = 0
    clip_norm: str = "auto"
    target: float | None = None
    encoding: str = "cheapest"
    precision: str = "float32"
    devices: str = "auto"
    chunk: str = "auto"
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    out: Path | None = None
    checkpoint_every: int | None = None
    json: bool = False
    quiet: bool = False


@cache
def own_options(makers: tuple[Callable, ...]) -> dict[str, tuple[Any, str]]:
    """Options that problems or methods have beside the common ones: name -> (type, help)."""
    common = {field.name for field in dataclasses.fields(Run)} | {"prune"}
    found: dict[str, tuple[Any, list[str]]] = {}
    for make in makers:
        words = {p.arg_name: p.description for p in docstring_parser.parse(make.__doc__ or "").params}
        for name, p in inspect.signature(make).parameters.items():
            if name in common:
                continue
            kind = type(p.default) if p.annotation in (p.empty, Scalar) else p.annotation
            text = f"{make.__name__}: {' '.join((words.get(name) or '').split())} [{p.default}]"
            found.setdefault(name, (kind, []))[1].append(text)
    return {name: (kind, "; ".join(texts)) for name, (kind, texts) in found.items()}


def command_type() -> type:
    """:class:`Run` with the own options of every problem and algorithm, all optional."""
    own = own_options(MAKERS)
    return with_fields("Run", Run, own, [(name, kind | None, None) for name, (kind, _) in own.items()])


def with_fields(name: str, base: type, helps: dict[str, tuple[Any, str]], fields: list[tuple[str, Any, Any]]) -> type:
    """``base`` with more fields (name, type, default), or others in place of its own, and their help."""
    made = dataclasses.make_dataclass(
        name,
        [(field, kind, dataclasses.field(default=default)) for field, kind, default in fields],
        bases=(base,),
        frozen=True,
    )
    lines = [(base.__doc__ or "").rstrip(), *(f"      {field}: {text}" for field, (_, text) in helps.items())]
    made.__doc__ = "\n".join(lines) + "\n"
    return made


def check(options: Run) -> None:
    """Raise a ``ValueError`` for names and numbers that can be judged before anything is loaded."""
    check_names(options)
    check_seeds(options)
    for name in ("rounds", "evaluate_every", "checkpoint_every"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(options, name)}")
    if options.cohort is None and options.cohort_by != "uniform":
        raise ValueError("--cohort-by is for runs with a --cohort")
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
    }
    for name, allowed in (choices | {"cohort_by": BY, "precision": PRECISIONS}).items():
        if getattr(options, name) not in allowed:
            raise unknown(name, getattr(options, name), allowed)
    sparsifier(options)
    for name in options.algorithm:
        if name not in ALGORITHMS:
            raise unknown("algorithm", name, ALGORITHMS)
    if len(set(options.algorithm)) < max(1, len(options.algorithm)):
        raise ValueError(f"name each algorithm once, and at least one: {', '.join(options.algorithm) or 'none given'}")


def given(options: Run, make: Callable) -> dict[str, Any]:
    """The options that ``make`` takes and the user gave."""
    takes = inspect.signature(make).parameters
    return {name: v for name in takes if (v := getattr(options, name, None)) is not None}


def refuse_strangers(options: Run) -> None:
    """Raise for an own option that neither the problem nor any of the algorithms has."""
    used = [PROBLEMS[options.problem], *(ALGORITHMS[name] for name in options.algorithm)]
    for name in own_options(MAKERS):
        if getattr(options, name) is not None and not any(name in inspect.signature(make).parameters for make in used):
            chosen = ", ".join([options.problem, *options.algorithm])
            raise ValueError(f"--{name.replace('_', '-')} is an option of none of {chosen}")
    if options.sparsity_rounds is not None and not any(
        "sparsity" in inspect.signature(make).parameters for make in used
    ):
        raise ValueError(f"--sparsity-rounds is for a method with a sparsity, none of {', '.join(options.algorithm)}")


def number(option: str, text: str, kind: type, *words: str) -> Any:
    """``text`` as a number, or as it is where it is one of ``words``."""
    if text in words:
        return text
    try:
        return kind(text)
    except ValueError:
        allowed = " or ".join(map(repr, words))
        raise ValueError(f"--{option} must be a number or {allowed}, not {text!r}") from None


def use_devices(options: Run) -> int | None:
    """Tell JAX how many devices to make of a CPU; returns how many are asked for, None for auto.

    To be called before anything is computed. Of several processes, which meet here, all devices are asked for.
    """
    asked = number("devices", options.devices, int, "auto")
    count = None if asked == "auto" else asked
    if count is not None and count < 1:
        raise ValueError(f"devices must be at least 1, or 'auto', not {count}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", count or cores)
    if processes.join(options.coordinator, options.num_processes, options.process_id):
        return jax.device_count()
    return count


def build_problem(options: Run) -> Problem:
    """The problem that the options describe."""
    make = PROBLEMS[options.problem]
    chosen = given(options, make)
    if "batch_size" in chosen:
        size = number("batch-size", chosen["batch_size"], int, "full")
        chosen["batch_size"] = None if size == "full" else size
    if not options.stream:
        return make(**chosen)
    with jax.default_device(jax.devices("cpu")[0]):
        return on_host(make(**chosen))


def hyperparameters(options: Run, name: str, problem: Problem) -> dict[str, Any]:
    """The keyword arguments of algorithm ``name``."""
    make = ALGORITHMS[name]
    hyper = given(options, make)
    stepsize = number("stepsize", options.stepsize, float, "auto")
    if stepsize == "auto":
        stepsize = 0.1 if problem.smoothness is None else 1 / float(problem.smoothness.max())
    hyper["stepsize"] = stepsize
    takes = inspect.signature(make).parameters
    if "prob" in takes and options.prob is None and options.local_steps is None:
        hyper["prob"] = 0.1
    if "prune" in takes:
        hyper["prune"] = sparsifier(options)
    if "sparsity" in takes and options.sparsity_rounds is not None:
        hyper["sparsity_rounds"] = options.sparsity_rounds
    return hyper


def sparsifier(options: Run) -> Sparsifier:
    """What the options prune by."""
    return Sparsifier(options.criterion, options.structure, options.scope, prunable(options))


def prunable(options: Run) -> Callable[[tuple, jax.Array], bool]:
    """Which leaves are pruned, as :class:`sps_jax.sparsify.Sparsifier` asks for."""
    return matrices if options.prune_ends else inner_matrices


def pruned_leaves(options: Run, problem: Problem) -> dict[str, Any]:
    """What of the model is pruned: the names of its leaves, and their and all entries.

    Raises:
      ValueError: where first and last layer are to stay dense and are all there is.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(problem.init, jax.random.key(0)))
    if not options.prune_ends and all(inner_matrices(path, leaf) for path, leaf in leaves if matrices(path, leaf)):
        raise ValueError(f"--no-prune-ends is for networks of several layers; {options.problem} has one")
    chosen = [(path, leaf) for path, leaf in leaves if prunable(options)(path, leaf)]
    return {
        "leaves": [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in chosen],
        "entries": sum(leaf.size for _, leaf in chosen),
        "of": sum(leaf.size for _, leaf in leaves),
    }


def clip(options: Run, problem: Problem) -> optax.GradientTransformation | None:
    """The transform of the local direction."""
    norm = number("clip-norm", options.clip_norm, float, "none", "auto")
    if norm == "auto":
        norm = 1.0 if problem.smoothness is None else "none"
    return None if norm == "none" else _clip_at(norm)


@cache
def _clip_at(norm: float) -> optax.GradientTransformation:
    """The same object for the same norm: part of what a compiled program is found again by."""
    return optax.clip_by_global_norm(norm)
