"""The journal of a run on several processes: the first one's, in which the others take part."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sps_jax.runs import processes
from sps_jax.runs.blocks import Standing
from sps_jax.runs.journal import Journal, Record
from sps_jax.runs.signals import Wish
from sps_jax.simulation.history import Past


class Agreed(Wish):
    """A wish to stop that all processes have at the same round, whichever was asked.

    Args:
      own: this process's.
    """

    def __init__(self, own: Wish) -> None:
        self._own = own

    def hear(self) -> None:
        """Take up what any process was asked; they come here together."""
        self.signal = processes.largest(self._own.signal or 0) or None


class SharedJournal:
    """Gathers the state in the first process where a checkpoint is due, and gives all the one that is gone on from.

    All processes make the same calls. It is what :class:`sps_jax.runs.journal.Journal` is to one process.

    Args:
      own: the first process's journal, None in the others; its wish is ``wish``.
      finished: the summaries of the runs that have ended.
      rounds: of a run.
      every: rounds from one checkpoint to the next.
      wish: whether to stop.
    """

    def __init__(self, own: Journal | None, finished: Sequence[Record], rounds: int, every: int, wish: Agreed) -> None:
        self.finished = list(finished)
        self._own, self._rounds, self._every, self._wish = own, rounds, every, wish

    def __enter__(self) -> "SharedJournal":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._own:
            self._own.__exit__(*error)

    def standing(self, names: Record, start: Standing) -> Standing:
        """Where the run goes on from: raises as :meth:`sps_jax.runs.journal.Journal.standing`."""
        self._wish.hear()
        self._wish.check()
        at = self._own.standing(names, start) if self._own else start
        rounds, iterations = processes.from_first(np.array([at.past.rounds, at.iterations], np.int32)).tolist()
        if rounds == 0:
            return start
        state = processes.from_first(at.state)
        return at._replace(state=state) if self._own else Standing(state, Past(rounds), iterations)

    def add(self, names: Record, rows: list[Record], at: Standing) -> None:
        """Records of a run: raises as :meth:`sps_jax.runs.journal.Journal.add`."""
        ended = at.past.rounds == self._rounds or at.diverged is not None
        self._wish.hear()
        if not ended and (at.past.rounds % self._every == 0 or self._wish.signal is not None):
            at = at._replace(state=processes.whole(at.state))
        if self._own:
            self._own.add(names, rows, at)
        if not ended:
            self._wish.check()

    def finish(self, summary: Record) -> None:
        """The run has ended."""
        self.finished.append(summary)
        if self._own:
            self._own.finish(summary)
