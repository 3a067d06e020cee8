"""What is done between two blocks of a run: its model is kept, its records are told, and rules may end it."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from sps_jax.runs import console, processes
from sps_jax.runs.blocks import Row, Standing, block_length
from sps_jax.runs.trackers import Tracked
from sps_jax.simulation.method import Method
from sps_jax.simulation.simulate import shipped
from sps_jax.simulation.watching import Best, Watch
from sps_jax.tree import Tree


class Watching(NamedTuple):
    """What a job keeps, tells and stops at.

    Attributes:
      keep: which model, see :mod:`sps_jax.runs.models`.
      stop_at, patience, best_by: as in :func:`sps_jax.simulate`.
      track: see :mod:`sps_jax.runs.trackers`.
    """

    keep: str = "last"
    stop_at: str | None = None
    patience: int | None = None
    track: tuple[str, ...] = ()
    best_by: str | None = None

    @property
    def each_evaluation(self) -> bool:
        """Whether something is decided after each evaluation, so that a block must end there."""
        return self.keep == "best" or self.stop_at is not None or self.patience is not None

    def block_length(self, rounds: int, checkpoint_every: int | None, evaluate_every: int) -> int:
        """Return the number of rounds of a block; a block that must end at evaluations has at most one.

        >>> Watching().block_length(200, None, 4), Watching(patience=3).block_length(200, None, 4)
        (10, 2)
        """
        length = block_length(rounds, checkpoint_every)
        return math.gcd(length, evaluate_every) if self.each_evaluation else length

    def watch(self, tell: Callable[[Row], Any] | None) -> Watch:
        """Return the watch of one run, which calls ``tell`` with each row."""
        return Watch(tell, self.stop_at, self.patience, self.best_by)


class Keeper(Protocol):
    """What writes the records and models of runs, and knows which have ended."""

    finished: list[Row]

    @property
    def out(self) -> Path | None:
        """The folder of results; None where another process writes it."""

    def standing(self, names: Row, start: Standing) -> Standing:
        """Return the progress to resume from."""

    def earlier(self, names: Row, at: Standing) -> list[Row]:
        """Return the records that a resumed run has already."""

    def add(self, names: Row, rows: list[Row], at: Standing) -> None:
        """Add records of a run, whose progress is ``at``."""

    def keep(self, names: Row, model: Tree, about: Row) -> None:
        """Write the model of a run."""

    def finish(self, summary: Row) -> None:
        """Record that the run has ended."""


class RunWatch:
    """Called after each block of one run with its progress and new rows; returns the progress, maybe as stopped.

    Several processes decide what process 0 does, which alone sees the records of a resumed run.

    Args:
      what: what to keep and when to stop.
      method: the method that is run.
      keeper: writes the models.
      names: what identifies the run.
      rounds: its number of rounds.
    """

    def __init__(self, what: Watching, method: Method, keeper: Keeper, names: Row, rounds: int) -> None:
        self._what, self._method, self._keeper, self._names, self._rounds = what, method, keeper, names, rounds
        self._watch, self._best = what.watch(None), Best(what.best_by)

    def resume(self, at: Standing, tell: Callable[[Row], Any] | None) -> None:
        """Take up a run whose progress is ``at``; from now on ``tell`` gets each row."""
        self._watch = self._what.watch(tell)
        for row in self._keeper.earlier(self._names, at) if self._what.each_evaluation else ():
            self._watch.recall([row])
            self._best.improves(row)

    def __call__(self, at: Standing, rows: list[Row]) -> Standing:
        why = self._watch(rows)
        better = self._what.keep == "best" and any([self._best.improves(row) for row in rows])
        if self._what.each_evaluation and processes.several():
            better, stop = processes.from_first(np.array([better, why is not None])).tolist()
            why = (why or "") if stop else None
        if why is not None and at.past.rounds < self._rounds:
            at = at._replace(stopped=why)
            if processes.first():
                run = f"{self._names['algorithm']} (seed {self._names['seed']})"
                console.say(f"sps-jax: {run} stopped after round {at.past.rounds}: {why}")
        if better:
            self._keep(at, f"best {self._best.metric}, {self._best.value:.6g}")
        elif self._what.keep == "last" and at.ended(self._rounds) and at.diverged is None:
            self._keep(at, "last")
        return at

    def _keep(self, at: Standing, kept: str) -> None:
        model = processes.whole(shipped(self._method, at.state.server))
        self._keeper.keep(self._names, model, {"round": at.past.rounds, "kept": kept})


def tracked(out: Path, names: Row, hyper: Row, at: Standing) -> Tracked:
    """Return a run as trackers know it; it has the same identifier when it is resumed, and no other has."""
    name = f"{out.name}-{names['algorithm']}-{names['seed']}"
    begun = f"{out.resolve()} {(out / 'config.json').stat().st_mtime_ns} {name}"
    return Tracked(name, names | hyper, hashlib.sha256(begun.encode()).hexdigest()[:16], at.past.rounds)
