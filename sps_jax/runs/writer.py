"""What every run writes to disk while it runs: its records, as they come, and its model."""

from pathlib import Path
from typing import Any, Self

from sps_jax.results import files
from sps_jax.runs import models
from sps_jax.runs.blocks import Standing
from sps_jax.runs.signals import StopRequest
from sps_jax.tree import Tree

Record = dict[str, Any]


class RunWriter:
    """A journal without checkpoints: it appends records to ``metrics.jsonl`` after each block.

    Args:
      out: the folder of results.
      stop: the request to stop; honoured when a run begins and after each block.
      rounds: the number of rounds of a run.
    """

    def __init__(self, out: Path, stop: StopRequest, rounds: int) -> None:
        self.out, self.stop, self.rounds = out, stop, rounds
        self.metrics = out / "metrics.jsonl"
        self.metrics.touch()
        self.finished: list[Record] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing is open."""

    def standing(self, names: Record, start: Standing) -> Standing:
        """Return the progress to start from, here always ``start``; raises :class:`Stopped`."""
        self.stop.check()
        return start

    def earlier(self, names: Record, at: Standing) -> list[Record]:
        """Return the records that a resumed run, whose progress is ``at``, has already."""
        if not at.past.rounds:
            return []
        kept = files.read_jsonl(self.metrics, ("round", *names))
        return [row for row in kept if names.items() <= row.items() and row["round"] <= at.past.rounds]

    def add(self, names: Record, rows: list[Record], at: Standing) -> None:
        """Add records of a run, whose progress is ``at``.

        Raises:
          OSError: if they could not be written.
          Stopped: if a stop was requested and the run has not ended.
        """
        files.append_jsonl(self.metrics, rows)
        if not at.ended(self.rounds):
            self.stop.check()

    def keep(self, names: Record, model: Tree, about: Record) -> None:
        """Write the model of a run."""
        models.save_model(models.file_of(self.out, names["algorithm"], names["seed"]), model, names | about)

    def finish(self, summary: Record) -> None:
        """Record that the run has ended, by its summary."""
        self.finished.append(summary)
