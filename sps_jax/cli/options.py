"""The options of ``sps-jax run``, collected from the signatures and docstrings of problems and algorithms."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import EllipsisType, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import docstring_parser
import jax

from sps_jax.cli import catalogue
from sps_jax.simulation.hyperparameters import kinds, parameters

SIMPLE = {bool, int, float, str, Path, NoneType, EllipsisType}
"""The types that an option of a function can have, alone or in a tuple or union; other arguments are no options."""
BASELINES = ("sparse_proxskip", "server_pruning", "fedavg_server_pruning", "fedavg_client_pruning", "proxskip")


@dataclasses.dataclass(frozen=True)
class Run:
    """Compare algorithms on a problem; write results, table and plot.

    Attributes:
      problem: name of the problem, `sps-jax list problems` prints them; or FILE.py:NAME, your own function.
      algorithm: names of the algorithms to compare, `sps-jax list algorithms` prints them; or FILE.py:NAME.
      stepsize: step size gamma, or auto: 1/L with the largest L of any client, 0.1 if L is unknown (deep networks).
      prob: probability p of communicating after a local step. Default is 0.1, unless --local-steps is given.
      local_steps: fixed number k of local steps per round, instead of the random coin of --prob.
      sparsity: fraction of the prunable weights set to zero.
      sparsity_rounds: number of rounds T in which the sparsity grows from 0 to --sparsity by the cubic law. Default is
        full sparsity from the start.
      criterion: score that ranks the weights for pruning: magnitude, weight_gradient, random or FILE.py:NAME.
      structure: which weights are kept or pruned together: entries, rows, filters, blocks:RxC, groups:M or N:M
        (blocks:4x4, 2:4).
      scope: which weights compete in the ranking: global, layerwise, or erk (layerwise with Erdos-Renyi-Kernel
        densities).
      prune_leaves: which parameter leaves to prune: names such as kernel or Dense_0/kernel, * as a wildcard, or
        '!first' to prune all weights except those. Default is all weights, without biases and normalisation parameters.
      prune_ends: also prune the first and last layers of a network.
      cohort: number of clients sampled to take part in each round; default is all. With 1, ProxSkip and its variants
        reduce to FedAvg: the average is the client's own message, so control variates never change.
      cohort_by: how the cohort is sampled: uniform, or size (favouring clients with more examples).
      cohort_estimate: how the cohort estimates the mean over all clients, for methods without control variates:
        unbiased (weights divided by the probability of being sampled), or normalised (weights sum to one).
      lose_up: probability that a client's message is lost, or that it drops out after its local steps.
      lose_down: probability that the server's answer to a client is lost.
      burst: mean number of rounds in a row that a link loses; default is independent losses.
      unaware: whether nobody knows of a loss; else a client whose message or answer was lost counts as absent.
      stream: keep all clients' data and state in host memory, and only those of the round's cohort on the devices.
      batch_size: examples per local gradient, or full; the default depends on the problem.
      rounds: number of communication rounds.
      evaluate_every: number of rounds between evaluations.
      seeds: number of consecutive seeds to run; numbers are then means with 95 % t-intervals.
      seed: the first seed, of everything random: data, initial point, batches, coin and cohort.
      data_seed: seed of the data alone (test set, partition, synthetic examples); default is the run's seed.
      clip_norm: norm at which the local direction is clipped, none, or auto: 1 if L is unknown (deep networks), else
        none.
      metric: what the table and the picture compare, your own too; default is test_accuracy, or else train_loss.
      target: value of the metric for the "bits to" column; default is the final value of the weakest run.
      encoding: encoding of the messages whose bits are counted: dense, indices, bitmap, entropy or cheapest.
      precision: float32, float64, or bfloat16 (computations in bfloat16, parameters in float32).
      matmul_precision: precision of float32 products on a GPU or TPU: float32, tensorfloat32 or bfloat16.
      devices: number of devices that share the clients; auto is the largest available number (each CPU core counts as
        one) that divides the number of clients, and --cohort.
      chunk: clients computed at once on a device: a number, all or auto.
      coordinator: host:port of process 0, for a run on several processes; each process uses --devices devices. Or auto,
        without the next two options: what JAX detects of Slurm, Open MPI or Kubernetes.
      num_processes: number of processes, on all hosts together.
      process_id: index of this process, from 0; only process 0 writes results.
      out: output folder, new or empty; default is a new folder under runs/.
      per_client: record at each evaluation how the model serves each client on its own data: quantiles, worst decile
        and variance over clients, as per_client_worst_accuracy and so on (of the loss where there is no accuracy).
      checkpoint_every: number of rounds between checkpoints, from which `sps-jax resume` continues. Default is no
        checkpoints.
      keep: which model to keep in the output folder, for `sps.load_model`: best (by --best-by), last or none.
      stop_at: stop a run at the first evaluation that fulfils a comparison, 'test_accuracy>=0.9'. A run that may stop,
        or keeps its best model, computes at most --evaluate-every rounds (best a divisor of --rounds) at a time.
      patience: stop a run after so many evaluations without a new best one.
      best_by: metric that tells the best evaluation, and the best point of a sweep, your own too, validation_top5;
        default is the first recorded of validation_accuracy, validation_loss, test_accuracy (for evaluations only) and
        train_loss.
      track: send records as they come to tensorboard:DIR, wandb:PROJECT, mlflow:URI or trackio:PROJECT, one or more.
      config: take the options from this config.json of an earlier run, or TOML file; options given here win.
      json: print the summaries as one JSON document on standard output, instead of the table.
      quiet: print only errors on standard error.
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
    lose_up: float = 0.0
    lose_down: float = 0.0
    burst: float | None = None
    unaware: bool = False
    stream: bool = False
    batch_size: str | None = None
    rounds: int = 200
    evaluate_every: int = 1
    seeds: int = 1
    seed: int = 0
    data_seed: int | None = None
    clip_norm: str = "auto"
    metric: str | None = None
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
    per_client: bool = False
    checkpoint_every: int | None = None
    keep: str = "last"
    stop_at: str | None = None
    patience: int | None = None
    best_by: str | None = None
    track: tuple[str, ...] = ()
    config: Path | None = None
    json: bool = False
    quiet: bool = False


@cache
def own_options(makers: tuple[Callable, ...]) -> dict[str, tuple[Any, str]]:
    """Return the options of problems or algorithms that :class:`Run` lacks, as name -> (type, help)."""
    common = {field.name for field in dataclasses.fields(Run)} | {"prune"}
    types: dict[str, Any] = {}
    texts: dict[str, dict[str, list[str]]] = {}  # option -> its words -> those who say them
    for make in makers:
        words = {p.arg_name: p.description for p in docstring_parser.parse(make.__doc__ or "").params}
        for name, p in parameters(make).items():
            kind = kind_of(p)
            if name in common or kind is None:
                continue
            types.setdefault(name, kind)
            default = "required" if p.default is p.empty else p.default
            text = f"{' '.join((words.get(name) or '').split())} [{default}]".strip()
            texts.setdefault(name, {}).setdefault(text, []).append(make.__name__)
    return {
        name: (kind, "; ".join(f"{', '.join(who)}: {text}" for text, who in texts[name].items()))
        for name, kind in types.items()
    }


def kind_of(parameter: inspect.Parameter) -> Any:
    """Return the type of the option that a parameter becomes, None if it becomes none; of a union its simple parts.

    >>> def make(a=0.5, b=2, c=None, d=print, e: str | Callable[[int], int] = "name"): ...
    >>> [kind and kind.__name__ for kind in map(kind_of, inspect.signature(make).parameters.values())]
    ['float', 'int', 'float', None, 'str']
    """
    said, default = parameter.annotation, parameter.default
    if said is parameter.empty or jax.Array in kinds(said):
        found: Any = float if default in (parameter.empty, None) else type(default)
    else:
        found = get_args(said)[0] if get_origin(said) is Annotated else said
    parts = get_args(found) if get_origin(found) in (Union, UnionType) else (found,)
    parts = tuple(part for part in parts if _simple(part))
    return reduce(or_, parts) if set(parts) - {NoneType} else None


def _simple(kind: Any) -> bool:
    parts = get_args(kind)
    return all(map(_simple, parts)) if parts else any(kind is each for each in SIMPLE) or kind is ...


def command_type(settings: Mapping[str, Any] | None = None) -> type:
    """Return :class:`Run` extended by the options of every problem and algorithm, all optional.

    Args:
      settings: settings that may name own functions, whose options are added; see
        :func:`sps_jax.cli.catalogue.makers`.
    """
    own = own_options(catalogue.makers(settings or {}))
    return with_fields("Run", Run, own, [(name, kind | None, None) for name, (kind, _) in own.items()])


def with_fields(name: str, base: type, helps: dict[str, tuple[Any, str]], fields: list[tuple[str, Any, Any]]) -> type:
    """Return a subclass of ``base`` with ``fields`` (name, type, default) added or overridden, and their help."""
    made = dataclasses.make_dataclass(
        name,
        [(field, kind, dataclasses.field(default=default)) for field, kind, default in fields],
        bases=(base,),
        frozen=True,
    )
    lines = [(base.__doc__ or "").rstrip(), *(f"      {field}: {text}" for field, (_, text) in helps.items())]
    made.__doc__ = "\n".join(lines) + "\n"
    return made


def flag(name: str) -> str:
    """Return the command-line flag of the option ``name``: ``--clip-norm`` for ``clip_norm``."""
    return f"--{name.replace('_', '-')}"


def number(option: str, text: str, kind: type, *words: str) -> Any:
    """Return ``text`` as a number, or unchanged if it is one of ``words``."""
    if text in words:
        return text
    try:
        return kind(text)
    except ValueError:
        allowed = " or ".join(map(repr, words))
        raise ValueError(f"--{option} must be a number or {allowed}, not {text!r}") from None
