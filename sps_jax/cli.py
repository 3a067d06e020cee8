"""The command line ``sps-jax``: options from the signatures and docstrings of problems and algorithms."""

import dataclasses
import datetime
import inspect
import platform
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import docstring_parser
import jax
import numpy as np
import optax
import tyro
from tqdm import tqdm

from sps_jax import plotting, results
from sps_jax.algorithms import ALGORITHMS
from sps_jax.communication import ENCODINGS
from sps_jax.errors import unknown
from sps_jax.experiment import compile_blocks, run_blocks
from sps_jax.hyperparameters import prepare
from sps_jax.problems import PROBLEMS
from sps_jax.sparsify import SCOPES, make_topk

BASELINES = ("sparse_proxskip", "server_pruning", "fedavg_server_pruning", "fedavg_client_pruning", "proxskip")


@dataclasses.dataclass(frozen=True)
class Run:
    """Run algorithms on a problem and compare them: a table, a picture, and result files.

    Attributes:
      problem: name of the problem.
      algorithm: names of the algorithms.
      stepsize: gamma, or auto for 1/L of the worst client.
      prob: p, probability of communicating after a step. Default 0.1, unless --local-steps is given.
      local_steps: k, fixed number of local steps instead of the coin.
      sparsity: fraction of the prunable weights set to zero.
      scope: of TopK: global or layerwise.
      batch_size: examples of a local gradient, or full.
      rounds: communications.
      evaluate_every: rounds from one evaluation to the next.
      seeds: how many seeds.
      seed: the first of them.
      clip_norm: clip the local direction at this norm.
      target: accuracy (or train loss) for the column of bits; default is what the weakest method reaches.
      encoding: of the messages: dense, indices, bitmap, entropy or cheapest.
      precision: float32 or float64.
      out: output folder, new or empty; default is a fresh one under runs/.
    """

    problem: str = "digits"
    algorithm: tuple[str, ...] = BASELINES
    stepsize: str = "auto"
    prob: float | None = None
    local_steps: int | None = None
    sparsity: float = 0.9
    scope: str = "global"
    batch_size: str = "full"
    rounds: int = 200
    evaluate_every: int = 1
    seeds: int = 1
    seed: int = 0
    clip_norm: float | None = None
    target: float | None = None
    encoding: str = "cheapest"
    precision: str = "float32"
    out: Path | None = None


def own_options(makers: Iterable[Callable]) -> dict[str, tuple[Any, str]]:
    """Options that problems or methods have beside the common ones: name -> (type, help)."""
    common = {field.name for field in dataclasses.fields(Run)} | {"prune"}
    found: dict[str, tuple[Any, list[str]]] = {}
    for make in makers:
        words = {p.arg_name: p.description for p in docstring_parser.parse(make.__doc__ or "").params}
        for name, p in inspect.signature(make).parameters.items():
            if name in common:
                continue
            kind = p.annotation if p.annotation is not p.empty else type(p.default)
            text = f"{make.__name__}: {' '.join((words.get(name) or '').split())} [{p.default}]"
            found.setdefault(name, (kind, []))[1].append(text)
    return {name: (kind, "; ".join(texts)) for name, (kind, texts) in found.items()}


def command_type() -> type:
    """:class:`Run` with the own options of every problem and algorithm, all optional."""
    own = own_options([*PROBLEMS.values(), *ALGORITHMS.values()])
    fields = [
        (name, kind | None, dataclasses.field(default=None, metadata={"help": text}))
        for name, (kind, text) in own.items()
    ]
    made = dataclasses.make_dataclass("Run", fields, bases=(Run,), frozen=True)
    made.__doc__ = Run.__doc__ + "".join(f"      {name}: {text}\n" for name, (_, text) in own.items())
    return made


def check(options: Run) -> None:
    """Raise a ``ValueError`` for names and numbers that can be judged before anything is loaded."""
    choices = (("problem", PROBLEMS), ("scope", SCOPES), ("encoding", ENCODINGS), ("precision", ("float32", "float64")))
    for name, allowed in choices:
        if getattr(options, name) not in allowed:
            raise unknown(name, getattr(options, name), allowed)
    for name in options.algorithm:
        if name not in ALGORITHMS:
            raise unknown("algorithm", name, ALGORITHMS)
    if len(set(options.algorithm)) < max(1, len(options.algorithm)):
        raise ValueError(f"name each algorithm once, and at least one: {', '.join(options.algorithm) or 'none given'}")
    for name in ("rounds", "evaluate_every", "seeds"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(options, name)}")
    if options.seed < 0:
        raise ValueError(f"seed must not be negative, not {options.seed}")
    if options.clip_norm is not None and not 0 < options.clip_norm < np.inf:
        raise ValueError(f"clip_norm must be positive and finite, not {options.clip_norm:g}")


def given(options: Run, make: Callable) -> dict[str, Any]:
    """The options that ``make`` takes and the user gave."""
    takes = inspect.signature(make).parameters
    return {name: v for name in takes if (v := getattr(options, name, None)) is not None}


def refuse_strangers(options: Run) -> None:
    """Raise for an own option that neither the problem nor any of the algorithms has."""
    used = [PROBLEMS[options.problem], *(ALGORITHMS[name] for name in options.algorithm)]
    for name in own_options([*PROBLEMS.values(), *ALGORITHMS.values()]):
        if getattr(options, name) is not None and not any(name in inspect.signature(make).parameters for make in used):
            chosen = ", ".join([options.problem, *options.algorithm])
            raise ValueError(f"--{name.replace('_', '-')} is an option of none of {chosen}")


def number(option: str, text: str, word: str, kind: type) -> Any:
    """``text`` as a number, or None for ``word``."""
    if text == word:
        return None
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"--{option} must be a number or {word!r}, not {text!r}") from None


def build_problem(options: Run):
    """The problem that the options describe."""
    make = PROBLEMS[options.problem]
    chosen = given(options, make)
    if "batch_size" in inspect.signature(make).parameters:
        chosen["batch_size"] = number("batch-size", options.batch_size, "full", int)
    return make(**chosen)


def hyperparameters(options: Run, name: str, problem) -> dict[str, Any]:
    """The keyword arguments of algorithm ``name``."""
    make = ALGORITHMS[name]
    hyper = given(options, make)
    stepsize = number("stepsize", options.stepsize, "auto", float)
    hyper["stepsize"] = 1 / float(problem.smoothness.max()) if stepsize is None else stepsize
    takes = inspect.signature(make).parameters
    if "prob" in takes and options.prob is None and options.local_steps is None:
        hyper["prob"] = 0.1
    if "prune" in takes:
        hyper["prune"] = make_topk(options.scope)
    return hyper


def run(options: Run) -> int:
    """Run what the options say; returns the exit status."""
    check(options)
    refuse_strangers(options)
    jax.config.update("jax_enable_x64", options.precision == "float64")
    problem = build_problem(options)
    transform = None if options.clip_norm is None else optax.clip_by_global_norm(options.clip_norm)
    prepared = {
        name: prepare(
            ALGORITHMS[name],
            hyperparameters(options, name, problem),
            problem.ridge.dtype,
            local_steps=options.local_steps,
            transform=transform,
        )
        for name in options.algorithm
    }
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    out = results.new_folder(options.out or Path("runs") / f"{stamp}-{options.problem}")
    results.write_json(out / "config.json", configuration(options))
    runs: dict[str, list] = {name: [] for name in options.algorithm}
    summaries: list[dict[str, Any]] = []
    total = len(runs) * options.seeds * options.rounds
    with tqdm(total=total, unit="round", disable=None, leave=False) as bar:
        for name, choice in prepared.items():
            bar.set_description(f"{name}: compiling")
            key = jax.random.key(options.seed)
            compiled, seconds = compile_blocks(choice, problem, key, options.rounds, options.evaluate_every)
            bar.set_description(name)
            for seed in range(options.seed, options.seed + options.seeds):
                records, summary = run_blocks(
                    choice,
                    problem,
                    compiled,
                    jax.random.key(seed),
                    rounds=options.rounds,
                    evaluate_every=options.evaluate_every,
                    encoding=options.encoding,
                    progress=bar.update,
                )
                names = {"algorithm": name, "problem": options.problem, "seed": seed}
                hyper = {k: float(v) for k, v in choice[1].items()}
                runs[name].append([names | record | hyper for record in records])
                summaries.append(names | hyper | summary | {"compile_seconds": round(seconds, 3)})
                every = [record for seeds in runs.values() for records in seeds for record in records]
                results.write_jsonl(out / "metrics.jsonl", every)
    return report(options, runs, summaries, out)


def configuration(options: Run) -> dict[str, Any]:
    """Every setting, the versions and the device."""
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items()}
    packages = {name: version(name) for name in ("sps_jax", "jax", "jaxlib", "flax", "optax", "numpy")}
    device = jax.devices()[0]
    return {
        "settings": settings,
        "versions": {"python": platform.python_version(), **packages},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }


def report(options: Run, runs: dict[str, list], summaries: list[dict[str, Any]], out: Path) -> int:
    """Write summary and picture, print the table; 3 if a run diverged, else 0."""
    alive = {name: kept for name, seeds in runs.items() if (kept := [records for records in seeds if records])}
    flat = [records for seeds in alive.values() for records in seeds]
    accuracy = bool(flat) and "test_accuracy" in flat[0][0]
    metric, best = ("test_accuracy", max) if accuracy else ("train_loss", min)
    weakest = min if accuracy else max
    reached = [best(r[metric] for r in records) for records in flat]
    target = options.target if options.target is not None else weakest(reached, default=0.0)
    rows = []
    for summary in summaries:
        records = next(iter([r for r in runs[summary["algorithm"]] if r and r[0]["seed"] == summary["seed"]]), [])
        summary["target"], summary["target_metric"] = target, metric
        summary["bits_to_target"] = results.bits_to_target(records, metric, target, accuracy)
        if records:
            summary["final"] = {k: v for k, v in records[-1].items() if k not in summary}
            summary["best"] = {metric: best(r[metric] for r in records)}
        rows.append(table_row(summary, metric, target))
    results.write_json(out / "summary.json", summaries)
    if flat:
        title = f"{options.problem}, sparsity {options.sparsity:g}"
        plotting.curves(alive, metric, title, out / "curves.png")
    print(results.table(rows))
    for summary in summaries:
        if summary["diverged_at_round"]:
            where = f"{summary['algorithm']} (seed {summary['seed']}) diverged in round {summary['diverged_at_round']}"
            print(f"{where}; its earlier records are kept. Try a smaller --stepsize or --clip-norm.", file=sys.stderr)
    print(f"\n{metric} after equal rounds; uplink and downlink are totals over all clients. Results: {out}")
    return 3 if any(summary["diverged_at_round"] for summary in summaries) else 0


def table_row(summary: dict[str, Any], metric: str, target: float) -> dict[str, str]:
    """One line of the table that people read."""
    final = summary.get("final", {})
    control = final.get("control_sum")
    return {
        "method": summary["algorithm"],
        "seed": str(summary["seed"]),
        metric: f"{final[metric]:.4f}" if final else "diverged",
        f"uplink to {target:.4g}": results.human(summary["bits_to_target"]),
        "uplink": results.human(final.get("uplink_bits")),
        "downlink": results.human(final.get("downlink_bits")),
        "density": f"{final['density']:.3f}" if final else "-",
        "|sum h|": "-" if control is None else f"{control:.1e}",
    }


def run_command(arguments: list[str]) -> int:
    """Parse and run; user errors become one message and status 2."""
    options = tyro.extras.subcommand_cli_from_dict(
        {"run": command_type()},
        prog="sps-jax",
        description="Simulate sparse, communication-efficient federated learning.",
        args=arguments or ["--help"],
    )
    try:
        return run(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"sps-jax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sps-jax: interrupted; the records of finished runs are kept", file=sys.stderr)
        return 130
