"""``sps-jax resume``: continue a run that has checkpoints."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from tyro.conf import Positional

from sps_jax.cli import own_code
from sps_jax.cli.job import configuration, get_ready, join
from sps_jax.cli.options import Run, command_type
from sps_jax.cli.run import complete, conclude, reported
from sps_jax.runs import console, journal, processes


def resume(
    folder: Positional[Path],
    devices: str | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Continue an interrupted run, as if it had not been interrupted.

    Args:
      folder: output folder of `sps-jax run --checkpoint-every`; a finished run gets its table and plot again.
      devices: number of devices that share the clients from now on, or auto; default is the setting of the run.
      coordinator: host:port of process 0, or auto, to continue on several processes; each uses --devices devices and
        reads the folder.
      num_processes: number of processes, on all hosts together.
      process_id: index of this process, from 0; only process 0 writes results.
      json: print the summaries as one JSON document on standard output, instead of the table.
      quiet: print only errors on standard error.
    """
    begun = journal.begun(folder)
    before: dict[str, Any] = begun["settings"]
    own_code.refuse_changed(begun.get("sources", {}))
    machine = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    talk = {"devices": devices or before["devices"], "json": json, "quiet": quiet}
    settings = options_of(before | machine | talk, folder)
    ended, length = journal.finished(folder)
    if len(ended) == len(settings.algorithm) * settings.seeds:
        if coordinator == processes.AUTO:
            join(settings)  # to know which process this is
        if process_id or not processes.first():
            processes.shutdown()
            return 0
        if (folder / "metrics.jsonl").stat().st_size != length:
            raise ValueError(f"{folder / 'metrics.jsonl'} is damaged: its length changed after the run finished")
        console.say(f"sps-jax: all {len(ended)} runs in {folder} are finished; redoing the table and plot")
        with journal.locked(folder):
            return conclude(reported(settings), ended, folder)
    job, _ = get_ready(settings)
    if processes.first():
        warn(begun, configuration(settings) | {"layout": job.layouts_in_words()})
    return complete(job, reported(settings), folder, begun, ended)


def options_of(settings: Mapping[str, Any], out: Path) -> Run:
    """Return the options of a run, from the ``settings`` of its ``config.json``.

    Raises:
      ValueError: for a setting that this version does not have, or a value of the wrong type.
    """
    made, path = command_type(settings), out / "config.json"
    if odd := sorted(settings.keys() - {field.name for field in dataclasses.fields(made)}):
        raise ValueError(f"{path} has the setting {odd[0]!r}, which this version of sps_jax does not have")
    try:
        return dataclasses.replace(msgspec.convert({**settings, "out": None}, made), out=out)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def warn(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Print on standard error which packages, device and layout differ from those when the run began."""
    for what in ("versions", "device", "layout"):
        was = before.get(what, {})
        other = [f"{name} {was[name]} (now {now[what].get(name)})" for name in was if was[name] != now[what].get(name)]
        if other:
            console.say(f"sps-jax: warning: the run was begun with {', '.join(other)}; its last bits may differ")
