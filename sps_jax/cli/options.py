"""The options of ``sps-jax run``, from the signatures and docstrings of problems and algorithms."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import docstring_parser

from sps_jax.algorithms import ALGORITHMS
from sps_jax.algorithms.base import Scalar
from sps_jax.problems import PROBLEMS

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
      prune_leaves: which leaves are pruned: names such as kernel or Dense_0/kernel, * for anything, or '!first' for all
        weights but these. Default is all weights, neither biases nor norms.
      prune_ends: whether the first and the last layer of a network are pruned too.
      cohort: clients that take part in a round, drawn for it; default is all. With 1, ProxSkip and its kin are FedAvg:
        the average is the client's own message, and control variates never move.
      cohort_by: how they are drawn: uniform, or size (of their data).
      cohort_estimate: of the mean over all clients by a cohort, for methods without control variates: unbiased (weights
        divided by the probability of being drawn), or normalised (they add up to one).
      stream: keep clients' data and memory in the host's memory, and on the devices those of a round's cohort alone.
      batch_size: examples of a local gradient, or full; default is the problem's own.
      rounds: communications.
      evaluate_every: rounds from one evaluation to the next.
      seeds: how many seeds.
      seed: the first of them.
      clip_norm: clip the local direction at this norm; none; or auto, 1 where L is not known (deep networks).
      target: accuracy (or train loss) for the column of bits; default is what the weakest run has at its end.
      encoding: of the messages: dense, indices, bitmap, entropy or cheapest.
      precision: float32, float64, or bfloat16 to compute in it with float32 parameters.
      matmul_precision: what a GPU or TPU computes products of float32 numbers in: float32, tensorfloat32 or bfloat16.
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
    prune_leaves: tuple[str, ...] = ()
    prune_ends: bool = True
    cohort: int | None = None
    cohort_by: str = "uniform"
    cohort_estimate: str = "unbiased"
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
    matmul_precision: str = "float32"
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


def number(option: str, text: str, kind: type, *words: str) -> Any:
    """``text`` as a number, or as it is where it is one of ``words``."""
    if text in words:
        return text
    try:
        return kind(text)
    except ValueError:
        allowed = " or ".join(map(repr, words))
        raise ValueError(f"--{option} must be a number or {allowed}, not {text!r}") from None
