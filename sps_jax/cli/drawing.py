"""The problems of a sweep, whose data differ by seed and by the data settings that are swept."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sps_jax.cli.from_options import build_problem
from sps_jax.cli.options import Run
from sps_jax.cli.padding import Sizes, common, padded, sizes
from sps_jax.cli.sweep_options import DATA
from sps_jax.problem import Problem
from sps_jax.simulation.sweep import Outcome, Seeded, sweep_prepared

T = TypeVar("T")
_problem = lru_cache(maxsize=1)(build_problem)
"""One object for all generations of a search, which then share programs."""


class Drawn:
    """The problems of single runs, of which one is in memory at a time.

    They are padded to one size for all seeds of the same settings, so that these share compiled programs.

    Attributes:
      several: the names of the data settings that differ between the runs.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._sizes: dict[tuple, list[Sizes]] = {}
        self._groups: dict[tuple, list[int]] = {}
        for i, one in enumerate(runs):
            self._groups.setdefault(_settings(one), []).append(i)
        self.several = [name for name in DATA if len({getattr(one, name) for one in runs}) > 1]

    def problem(self, number: int) -> Problem:
        """Return the problem of a run, padded if the sizes of all are known."""
        *alike, _ = settings = _settings(self._runs[number])
        first = self._runs[self._groups[settings][0]]
        return padded(_problem(first), common(self._sizes.get(tuple(alike), [])))

    def measured(self, work: Callable[[int, Problem], T]) -> list[T]:
        """Return ``work(number, problem)`` of every run, and learn their sizes: this builds each problem once."""
        found: dict[int, T] = {}
        for (*alike, _), numbers in self._groups.items():
            problem = _problem(self._runs[numbers[0]])
            self._sizes.setdefault(tuple(alike), []).append(sizes(problem))
            found |= {i: work(i, problem) for i in numbers}
        return [found[i] for i in range(len(self._runs))]

    def outcomes(self, points: Mapping[int, Seeded], settings: Mapping[str, Any]) -> Iterator[Outcome]:
        """Return the outcomes of some of the runs; their ``point`` is the run's number.

        Raises:
          ValueError: as :func:`sweep_prepared`, for the first problem before anything is computed.
        """
        left = [own for numbers in self._groups.values() if (own := [i for i in numbers if i in points])]

        def swept(numbers: list[int]) -> Iterator[Outcome]:
            found = sweep_prepared(self.problem(numbers[0]), [points[i] for i in numbers], **settings)
            return (outcome._replace(point=numbers[outcome.point]) for outcome in found)

        begun = [swept(numbers) for numbers in left[:1]]
        return itertools.chain(*begun, itertools.chain.from_iterable(map(swept, left[1:])))


def _settings(one: Run) -> tuple:
    """Return what the data of a run depend on and may differ within a sweep; the seed is the last."""
    *others, seed = (getattr(one, name) for name in DATA)
    return *others, one.seed if seed is None else seed
