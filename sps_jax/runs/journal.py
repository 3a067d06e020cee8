"""What a run puts on disk while it goes, by whole runs or with checkpoints, and how it is taken up again."""

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
from sps_jax.runs.signals import Wish
from sps_jax.simulation.history import Past

FORMAT = 1
"""Of all that is in ``checkpoints/``. Another number means that this version cannot go on from it."""

FREE = ("out", "manual_dir", "data_dir", "target", "chunk", "devices", "coordinator", "num_processes", "process_id")
"""Settings that may be changed in between: they do not change a record, or the layout's its last bits alone."""

Record = dict[str, Any]


class Whole:
    """``metrics.jsonl`` grows by whole runs, written whole or not at all."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.finished: list[Record] = []
        self._rows: list[Record] = []

    def standing(self, names: Record, start: Standing) -> Standing:
        """Where the run goes on from."""
        return start

    def add(self, names: Record, rows: list[Record], at: Standing) -> None:
        """Records of a run, which is ``at`` that point now."""
        self._rows += rows

    def finish(self, summary: Record) -> None:
        """The run has ended."""
        files.write_jsonl(self.out / "metrics.jsonl", self._rows)
        self.finished.append(summary)


class Nothing(Whole):
    """Of a process that is not the first: nothing is written."""

    def __init__(self) -> None:
        self.finished: list[Record] = []

    def add(self, names: Record, rows: list[Record], at: Standing) -> None:
        """Records of a run, which is ``at`` that point now."""

    def finish(self, summary: Record) -> None:
        """The run has ended."""
        self.finished.append(summary)


class Journal:
    """Runs that can be taken up: ``metrics.jsonl`` grows by blocks, ``checkpoints/`` has what there is to know.

    ``begun.json`` there says what was begun. ``finished.jsonl`` has the summary of each run that has ended, with the
    length of ``metrics.jsonl`` then. Checkpoint ``i * rounds + r`` is the state of run ``i`` (of algorithms and seeds,
    in order) after round ``r``, with that length too: what is behind it is cut off when the run is taken up.

    Args:
      out: the folder.
      begun: what :func:`begin` wrote.
      wish: whether to stop; it is heeded when a run begins and after each block, with a checkpoint.
      again: whether it is taken up, and says where it goes on.
    """

    def __init__(self, out: Path, begun: Mapping[str, Any], wish: Wish, again: bool) -> None:
        self.out, self.begun, self.wish, self._again = out, begun, wish, again
        self.rounds, self.every = begun["settings"]["rounds"], begun["settings"]["checkpoint_every"]
        self.metrics, self._ended = out / "metrics.jsonl", folder(out) / "finished.jsonl"
        files.cut_torn(self._ended)
        self.finished, self._length = finished(out)
        self.metrics.touch()
        self._checkpoints = Checkpoints(folder(out))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: Any) -> None:
        self._checkpoints.__exit__(*error)

    def standing(self, names: Record, start: Standing) -> Standing:
        """Where the run goes on from: its newest checkpoint that can be read, or its start.

        Raises:
          Stopped: where that was asked for.
        """
        self.wish.check()
        index, at = len(self.finished), start
        for step in reversed(self._checkpoints.steps()):
            if step // self.rounds < index:
                break  # of a run that has ended
            try:
                at, self._length = self._restore(step, names, start)
                break
            except Unreadable as error:
                print(f"sps-jax: {error}; it is set aside for the one before", file=sys.stderr)
                self._checkpoints.set_aside(step)
        os.truncate(self.metrics, self._length)
        if self._again:
            where = f"after round {at.past.rounds} of {self.rounds}" if at.past.rounds else "from its beginning"
            console.say(f"sps-jax: {names['algorithm']} (seed {names['seed']}) goes on {where}")
            self._again = False
        return at

    def add(self, names: Record, rows: list[Record], at: Standing) -> None:
        """Records of a run, which is ``at`` that point now; a checkpoint where it is due.

        Raises:
          OSError: where they could not be written.
          Stopped: where that was asked for; the checkpoint is there then.
        """
        files.append_jsonl(self.metrics, rows)
        if at.past.rounds == self.rounds or at.diverged is not None:
            return  # the run has ended
        if at.past.rounds % self.every == 0 or self.wish.signal is not None:
            self._save(names, at)
        if self.wish.signal is not None:
            self._checkpoints.wait()
            self.wish.check()

    def finish(self, summary: Record) -> None:
        """The run has ended: from now on it is known by its summary."""
        self.finished.append(summary)
        files.sync(self.metrics)
        self._length = self.metrics.stat().st_size
        files.append_jsonl(self._ended, [summary | {"metrics_bytes": self._length}])
        files.sync(self._ended)

    def _save(self, names: Record, at: Standing) -> None:
        files.sync(self.metrics)  # the checkpoint counts on it
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
        past = Past() if missing else Past(**about["past"])  # as it was written: the record has a checksum
        here = (None, names, step - len(self.finished) * self.rounds)
        if missing or (differing(self.begun["settings"], about["settings"]), about["run"], past.rounds) != here:
            raise Unreadable(f"checkpoint {where} cannot be used: it is of another run")
        if self.metrics.stat().st_size < about["metrics_bytes"]:
            raise Unreadable(f"checkpoint {where} cannot be used: {self.metrics} has lost records before it")
        state = self._checkpoints.restore(step, start.state)
        return Standing(state, past, about["iterations"], about["seconds"]), about["metrics_bytes"]


def folder(out: Path) -> Path:
    """Where the checkpoints of a run are."""
    return out / "checkpoints"


def begin(out: Path, config: Mapping[str, Any]) -> None:
    """Note what is begun in ``out``, which is empty."""
    folder(out).mkdir()
    files.write_json(folder(out) / "begun.json", {"format": FORMAT} | dict(config))


def begun(out: Path) -> dict[str, Any]:
    """What was begun in a folder, of which ``config.json`` says what is to be gone on with.

    Raises:
      ValueError: where nothing was, by another format, or with other settings than ``config.json`` has now.
    """
    path = folder(out) / "begun.json"
    if not (out / "config.json").is_file():
        raise ValueError(f"{out} is not the folder of a run: there is no config.json in it")
    if not path.is_file():
        raise ValueError(
            f"{out} has no checkpoints: `sps-jax run` leaves them with --checkpoint-every; "
            "a sweep goes on where it is started again with the same --out"
        )
    before, now = files.read_config(path), files.read_config(out / "config.json")
    refuse_format(before, path)
    if other := differing(before["settings"], now["settings"]):
        was, now = (one.get(other) for one in (before["settings"], now["settings"]))
        raise ValueError(f"{out / 'config.json'} was changed: {other} was {was!r}, now {now!r}; put it back to go on")
    return before | {"settings": before["settings"] | {k: now["settings"].get(k) for k in FREE}}


def finished(out: Path) -> tuple[list[Record], int]:
    """The summaries of the runs that have ended, and the length of ``metrics.jsonl`` then.

    Raises:
      ValueError: where it is shorter now, or they are damaged.
    """
    path = folder(out) / "finished.jsonl"
    ended = files.read_jsonl(path, ("algorithm", "seed", "diverged_at_round", "metrics_bytes"))
    if any(type(one["metrics_bytes"]) is not int for one in ended):
        raise ValueError(f"{path} is damaged: metrics_bytes must be whole numbers")
    length = ended[-1]["metrics_bytes"] if ended else 0
    metrics = out / "metrics.jsonl"
    if length and (not metrics.exists() or metrics.stat().st_size < length):
        raise ValueError(f"{metrics} has lost records of runs that had ended; it cannot be gone on with")
    return [{name: value for name, value in one.items() if name != "metrics_bytes"} for one in ended], length


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The name of a setting that is not the same, None where all are, but for the :data:`FREE` ones."""
    names = (name for name in {**before, **now} if name not in FREE)
    return next((name for name in names if before.get(name) != now.get(name)), None)


def refuse_format(about: Mapping[str, Any], where: Path) -> None:
    """Raise a ``ValueError`` for what another format wrote."""
    if about.get("format") != FORMAT:
        by = about.get("versions", {}).get("sps_jax", "another version")
        raise ValueError(
            f"{where} has format {about.get('format')} (of sps_jax {by}); this version reads {FORMAT} alone"
        )


def alone(out: Path) -> contextlib.AbstractContextManager[None]:
    """Keep other processes from working in the same folder, see :func:`sps_jax.results.files.alone`."""
    return files.alone(out, folder(out) / "begun.json")
