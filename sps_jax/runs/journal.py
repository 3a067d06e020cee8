"""What a run with checkpoints writes to disk while it runs, and how it resumes."""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sps_jax.results import files
from sps_jax.runs import console
from sps_jax.runs.blocks import Standing
from sps_jax.runs.checkpoint import Checkpoints, Unreadable
from sps_jax.runs.signals import StopRequest
from sps_jax.runs.writer import Record, RunWriter
from sps_jax.simulation.state import Past

FORMAT = 2
"""The format number of everything in ``checkpoints/``. This version cannot resume from another format."""

FREE = (
    *("out", "manual_dir", "data_dir", "target", "track", "chunk"),
    *("devices", "coordinator", "num_processes", "process_id"),
)
"""Settings that may change on resume: they do not change the records, or (those of the layout) only their last bits."""


class Journal(RunWriter):
    """The journal of runs with checkpoints: it appends records to ``metrics.jsonl`` after each block.

    In ``checkpoints/``, ``begun.json`` holds the settings of the run, and ``finished.jsonl`` the summary of each ended
    run with the length of ``metrics.jsonl`` at its end. Checkpoint ``i * rounds + r`` is the state of run ``i`` (over
    seeds and algorithms, in order) after round ``r``, with the length of ``metrics.jsonl``. Metrics beyond that length
    are truncated on resume.

    Args:
      out: the folder of results.
      begun: what :func:`begin` wrote.
      stop: the request to stop; honoured when a run begins and, with a checkpoint, after each block.
      again: whether the run is resumed, and prints from where.
    """

    def __init__(self, out: Path, begun: Mapping[str, Any], stop: StopRequest, again: bool) -> None:
        self.begun, self._again = begun, again
        self.every, self._ended = begun["settings"]["checkpoint_every"], folder(out) / "finished.jsonl"
        files.cut_torn(self._ended)
        ended, self._length = finished(out)
        super().__init__(out, stop, begun["settings"]["rounds"])
        self.finished = ended
        self._checkpoints = Checkpoints(folder(out))

    def __exit__(self, *error: Any) -> None:
        self._checkpoints.__exit__(*error)

    def standing(self, names: Record, start: Standing) -> Standing:
        """Return the progress to resume from: that of the newest readable checkpoint of the run, or ``start``.

        Raises:
          Stopped: if a stop was requested.
        """
        self.stop.check()
        index, at = len(self.finished), start
        for step in reversed(self._checkpoints.steps()):
            if step // self.rounds < index:
                break  # this and all older checkpoints are of runs that have ended
            try:
                at, self._length = self._restore(step, names, start)
                break
            except Unreadable as error:
                print(f"sps-jax: {error}; it is set aside, and the one before it is tried", file=sys.stderr)
                self._checkpoints.set_aside(step)
        os.truncate(self.metrics, self._length)
        if self._again:
            where = f"after round {at.past.rounds} of {self.rounds}" if at.past.rounds else "from its beginning"
            console.say(f"sps-jax: {names['algorithm']} (seed {names['seed']}) resumes {where}")
            self._again = False
        return at

    def add(self, names: Record, rows: list[Record], at: Standing) -> None:
        """Add records of a run, whose progress is ``at``, and save a checkpoint if one is due.

        Raises:
          OSError: if the records or the checkpoint could not be written.
          Stopped: if a stop was requested; a checkpoint has been saved by then.
        """
        files.append_jsonl(self.metrics, rows)
        if at.ended(self.rounds):
            return
        if at.past.rounds % self.every == 0 or self.stop.signal is not None:
            self._save(names, at)
        if self.stop.signal is not None:
            self._checkpoints.wait()
            self.stop.check()

    def finish(self, summary: Record) -> None:
        """Record that the run has ended, by its summary."""
        super().finish(summary)
        files.sync(self.metrics)
        self._length = self.metrics.stat().st_size
        files.append_jsonl(self._ended, [summary | {"metrics_bytes": self._length}])
        files.sync(self._ended)

    def _save(self, names: Record, at: Standing) -> None:
        files.sync(self.metrics)  # the checkpoint stores its length, so the records must be on disk first
        about = {
            "format": FORMAT,
            "versions": self.begun["versions"],
            "settings": self.begun["settings"],
            "run": names,
            "past": at.past._asdict(),
            "iterations": at.iterations,
            "seconds": at.seconds,
            "metrics_bytes": self.metrics.stat().st_size,
        }
        self._checkpoints.save(len(self.finished) * self.rounds + at.past.rounds, at.state, about)

    def _restore(self, step: int, names: Record, start: Standing) -> tuple[Standing, int]:
        about, where = self._checkpoints.about(step), folder(self.out) / str(step)
        missing = {"format", "settings", "run", "past", "iterations", "seconds", "metrics_bytes"} - about.keys()
        if "format" in about:
            refuse_format(about, where)
        past = Past() if missing else Past(**about["past"])  # safe to unpack: the record's checksum was verified
        here = (None, names, step - len(self.finished) * self.rounds)
        if missing or (differing(self.begun["settings"], about["settings"]), about["run"], past.rounds) != here:
            raise Unreadable(f"checkpoint {where} cannot be used: it belongs to another run")
        if self.metrics.stat().st_size < about["metrics_bytes"]:
            raise Unreadable(f"checkpoint {where} cannot be used: {self.metrics} is shorter than when it was saved")
        state = self._checkpoints.restore(step, start.state)
        return Standing(state, past, about["iterations"], about["seconds"]), about["metrics_bytes"]


def folder(out: Path) -> Path:
    """Return the folder of a run's checkpoints."""
    return out / "checkpoints"


def begin(out: Path, config: Mapping[str, Any]) -> None:
    """Write ``begun.json``, the format and ``config`` of the run that begins in the empty folder ``out``."""
    folder(out).mkdir()
    files.write_json(folder(out) / "begun.json", {"format": FORMAT} | dict(config))


def begun(out: Path) -> dict[str, Any]:
    """Return what :func:`begin` wrote in a folder, with the :data:`FREE` settings as in ``config.json`` now.

    Raises:
      ValueError: if the folder has no run with checkpoints, its format is another, or other settings in
        ``config.json`` were changed.
    """
    path = folder(out) / "begun.json"
    if not (out / "config.json").is_file():
        raise ValueError(f"{out} is not the folder of a run: there is no config.json in it")
    if not path.is_file():
        raise ValueError(
            f"{out} has no checkpoints: `sps-jax run` saves them with --checkpoint-every; "
            "to resume a sweep, start it again with the same --out"
        )
    before, now = files.read_config(path), files.read_config(out / "config.json")
    refuse_format(before, path)
    if other := differing(before["settings"], now["settings"]):
        was, now = (one.get(other) for one in (before["settings"], now["settings"]))
        raise ValueError(
            f"{out / 'config.json'} was changed: {other} was {was!r}, now {now!r}; change it back to resume"
        )
    return before | {"settings": before["settings"] | {k: now["settings"].get(k) for k in FREE}}


def finished(out: Path) -> tuple[list[Record], int]:
    """Return the summaries of the runs that have ended, and the length of ``metrics.jsonl`` after the last of them.

    Raises:
      ValueError: if ``metrics.jsonl`` is shorter now, or the summaries are damaged.
    """
    path = folder(out) / "finished.jsonl"
    ended = files.read_jsonl(path, ("algorithm", "seed", "diverged_at_round", "metrics_bytes"))
    if any(type(one["metrics_bytes"]) is not int for one in ended):
        raise ValueError(f"{path} is damaged: metrics_bytes must be whole numbers")
    length = ended[-1]["metrics_bytes"] if ended else 0
    metrics = out / "metrics.jsonl"
    if length and (not metrics.exists() or metrics.stat().st_size < length):
        raise ValueError(f"{metrics} has lost records of runs that had ended, so this run cannot be resumed")
    return [{name: value for name, value in one.items() if name != "metrics_bytes"} for one in ended], length


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the name of a setting that differs, ignoring the :data:`FREE` ones; None if all others agree."""
    names = (name for name in {**before, **now} if name not in FREE)
    return next((name for name in names if before.get(name) != now.get(name)), None)


def refuse_format(about: Mapping[str, Any], where: Path) -> None:
    """Raise a ``ValueError`` if the record ``about``, read from ``where``, has another format."""
    if about.get("format") != FORMAT:
        by = about.get("versions", {}).get("sps_jax", "another version")
        raise ValueError(
            f"{where} has format {about.get('format')} (of sps_jax {by}); this version reads only {FORMAT}"
        )


def locked(out: Path) -> contextlib.AbstractContextManager[None]:
    """Lock the folder against other processes; see :func:`sps_jax.results.files.locked`."""
    return files.locked(out, folder(out) / "begun.json")
