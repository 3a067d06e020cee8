"""The journal of a run on several processes: process 0 writes it, and all others call it at the same points."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sps_jax.runs import processes
from sps_jax.runs.blocks import Standing
from sps_jax.runs.signals import StopRequest
from sps_jax.runs.writer import Record, RunWriter
from sps_jax.simulation.state import Past
from sps_jax.tree import Tree


class SharedStopRequest(StopRequest):
    """A request to stop that all processes see at the same round, whichever process received the signal.

    Args:
      own: this process's own request.
    """

    def __init__(self, own: StopRequest) -> None:
        self._own = own

    def hear(self) -> None:
        """Exchange the received signals; a collective, so all processes must call it together."""
        self.signal = processes.largest(self._own.signal or 0) or None


class SharedJournal:
    """The journal (:class:`sps_jax.runs.writer.RunWriter`) for several processes, which must all make the same calls.

    It gathers the state in process 0 when a checkpoint is due, and broadcasts the restored state to all processes.

    Args:
      own: the journal of process 0, whose stop is ``stop``; None in the other processes.
      finished: the summaries of the runs that have ended.
      rounds: the number of rounds of a run.
      every: the number of rounds between checkpoints; None for none.
      stop: the shared request to stop.
    """

    def __init__(
        self, own: RunWriter | None, finished: Sequence[Record], rounds: int, every: int | None, stop: SharedStopRequest
    ) -> None:
        self.finished = list(finished)
        self._own, self._rounds, self._every, self._stop = own, rounds, every, stop

    @property
    def out(self) -> Path | None:
        """The folder of results; None in every process but process 0."""
        return self._own.out if self._own else None

    def __enter__(self) -> "SharedJournal":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._own:
            self._own.__exit__(*error)

    def standing(self, names: Record, start: Standing) -> Standing:
        """Return the progress to resume from; raises as :meth:`sps_jax.runs.journal.Journal.standing`."""
        self._stop.hear()
        self._stop.check()
        at = self._own.standing(names, start) if self._own else start
        rounds, iterations = processes.from_first(np.array([at.past.rounds, at.iterations], np.int32)).tolist()
        if rounds == 0:
            return start
        state = processes.from_first(at.state)
        return at._replace(state=state) if self._own else Standing(state, Past(rounds), iterations)

    def add(self, names: Record, rows: list[Record], at: Standing) -> None:
        """Add records of a run; raises as :meth:`sps_jax.runs.journal.Journal.add`."""
        ended, every = at.ended(self._rounds), self._every
        self._stop.hear()
        if not ended and every is not None and (at.past.rounds % every == 0 or self._stop.signal is not None):
            at = at._replace(state=processes.whole(at.state))
        if self._own:
            self._own.add(names, rows, at)
        if not ended:
            self._stop.check()

    def earlier(self, names: Record, at: Standing) -> list[Record]:
        """Return the records that a resumed run has already, in process 0; an empty list in the others."""
        return self._own.earlier(names, at) if self._own else []

    def keep(self, names: Record, model: Tree, about: Record) -> None:
        """Write the model of a run."""
        if self._own:
            self._own.keep(names, model, about)

    def finish(self, summary: Record) -> None:
        """Record that the run has ended."""
        self.finished.append(summary)
        if self._own:
            self._own.finish(summary)
