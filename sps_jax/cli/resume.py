"""``sps-jax resume``: go on with a run that has checkpoints."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from sps_jax.cli.job import TALK, configuration, get_ready, layout_in_words
from sps_jax.cli.options import Run, command_type
from sps_jax.cli.run import complete_with_checkpoints, conclude
from sps_jax.runs import console, journal, processes


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run that was cut off, as if it had not been.

    Attributes:
      folder: what `sps-jax run` was given as --out, with --checkpoint-every; a whole one gets table and picture anew.
      devices: how many share the clients from now on, or auto; default is as before.
      coordinator: host:port of process 0, to go on with several processes; each has --devices and reads the folder.
      num_processes: how many, on all hosts together.
      process_id: which of them this is, from 0; only process 0 writes.
      json: one JSON document of the summaries on standard output, instead of the table.
      quiet: nothing on standard error but errors.
    """

    folder: Positional[Path]
    devices: str | None = None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    json: bool = False
    quiet: bool = False


def resume(options: Resume) -> int:
    """Do what is left of the run in the folder; returns the exit status."""
    out = options.folder
    begun = journal.begun(out)
    settings = options_of(begun["settings"] | machine(options, begun["settings"]), out)
    ended, length = journal.finished(out)
    if len(ended) == len(settings.algorithm) * settings.seeds:
        if options.process_id:
            return 0
        if (out / "metrics.jsonl").stat().st_size != length:
            raise ValueError(f"{out / 'metrics.jsonl'} is damaged: it is not as long as the run left it")
        console.say(f"sps-jax: all {len(ended)} runs in {out} are finished; table and picture are made anew")
        with journal.alone(out):
            return conclude(settings, ended, out)
    job = get_ready(settings)
    if processes.first():
        warn(begun, configuration(settings) | {"layout": layout_in_words(job)})
    return complete_with_checkpoints(job, out, begun, ended)


def machine(options: Resume, before: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of what is gone on with: devices as ``before`` where none are asked for, the rest as asked."""
    asked = {name: getattr(options, name) for name in ("coordinator", "num_processes", "process_id", *TALK)}
    return asked | {"devices": options.devices or before["devices"]}


def options_of(settings: Mapping[str, Any], out: Path) -> Run:
    """The options of a run from the ``settings`` of its ``config.json``.

    Raises:
      ValueError: for a setting that this version does not have.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(command_type())}
    if odd := sorted(settings.keys() - kinds.keys()):
        raise ValueError(
            f"{out / 'config.json'} has the setting {odd[0]!r}, which this version of sps_jax does not have"
        )
    for name, value in settings.items():
        if not fits(kinds[name], value):
            raise ValueError(f"{out / 'config.json'} is damaged: {name} is {value!r}")
    return command_type()(**{name: typed(kinds[name], value) for name, value in settings.items()} | {"out": out})


def fits(kind: Any, value: Any) -> bool:
    """Whether a value that was JSON can be one of an option of type ``kind``."""
    if isinstance(value, list):
        return typing.get_origin(kind) is tuple and all(isinstance(one, str) for one in value)
    of = {Path: (str,), float: (float, int)}
    kinds = [one for some in typing.get_args(kind) or (kind,) for one in of.get(some, (some,))]
    return type(value) in kinds


def typed(kind: Any, value: Any) -> Any:
    """A value that was JSON, as an option of type ``kind`` has it."""
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in (kind, *typing.get_args(kind)) else value


def warn(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say on standard error what is not as it was when the run began: packages, device, layout."""
    for what in ("versions", "device", "layout"):
        was = before.get(what, {})
        other = [f"{name} {was[name]} (now {now[what].get(name)})" for name in was if was[name] != now[what].get(name)]
        if other:
            console.say(f"sps-jax: warning: begun with {', '.join(other)}; last bits may differ")
