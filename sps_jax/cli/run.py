"""``sps-jax run``: compare algorithms on a problem; write a table, a plot and result files."""

import contextlib
import datetime
import itertools
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from sps_jax import results
from sps_jax.cli.job import Job, configuration, get_ready, layout_in_words
from sps_jax.cli.options import Run
from sps_jax.layout import random_key
from sps_jax.results import files, tables
from sps_jax.runs import console, journal, processes
from sps_jax.runs.blocks import block_length, go_on, start_run, summarise
from sps_jax.runs.drivers import on_devices, on_host
from sps_jax.runs.shared_journal import Agreed, SharedJournal
from sps_jax.runs.signals import Stopped, Wish, wishes


def run(options: Run) -> int:
    """Run every algorithm with every seed; return the exit status."""
    job = get_ready(options)
    config = configuration(options) | {"pruned": job.pruned}
    out = processes.agree(lambda: begin(job, config))
    if options.checkpoint_every is not None:
        return complete_with_checkpoints(job, out, journal.begun(out) if processes.first() else config)
    return conclude(options, run_all(job, journal.Whole(out) if processes.first() else journal.Nothing()), out)


def begin(job: Job, config: dict[str, Any]) -> Path:
    """Return the run's folder; process 0 makes it and writes the configuration into it."""
    out = folder_named(job.options)
    if processes.first():
        files.new_folder(out)
        if job.options.checkpoint_every is not None:
            journal.begin(out, config | {"layout": layout_in_words(job)})
        files.write_json(out / "config.json", config)
    return out


def complete_with_checkpoints(job: Job, out: Path, begun: Mapping[str, Any], ended: list | None = None) -> int:
    """Run the runs that are not finished, with checkpoints; return the exit status.

    Args:
      begun: the configuration that :func:`begin` wrote into ``out``, as :func:`sps_jax.runs.journal.begun` reads it.
      ended: when resuming, the summaries of the finished runs.
    """
    how = f"continue with: sps-jax resume {shlex.quote(str(out))}"
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
        print(f"sps-jax: error: {error}; the files saved before are intact. Once that is fixed, {how}", file=sys.stderr)
        return 1


def keeper_of(
    options: Run, out: Path, begun: Mapping[str, Any], wish: Wish, ended: list | None
) -> journal.Journal | SharedJournal:
    """Return the journal of a run with checkpoints; several processes share one (:func:`complete_with_checkpoints`)."""
    again = ended is not None
    if not processes.several():
        return journal.Journal(out, begun, wish, again)
    agreed = Agreed(wish)
    own = journal.Journal(out, begun, agreed, again) if processes.first() else None
    every = cast(int, options.checkpoint_every)  # given: only runs with checkpoints have a journal
    return SharedJournal(own, ended or [], options.rounds, every, agreed)


def conclude(options: Run, summaries: list[tables.Record], out: Path) -> int:
    """Part from the other processes; process 0 compares the runs recorded in ``out``. Return the exit status."""
    processes.part()
    if processes.first():
        compare(options, summaries, out)
    return 3 if tables.divergences(summaries) else 0


def compare(options: Run, summaries: list[tables.Record], out: Path) -> None:
    """Write the summary and plot of the runs recorded in ``out``; print the table and a warning per divergence."""
    runs: dict[tuple[str, int], list[tables.Record]] = {(s["algorithm"], s["seed"]): [] for s in summaries}
    for record in results.read_records(out):
        run = record["algorithm"], record["seed"]
        if run not in runs:
            raise ValueError(f"{out / 'metrics.jsonl'} is damaged: it has a record of {run[0]} (seed {run[1]})")
        runs[run].append(record)
    summaries = tables.compare(runs, summaries, options.target)
    console.doing("drawing")
    tables.write(runs, summaries, f"{options.problem}, sparsity {options.sparsity:g}", out)
    console.doing("")
    if options.json:
        print(json.dumps({"results": str(out), "summaries": summaries}, indent=2, allow_nan=False))
    else:
        print(tables.run_table(summaries))
        metric = summaries[0]["target_metric"]
        print(f"\n{metric} after equal rounds; uplink and downlink are totals over all clients. Results: {out}")
    for sentence in tables.divergences(summaries):
        print(sentence, file=sys.stderr)


def fresh_folder(options: Run) -> Path:
    """Make the folder of :func:`folder_named`, which must be new or empty, and return it."""
    return files.new_folder(folder_named(options))


def folder_named(options: Run) -> Path:
    """Return the path of ``--out``, or of a new folder under ``runs/``, named by date and problem."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return options.out or Path("runs") / f"{stamp}-{options.problem}"


def run_all(job: Job, keeper: journal.Whole | journal.Journal | SharedJournal) -> list[tables.Record]:
    """Run every algorithm with every seed, except the runs that ``keeper`` has; compile once per algorithm.

    Returns:
      One summary per run; the records are on disk.
    """
    options = job.options
    settings = {name: getattr(options, name) for name in ("rounds", "evaluate_every")}
    runs = ((name, options.seed + i) for name in job.methods for i in range(options.seeds))
    left = itertools.islice(runs, len(keeper.finished), None)
    done = options.rounds * len(keeper.finished)
    console.doing("")
    hidden = None if processes.first() and not console.quiet() else True  # None: hidden unless on a terminal
    length = block_length(options.rounds, options.checkpoint_every)
    total = options.rounds * options.seeds * len(job.methods)
    with tqdm(total=total, initial=done, unit="round", disable=hidden, leave=False) as bar:
        for name, group in itertools.groupby(left, key=lambda run: run[0]):
            bar.set_description(f"{name}: compiling")
            method, key = job.methods[name], random_key(options.seed)
            made = (method, job.layouts[name], job.problem)
            driver = on_host(*made, length) if options.stream else on_devices(*made, key, length)
            bar.set_description(name)
            for _, seed in group:
                names, hyper = {"algorithm": name, "problem": options.problem, "seed": seed}, method.recorded()
                key = random_key(seed)
                start = keeper.standing(names, start_run(method, driver, key))
                bar.update(start.past.rounds)
                for at, rows in go_on(method, driver, key, start, **settings, encoding=options.encoding):
                    keeper.add(names, [names | row | hyper for row in rows], at)
                    bar.update(length)
                keeper.finish(names | hyper | summarise(driver, at))
    return keeper.finished
