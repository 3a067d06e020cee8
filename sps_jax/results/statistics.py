r"""Statistics over seeds: means with intervals, and paired comparisons.

Of n values with mean :math:`\bar v` and sample deviation s, the 95 % t-interval is :math:`\bar v \pm t\, s / \sqrt n`,
t being the 0.975 quantile of Student's distribution with n - 1 degrees of freedom: 12.7 for n = 2, 4.30 for 3, 2.78 for
5. It holds the expectation over seeds with probability 0.95 if the values are independent and normal. Two methods are
compared by the interval of their differences at equal seeds, which share data and randomness: what makes a seed hard
for both cancels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit


def seeds_in_words(methods: int) -> str:
    """Return what the numbers of a table over seeds are.

    >>> seeds_in_words(1)
    'Numbers are means over seeds, +- the half-width of the 95 % t-interval.'
    """
    paired = "; differences are paired by seed" if methods > 1 else ""
    return f"Numbers are means over seeds, +- the half-width of the 95 % t-interval{paired}."


class Interval(NamedTuple):
    """A mean and half the length of its 95 % interval, None for a single value."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        """Return both with four decimals.

        >>> print(Interval(0.5, 0.01), Interval(0.5, None))
        0.5000+-0.0100 0.5000
        """
        return f"{self.mean:.4f}" + ("" if self.half is None else f"+-{self.half:.4f}")


def interval(values: Iterable[float]) -> Interval:
    """Return the mean and half the 95 % t-interval of at least one value.

    Example:
      >>> interval([1.0, 2.0, 3.0])  # 4.30 / sqrt(3)
      Interval(mean=2.0, half=2.484...)
      >>> interval([1.0])
      Interval(mean=1.0, half=None)
    """
    seen = np.array(list(values), float)
    return Interval(float(seen.mean()), float(half_width(seen[:, None])[0]) if len(seen) > 1 else None)


def half_width(values: np.ndarray) -> np.ndarray:
    """Return half the 95 % t-intervals of ``values`` (n, ...) over the first axis, n >= 2.

    Example:
      >>> half_width(np.array([[0.0, 1.0], [2.0, 1.0]])).round(1).tolist()
      [12.7, 0.0]
    """
    n = len(values)
    return stdtrit(n - 1, 0.975) * values.std(axis=0, ddof=1) / np.sqrt(n)


def differences(
    ends: Mapping[str, Mapping[int, float]], largest: bool
) -> tuple[str | None, dict[str, Interval | None]]:
    """Compare each method with the best one, seed by seed.

    Args:
      ends: method -> seed -> value.
      largest: whether larger values are better.

    Returns:
      The method of best mean (None without a value), and per other method the interval of its value minus the best
      one's over the seeds that both have; None for the best one itself, and without such a seed.

    Example:
      >>> best, found = differences({"a": {0: 3.0, 1: 5.0}, "b": {0: 2.0, 1: 4.0}}, largest=True)
      >>> best, found["b"]
      ('a', Interval(mean=-1.0, half=0.0))
    """
    means = {name: np.mean(list(values.values())) for name, values in ends.items() if values}
    best = (max if largest else min)(means, key=lambda name: means[name], default=None)
    found: dict[str, Interval | None] = {}
    for name, values in ends.items():
        level = {} if best is None else ends[best]
        pairs = [value - level[seed] for seed, value in values.items() if seed in level]
        found[name] = interval(pairs) if pairs and name != best else None
    return best, found


def unmoved(runs: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a sentence if several seeds of a method gave the same records, because nothing in it is random.

    Args:
      runs: (algorithm, seed) -> its records.

    Example:
      >>> unmoved({("gd", seed): [{"round": 1, "seed": seed, "train_loss": 0.5}] for seed in (0, 1)})
      ['the seeds change nothing in gd: with these options nothing is random, so seeds and intervals tell nothing']
    """
    by_method: dict[str, list[list[dict[str, Any]]]] = {}
    for (name, _), records in runs.items():
        bare = [{key: value for key, value in record.items() if key != "seed"} for record in records]
        by_method.setdefault(name, []).append(bare)
    same = [name for name, seeds in by_method.items() if len(seeds) > 1 and seeds[0] and seeds[1:] == seeds[:-1]]
    if not same:
        return []
    why = "with these options nothing is random, so seeds and intervals tell nothing"
    return [f"the seeds change nothing in {', '.join(same)}: {why}"]


def when(stopped: bool) -> str:
    """Return in words after how many rounds the runs of a table are compared, of which some were ``stopped`` or none.

    >>> when(False), when(True)
    ('after equal rounds', 'where each run ended, some by a rule')
    """
    return "where each run ended, some by a rule" if stopped else "after equal rounds"
