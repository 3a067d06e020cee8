"""``sps-jax run``: problems and algorithms in, a table, a picture and result files out."""

import dataclasses
import datetime
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from sps_jax import report, results
from sps_jax.algorithms import ALGORITHMS
from sps_jax.cohort import Cohort
from sps_jax.experiment import compile_blocks, run_blocks
from sps_jax.hyperparameters import prepare, recorded
from sps_jax.options import (
    Run,
    build_problem,
    check,
    clip,
    hyperparameters,
    number,
    pruned_leaves,
    refuse_strangers,
    use_devices,
)
from sps_jax.plan import Plan
from sps_jax.planning import choose, describe, footprint, shapes
from sps_jax.problem import Problem


def run(options: Run) -> int:
    """Run what the options say; returns the exit status."""
    check(options)
    refuse_strangers(options)
    jax.config.update("jax_enable_x64", options.precision == "float64")
    devices = use_devices(options)
    keep_compiled()
    problem = build_problem(options)
    pruned = pruned_leaves(options, problem)
    prepared = {name: prepare_algorithm(options, name, problem) for name in options.algorithm}
    plans = {name: lay_out_run(prepared[name], problem, devices, options) for name in prepared}
    out = fresh_folder(options)
    results.write_json(out / "config.json", configuration(options) | {"pruned": pruned})
    runs, summaries = run_all(options, problem, prepared, plans, out)
    summaries = report.compare(runs, summaries, options.target)
    report.write(runs, summaries, f"{options.problem}, sparsity {options.sparsity:g}", out)
    print(report.table(summaries))
    metric = summaries[0]["target_metric"]
    print(f"\n{metric} after equal rounds; uplink and downlink are totals over all clients. Results: {out}")
    diverged = report.divergences(summaries)
    for sentence in diverged:
        print(sentence, file=sys.stderr)
    return 3 if diverged else 0


def fresh_folder(options: Run) -> Path:
    """The folder that the options name, or one of its own under ``runs/``, empty."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return results.new_folder(options.out or Path("runs") / f"{stamp}-{options.problem}")


def prepare_algorithm(options: Run, name: str, problem: Problem) -> tuple:
    """Algorithm ``name`` as the options want it, see :func:`sps_jax.hyperparameters.prepare`."""
    return prepare(
        ALGORITHMS[name],
        hyperparameters(options, name, problem),
        problem.ridge.dtype,
        local_steps=options.local_steps,
        transform=clip(options, problem),
        cohort=None if options.cohort is None else Cohort(options.cohort, options.cohort_by),
    )


def lay_out_run(prepared: tuple, problem: Problem, devices: int | None, options: Run) -> Plan:
    """The layout of a run, said on standard error."""
    setup, hyper, _ = prepared
    of = shapes(setup, hyper, problem)
    plan = choose(of, problem, devices=devices, chunk=number("chunk", options.chunk, int, "all", "auto"))
    need = footprint(of, problem, plan)
    print(f"{setup.make.__name__}: {describe(plan, need, of.cohort or problem.clients)}", file=sys.stderr)
    return plan


def keep_compiled() -> None:
    """Keep compiled programs on disk for the next run, where the user's JAX settings say nothing else."""
    if jax.config.jax_compilation_cache_dir is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "sps_jax" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def run_all(options: Run, problem: Problem, prepared: dict[str, tuple], plans: dict[str, Plan], out: Path):
    """Every algorithm with every seed, one compilation an algorithm; ``metrics.jsonl`` grows by whole runs.

    Returns:
      (algorithm, seed) -> its records, and a summary of each run.
    """
    runs: dict[tuple[str, int], list[report.Record]] = {}
    summaries: list[report.Record] = []
    total = len(prepared) * options.seeds * options.rounds
    with tqdm(total=total, unit="round", disable=None, leave=False) as bar:
        for name, choice in prepared.items():
            bar.set_description(f"{name}: compiling")
            key = jax.random.key(options.seed)
            block = compile_blocks(choice, plans[name], problem, key, options.rounds, options.evaluate_every)
            bar.set_description(name)
            for seed in range(options.seed, options.seed + options.seeds):
                records, summary = run_blocks(
                    choice,
                    block,
                    jax.random.key(seed),
                    rounds=options.rounds,
                    evaluate_every=options.evaluate_every,
                    encoding=options.encoding,
                    progress=bar.update,
                )
                names = {"algorithm": name, "problem": options.problem, "seed": seed}
                hyper = recorded(*choice[1:])
                runs[name, seed] = [names | record | hyper for record in records]
                summaries.append(names | hyper | summary)
                results.write_jsonl(out / "metrics.jsonl", (record for each in runs.values() for record in each))
    return runs, summaries


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
