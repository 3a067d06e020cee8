"""``sps-jax run``: compare algorithms on a problem; write a table, a plot and result files."""

import contextlib
import datetime
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sps_jax import results
from sps_jax.cli import own_code
from sps_jax.cli.job import configuration, get_ready
from sps_jax.cli.options import Run
from sps_jax.results import files, tables
from sps_jax.results.statistics import unmoved
from sps_jax.runs import console, journal, processes
from sps_jax.runs.job import Job, run_all
from sps_jax.runs.shared_journal import SharedJournal, SharedStopRequest
from sps_jax.runs.signals import Stopped, StopRequest, stop_requests
from sps_jax.runs.writer import RunWriter


def run(options: Run) -> int:
    """Run every algorithm with every seed; return the exit status."""
    job, pruned = get_ready(options)
    config = configuration(options) | {"pruned": pruned, "clients": job.problem.clients}
    out, report = folder_named(options), reported(options)
    processes.all_or_none(lambda: begin(job, out, config) if processes.first() else None)
    return complete(job, report, out, journal.begun(out) if kept(job) and processes.first() else config)


class Report(NamedTuple):
    """What is made of the records when all runs have ended.

    Attributes:
      title: of the picture.
      metric: what is compared; None for the accuracy or the training loss.
      target: its value for the bits; None for the final value of the weakest run.
      as_json: whether to print JSON instead of a table.
    """

    title: str
    metric: str | None
    target: float | None
    as_json: bool


def reported(options: Run) -> Report:
    """Return what the options say of the report."""
    title = f"{own_code.label(options.problem)}, sparsity {options.sparsity:g}"
    return Report(title, options.metric, options.target, options.json)


def begin(job: Job, out: Path, config: dict[str, Any]) -> None:
    """Make the run's folder and write the configuration into it."""
    files.new_folder(out)
    if job.checkpoint_every is not None:
        journal.begin(out, config | {"layout": job.layouts_in_words()})
    files.write_json(out / "config.json", config)


def kept(job: Job) -> bool:
    """Return whether the job has checkpoints."""
    return job.checkpoint_every is not None


def complete(job: Job, report: Report, out: Path, begun: Mapping[str, Any], ended: list | None = None) -> int:
    """Run the runs that are not finished; return the exit status.

    Args:
      begun: the configuration that :func:`begin` wrote into ``out``; of a run with checkpoints, as
        :func:`sps_jax.runs.journal.begun` reads it.
      ended: when resuming, the summaries of the finished runs.
    """
    how, saved = f"continue with: sps-jax resume {shlex.quote(str(out))}", "all is saved"
    if not kept(job):
        how, saved = "only a run with --checkpoint-every can be continued", f"all evaluations so far are kept in {out}"
    first = "sps-jax: finishing the round and saving; Ctrl-C again stops at once"
    try:
        with contextlib.ExitStack() as stack:
            if kept(job):
                processes.all_or_none(lambda: stack.enter_context(journal.locked(out)) if processes.first() else None)
            stop = stack.enter_context(stop_requests(first, f"sps-jax: stopped at once; {how}"))
            with keeper_of(job, out, begun, stop, ended) as keeper:
                summaries = run_all(job, keeper)
            return conclude(report, summaries, out)
    except Stopped as stopped:
        processes.shutdown()
        print(f"sps-jax: stopped by {stopped}, {saved}; {how}", file=sys.stderr)
        return stopped.status
    except OSError as error:
        if not kept(job):
            raise
        print(f"sps-jax: error: {error}; the files saved before are intact. Once that is fixed, {how}", file=sys.stderr)
        return 1


def keeper_of(
    job: Job, out: Path, begun: Mapping[str, Any], stop: StopRequest, ended: list | None
) -> RunWriter | SharedJournal:
    """Return what writes the records of a run, see :func:`complete`; several processes share one."""

    def own(stop: StopRequest) -> RunWriter:
        return journal.Journal(out, begun, stop, ended is not None) if kept(job) else RunWriter(out, stop, job.rounds)

    if not processes.several():
        return own(stop)
    agreed = SharedStopRequest(stop)
    first = own(agreed) if processes.first() else None
    return SharedJournal(first, ended or [], job.rounds, job.checkpoint_every, agreed)


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
    summaries = tables.compare(runs, summaries, report.target, report.metric)
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
    return options.out or Path("runs") / f"{stamp}-{own_code.label(options.problem)}"
