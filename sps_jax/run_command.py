"""``sps-jax run``: problems and algorithms in, a table, a picture and result files out."""

import contextlib
import dataclasses
import datetime
import gc
import itertools
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
from tqdm import tqdm

from sps_jax import files, journal, processes, report, results, speech
from sps_jax.algorithms import ALGORITHMS
from sps_jax.cohort import Cohort
from sps_jax.experiment import compile_blocks, go_on, start_run, summarise
from sps_jax.from_options import build_problem, clip, hyperparameters, pruned_leaves, use_devices
from sps_jax.hyperparameters import Choices, prepare, recorded
from sps_jax.option_checks import check, local_steps, refuse_strangers
from sps_jax.options import Run, number
from sps_jax.plan import Plan
from sps_jax.planning import choose, describe, footprint, shapes
from sps_jax.problem import Problem
from sps_jax.shared_journal import Agreed, SharedJournal
from sps_jax.simulation import placed
from sps_jax.stopping import Stopped, Wish, wishes
from sps_jax.streaming import cohort_plan

TALK = ("json", "quiet")
"""Options that say how a run is told, not what it is."""
MANY = 10_000_000
"""Local steps of a client that a run says it takes, for it can be long."""


class Job(NamedTuple):
    """A run that can begin.

    Attributes:
      options: what the user wants.
      problem: what is simulated.
      pruned: what of the model is pruned.
      prepared: of each algorithm, by name, see :func:`prepare_algorithm`.
      plans: how each is laid out.
    """

    options: Run
    problem: Problem
    pruned: dict[str, Any]
    prepared: dict[str, Choices]
    plans: dict[str, Plan]


def run(options: Run) -> int:
    """Run what the options say; returns the exit status."""
    job = get_ready(options)
    config = configuration(options) | {"pruned": job.pruned}
    out = processes.agree(lambda: begin(job, config))
    if options.checkpoint_every is not None:
        return complete_with_checkpoints(job, out, journal.begun(out) if processes.first() else config)
    return conclude(options, run_all(job, journal.Whole(out) if processes.first() else journal.Nothing()), out)


def begin(job: Job, config: dict[str, Any]) -> Path:
    """The folder of the run, made, and what is begun noted in it, by the first process."""
    out = folder_named(job.options)
    if processes.first():
        files.new_folder(out)
        if job.options.checkpoint_every is not None:
            journal.begin(out, config | {"layout": layout(job)})
        files.write_json(out / "config.json", config)
    return out


def get_ready(options: Run) -> Job:
    """Check, meet the other processes, load and lay out; nothing is written."""
    devices = join(options)
    job = processes.agree(lambda: load(options, devices))
    own = ("process_id", "coordinator", "out", "manual_dir", "data_dir", *TALK)
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in own}
    processes.refuse_others(settings | {"layout": layout(job)})
    return job


def join(options: Run) -> int | None:
    """Check the options and meet the other processes; returns how many devices are asked for, None for auto."""
    check(options)
    refuse_strangers(options)
    jax.config.update("jax_enable_x64", options.precision == "float64")
    keep_compiled()
    return use_devices(options)


def load(options: Run, devices: int | None) -> Job:
    """The problem, and the algorithms laid out."""
    speech.doing(f"loading {options.problem}")
    problem = build_problem(options)
    pruned = pruned_leaves(options, problem)
    prepared = {name: prepare_algorithm(options, name, problem) for name in options.algorithm}
    plans = {name: lay_out_run(prepared[name], problem, devices, options) for name in prepared}
    if not options.stream:  # all have the same devices; no copy is left elsewhere
        problem = jax.block_until_ready(placed(next(iter(plans.values())), problem))
    gc.collect()  # JAX holds NumPy's copy of what it was given until then
    return Job(options, problem, pruned, prepared, plans)


def layout(job: Job) -> dict[str, str]:
    """How each algorithm is laid out, in words."""
    return {name: f"{plan.devices} devices, chunk {plan.chunk or 'all'}" for name, plan in job.plans.items()}


def complete_with_checkpoints(job: Job, out: Path, begun: Mapping[str, Any], ended: list | None = None) -> int:
    """Run what is not there yet, in a way that can be taken up; returns the exit status.

    Args:
      begun: what :func:`begin` noted in ``out``, or :func:`sps_jax.journal.begun` found there.
      ended: where it is taken up, the summaries of the runs that have ended.
    """
    how = f"go on with: sps-jax resume {shlex.quote(str(out))}"
    first = "sps-jax: finishing the round and saving; Ctrl-C again stops at once"
    try:
        with contextlib.ExitStack() as stack:
            processes.agree(lambda: stack.enter_context(journal.alone(out)) if processes.first() else None)
            wish = stack.enter_context(wishes(first, f"sps-jax: stopped at once; {how}"))
            with keeper_of(job.options, out, begun, wish, ended) as keeper:
                summaries = run_all(job, keeper)
            return conclude(job.options, summaries, out)
    except Stopped as stopped:
        processes.part()
        print(f"sps-jax: stopped by {stopped}, all is saved; {how}", file=sys.stderr)
        return stopped.status
    except OSError as error:
        print(f"sps-jax: error: {error}; what was saved before is whole. Then {how}", file=sys.stderr)
        return 1


def keeper_of(
    options: Run, out: Path, begun: Mapping[str, Any], wish: Wish, ended: list | None
) -> journal.Journal | SharedJournal:
    """The journal of the run, see :func:`complete_with_checkpoints`; of several processes, the one they share."""
    again = ended is not None
    if not processes.several():
        return journal.Journal(out, begun, wish, again)
    agreed = Agreed(wish)
    own = journal.Journal(out, begun, agreed, again) if processes.first() else None
    every = cast(int, options.checkpoint_every)  # given, else there is no journal
    return SharedJournal(own, ended or [], options.rounds, every, agreed)


def conclude(options: Run, summaries: list[report.Record], out: Path) -> int:
    """The processes part, the first compares the runs whose records are in ``out``; returns the exit status."""
    processes.part()
    if processes.first():
        compare(options, summaries, out)
    return 3 if report.divergences(summaries) else 0


def compare(options: Run, summaries: list[report.Record], out: Path) -> None:
    """Table, picture and warnings of the runs whose records are in ``out``."""
    runs: dict[tuple[str, int], list[report.Record]] = {(s["algorithm"], s["seed"]): [] for s in summaries}
    for record in results.read_records(out):
        run = record["algorithm"], record["seed"]
        if run not in runs:
            raise ValueError(f"{out / 'metrics.jsonl'} is damaged: it has a record of {run[0]} (seed {run[1]})")
        runs[run].append(record)
    summaries = report.compare(runs, summaries, options.target)
    speech.doing("drawing")
    report.write(runs, summaries, f"{options.problem}, sparsity {options.sparsity:g}", out)
    speech.doing("")
    if options.json:
        print(json.dumps({"results": str(out), "summaries": summaries}, indent=2, allow_nan=False))
    else:
        print(report.table(summaries))
        metric = summaries[0]["target_metric"]
        print(f"\n{metric} after equal rounds; uplink and downlink are totals over all clients. Results: {out}")
    for sentence in report.divergences(summaries):
        print(sentence, file=sys.stderr)


def fresh_folder(options: Run) -> Path:
    """The folder that the options name, or one of its own under ``runs/``, empty."""
    return files.new_folder(folder_named(options))


def folder_named(options: Run) -> Path:
    """The folder that the options name, or one of its own under ``runs/``."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return options.out or Path("runs") / f"{stamp}-{options.problem}"


def prepare_algorithm(options: Run, name: str, problem: Problem) -> Choices:
    """Algorithm ``name`` as the options want it, see :func:`sps_jax.hyperparameters.prepare`."""
    return prepare(
        ALGORITHMS[name],
        hyperparameters(options, name, problem),
        problem.ridge.dtype,
        local_steps=options.local_steps,
        transform=clip(options, problem),
        cohort=None if options.cohort is None else Cohort(options.cohort, options.cohort_by),
    )


def lay_out_run(prepared: Choices, problem: Problem, devices: int | None, options: Run) -> Plan:
    """The layout of a run, said on standard error."""
    setup, hyper, _ = prepared
    of = shapes(setup, hyper, problem)
    choices = {"devices": devices, "chunk": number("chunk", options.chunk, int, "all", "auto")}
    plan = cohort_plan(prepared, problem, **choices) if options.stream else choose(of, problem, **choices)
    need = footprint(of, problem, plan)
    if processes.first():
        if "prob" in hyper and local_steps(options) >= MANY:
            speech.say(f"sps-jax: about {local_steps(options):.2g} local steps of each client (rounds / prob)")
        speech.say(f"{setup.make.__name__}: {describe(plan, need, of.cohort or problem.clients)}")
    return plan


def compiled_folder() -> Path:
    """Where compiled programs are kept."""
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # options are made at import
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen or home / "sps_jax" / "compiled")


def keep_compiled() -> None:
    """Keep compiled programs on disk for the next run, where the user's JAX settings say nothing else."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]  # as above
        jax.config.update("jax_compilation_cache_dir", str(compiled_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def run_all(job: Job, keeper: journal.Whole | journal.Journal | SharedJournal) -> list[report.Record]:
    """Every algorithm with every seed but those that ``keeper`` has, one compilation an algorithm.

    Returns:
      A summary of each run; the records are on disk.
    """
    options = job.options
    settings = {name: getattr(options, name) for name in ("rounds", "evaluate_every")}
    runs = ((name, options.seed + i) for name in job.prepared for i in range(options.seeds))
    left = itertools.islice(runs, len(keeper.finished), None)
    done = options.rounds * len(keeper.finished)
    speech.doing("")
    hidden = None if processes.first() and not speech.quiet() else True  # None: where standard error is no terminal
    total = options.rounds * options.seeds * len(job.prepared)
    with tqdm(total=total, initial=done, unit="round", disable=hidden, leave=False) as bar:
        for name, group in itertools.groupby(left, key=lambda run: run[0]):
            bar.set_description(f"{name}: compiling")
            choice, key = job.prepared[name], jax.random.key(options.seed)
            block = compile_blocks(
                choice,
                job.plans[name],
                job.problem,
                key,
                **settings,
                checkpoint_every=options.checkpoint_every,
                streamed=options.stream,
            )
            bar.set_description(name)
            for _, seed in group:
                names, hyper = {"algorithm": name, "problem": options.problem, "seed": seed}, recorded(*choice[1:])
                key = jax.random.key(seed)
                start = keeper.standing(names, start_run(choice, block, key))
                bar.update(start.past.rounds)
                for at, rows in go_on(choice, block, key, start, **settings, encoding=options.encoding):
                    keeper.add(names, [names | row | hyper for row in rows], at)
                    bar.update(block.length)
                keeper.finish(names | hyper | summarise(block, at))
    return keeper.finished


def configuration(options: Run) -> dict[str, Any]:
    """Every setting, the versions and the device."""
    settings = {
        k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items() if k not in TALK
    }
    packages = {name: version(name) for name in ("sps_jax", "jax", "jaxlib", "flax", "optax", "numpy")}
    device = jax.devices()[0]
    return {
        "settings": settings,
        "versions": {"python": platform.python_version(), **packages},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }
