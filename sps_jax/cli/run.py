"""``sps-jax run``: compare algorithms on a problem; write a table, a plot and result files."""

import contextlib
import datetime
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from sps_jax import results
from sps_jax.cli.job import configuration, get_ready
from sps_jax.cli.options import Run
from sps_jax.results import files, tables
from sps_jax.results.statistics import unmoved
from sps_jax.runs import console, journal, processes
from sps_jax.runs.job import Job, run_all
from sps_jax.runs.shared_journal import SharedJournal, SharedStopRequest
from sps_jax.runs.signals import Stopped, StopRequest, stop_requests


def run(options: Run) -> int:
    """Run every algorithm with every seed; return the exit status."""
    job, pruned = get_ready(options)
    config, out, report = configuration(options) | {"pruned": pruned}, folder_named(options), reported(options)
    processes.all_or_none(lambda: begin(job, out, config) if processes.first() else None)
    if job.checkpoint_every is not None:
        return complete_with_checkpoints(job, report, out, journal.begun(out) if processes.first() else config)
    return conclude(report, run_all(job, journal.RunWriter(out if processes.first() else None)), out)


class Report(NamedTuple):
    """What is made of the records when all runs have ended: a title, a target for the bits, and whether JSON."""

    title: str
    target: float | None
    as_json: bool


def reported(options: Run) -> Report:
    """Return what the options say of the report."""
    return Report(f"{options.problem}, sparsity {options.sparsity:g}", options.target, options.json)


def begin(job: Job, out: Path, config: dict[str, Any]) -> None:
    """Make the run's folder and write the configuration into it."""
    files.new_folder(out)
    if job.checkpoint_every is not None:
        journal.begin(out, config | {"layout": job.layouts_in_words()})
    files.write_json(out / "config.json", config)


def complete_with_checkpoints(
    job: Job, report: Report, out: Path, begun: Mapping[str, Any], ended: list | None = None
) -> int:
    """Run the runs that are not finished, with checkpoints; return the exit status.

    Args:
      begun: the configuration that :func:`begin` wrote into ``out``, as :func:`sps_jax.runs.journal.begun` reads it.
      ended: when resuming, the summaries of the finished runs.
    """
    how = f"continue with: sps-jax resume {shlex.quote(str(out))}"
    first = "sps-jax: finishing the round and saving; Ctrl-C again stops at once"
    try:
        with contextlib.ExitStack() as stack:
            processes.all_or_none(lambda: stack.enter_context(journal.locked(out)) if processes.first() else None)
            stop = stack.enter_context(stop_requests(first, f"sps-jax: stopped at once; {how}"))
            with keeper_of(job, out, begun, stop, ended) as keeper:
                summaries = run_all(job, keeper)
            return conclude(report, summaries, out)
    except Stopped as stopped:
        processes.shutdown()
        print(f"sps-jax: stopped by {stopped}, all is saved; {how}", file=sys.stderr)
        return stopped.status
    except OSError as error:
        print(f"sps-jax: error: {error}; the files saved before are intact. Once that is fixed, {how}", file=sys.stderr)
        return 1


def keeper_of(
    job: Job, out: Path, begun: Mapping[str, Any], stop: StopRequest, ended: list | None
) -> journal.Journal | SharedJournal:
    """Return the journal of a run with checkpoints; several processes share one (:func:`complete_with_checkpoints`)."""
    again = ended is not None
    if not processes.several():
        return journal.Journal(out, begun, stop, again)
    agreed = SharedStopRequest(stop)
    own = journal.Journal(out, begun, agreed, again) if processes.first() else None
    every = cast(int, job.checkpoint_every)  # given: only runs with checkpoints have a journal
    return SharedJournal(own, ended or [], job.rounds, every, agreed)


def conclude(report: Report, summaries: list[tables.Record], out: Path) -> int:
    """Part from the other processes; process 0 compares the runs recorded in ``out``. Return the exit status."""
    processes.shutdown()
    if processes.first():
        compare(report, summaries, out)
    return 3 if tables.divergences(summaries) else 0


def compare(report: Report, summaries: list[tables.Record], out: Path) -> None:
    """Write the summary and plot of the runs recorded in ``out``; print the table and a warning per divergence."""
    runs: dict[tuple[str, int], list[tables.Record]] = {(s["algorithm"], s["seed"]): [] for s in summaries}
    for record in results.read_records(out):
        run = record["algorithm"], record["seed"]
        if run not in runs:
            raise ValueError(f"{out / 'metrics.jsonl'} is damaged: it has a record of {run[0]} (seed {run[1]})")
        runs[run].append(record)
    summaries = tables.compare(runs, summaries, report.target)
    console.doing("drawing")
    tables.write(runs, summaries, report.title, out)
    console.doing("")
    if report.as_json:
        print(json.dumps({"results": str(out), "summaries": summaries}, indent=2, allow_nan=False))
    else:
        print(tables.run_table(summaries))
        print(f"\n{tables.caption(summaries)} Results: {out}")
    for sentence in unmoved(runs):
        console.say(f"sps-jax: {sentence}")
    for sentence in tables.divergences(summaries):
        print(sentence, file=sys.stderr)


def folder_named(options: Run) -> Path:
    """Return the path of ``--out``, or of a new folder under ``runs/``, named by date and problem."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return options.out or Path("runs") / f"{stamp}-{options.problem}"
