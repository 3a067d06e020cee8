"""The owner of each row: what the partitions of :mod:`sps_jax.datasets.partition` have in common."""

import math
import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sps_jax.datasets.containers import as_labels

Parts = list[np.ndarray]


def natural(groups: ArrayLike) -> Parts:
    """Return one part per distinct value of ``groups`` (N,), in order of first appearance.

    Raises ValueError if ``groups`` is empty or not one-dimensional.

    Example:
      >>> [part.tolist() for part in natural(["b", "a", "b"])]
      [[0, 2], [1]]
    """
    values = one_dimensional("groups", groups)
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    by_value = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    return [by_value[i].astype(np.int64) for i in np.argsort(first)]


def ids(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the client of each row, (N,), for :func:`sps_jax.from_arrays`.

    Raises ValueError unless each row from 0 to N - 1 belongs to one client.

    Example:
      >>> ids([np.array([0, 2]), np.array([1])]).tolist()
      [0, 1, 0]
    """
    rows = np.concatenate([np.asarray(part, np.int64) for part in parts]) if len(parts) else np.empty(0, np.int64)
    if (np.sort(rows) != np.arange(len(rows))).any():
        raise ValueError(f"parts must have each row from 0 to {len(rows) - 1} once")
    owner = np.empty(len(rows), np.int64)
    owner[rows] = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return owner


def by_shares(rows: int, shares: np.ndarray) -> np.ndarray:
    """Return the owner of each of ``rows`` places: the i-th lies at i + 1/2, in the share of the client it goes to."""
    place = np.searchsorted(np.cumsum(shares) * rows, np.arange(rows) + 0.5)
    return np.minimum(place, len(shares) - 1)


def nobody_below(owner: np.ndarray, clients: int, least: int) -> np.ndarray:
    """Give clients with fewer than ``least`` examples the last one of the largest client (ties: lowest index) each."""
    sizes = np.bincount(owner, minlength=clients)
    for poor in np.flatnonzero(sizes < least):
        while sizes[poor] < least:
            rich = sizes.argmax()
            owner[np.flatnonzero(owner == rich)[-1]] = poor
            sizes[rich] -= 1
            sizes[poor] += 1
    return owner


def owned(owner: np.ndarray, clients: int) -> Parts:
    """Return the rows of each client, given the ``owner`` (client) of each row."""
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner, minlength=clients))[:-1])


def one_dimensional(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as labels (N,), N >= 1; raise a ``ValueError`` that names the argument for another shape."""
    array = as_labels(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: allowed is one dimension with at least one entry")
    return array


def whole(name: str, value: int, least: int) -> int:
    """Return ``value`` as an ``int``; unlike :func:`sps_jax.errors.whole_number` it refuses floats such as 3.0."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} = {value!r}: allowed is a whole number, at least {least}")
    return number


def checked_clients(clients: int, available: int, unit: str) -> int:
    """Return the number of clients; raise a ``ValueError`` unless there is one of the ``available`` units for each."""
    number = whole("clients", clients, 1)
    if number > available:
        raise ValueError(f"clients = {clients}: allowed is at most {available}, the number of {unit}")
    return number


def checked_alpha(alpha: float) -> float:
    """Return alpha within bounds outside which gamma variates over- or underflow, and shares are one-hot or uniform."""
    if not (isinstance(alpha, int | float | np.number) and 0 < alpha < math.inf):
        raise ValueError(f"alpha = {alpha!r}: allowed is a positive, finite number")
    return min(max(float(alpha), 1e-12), 1e12)


def checked_least(least: int, clients: int, examples: int) -> int:
    """Return the least number of examples per client; raise a ``ValueError`` if there are too few examples for it."""
    number = whole("least", least, 1)
    if number * clients > examples:
        raise ValueError(f"least = {number}: allowed is at most {examples // clients}, {examples} examples / {clients}")
    return number


def generator_of(seed: int) -> np.random.Generator:
    """Return NumPy's generator of a seed, a whole number of at least 0."""
    return np.random.default_rng(whole("seed", seed, 0))
