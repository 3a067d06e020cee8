"""Partition examples over clients.

Every function returns one increasing int64 array of row indices per client; every example belongs to exactly one
client, and no client is empty. The same arguments give the same parts.
"""

import heapq
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
    values = _one_dimensional("groups", groups)
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    by_value = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    return [by_value[i].astype(np.int64) for i in np.argsort(first)]


def iid(examples: int, clients: int, seed: int) -> Parts:
    """Partition ``examples`` rows uniformly at random; the sizes of the ``clients`` parts differ by at most one.

    Raises ValueError unless 1 <= clients <= examples and seed >= 0.

    Example:
      >>> [len(part) for part in iid(7, clients=3, seed=0)]
      [3, 2, 2]
    """
    examples, clients = _whole("examples", examples, 1), _clients(clients, examples, "examples")
    order = _generator(seed).permutation(examples)
    return [np.sort(part).astype(np.int64) for part in np.array_split(order, clients)]


def dirichlet(labels: ArrayLike, clients: int, alpha: float, seed: int) -> Parts:
    """Partition with label skew: split each class over the clients by shares drawn from Dirichlet(alpha, ..., alpha).

    ``labels`` (N,) are of any sortable type. A small ``alpha`` gives a class to few clients, a large one to all
    equally. The shares are drawn per class, as by Yurochkin et al. 2019 (arXiv 1905.12022), so the clients differ in
    size; Hsu et al. 2019 (arXiv 1909.06335) instead draw the class shares of each client, of a fixed size. A client
    without examples gets one from the client that has most at that moment.

    Raises ValueError unless 1 <= clients <= N, alpha is positive and finite, and seed >= 0.

    Example:
      >>> parts = dirichlet([0, 0, 0, 1, 1, 1], clients=2, alpha=0.5, seed=0)
      >>> sorted(np.concatenate(parts).tolist())
      [0, 1, 2, 3, 4, 5]
    """
    values = _one_dimensional("labels", labels)
    clients = _clients(clients, len(values), "examples")
    if not (isinstance(alpha, int | float | np.number) and 0 < alpha < math.inf):
        raise ValueError(f"alpha = {alpha!r}: allowed is a positive, finite number")
    # Gamma variates over- or underflow outside these bounds, where shares are one-hot or uniform anyway.
    alpha = min(max(float(alpha), 1e-12), 1e12)
    generator = _generator(seed)
    owner = np.empty(len(values), np.int64)
    for rows in natural(values):
        ends = np.cumsum(generator.dirichlet(np.full(clients, alpha))) * len(rows)
        # The i-th row of the shuffled class lies at i + 1/2 and goes to the client whose share covers that point.
        place = np.searchsorted(ends, np.arange(len(rows)) + 0.5)
        owner[generator.permutation(rows)] = np.minimum(place, clients - 1)
    return _owned(_nobody_empty(owner, clients), clients)


def by_label(labels: ArrayLike, clients: int) -> Parts:
    """Partition pathologically: sort rows by label (stable) and cut them into parts whose sizes differ by at most one.

    ``labels`` (N,) are of any sortable type. Raises ValueError unless 1 <= clients <= N.

    Example:
      >>> [part.tolist() for part in by_label([1, 0, 1, 0], clients=2)]
      [[1, 3], [0, 2]]
    """
    values = _one_dimensional("labels", labels)
    clients = _clients(clients, len(values), "examples")
    return [np.sort(part).astype(np.int64) for part in np.array_split(np.argsort(values, kind="stable"), clients)]


def by_size(groups: ArrayLike, clients: int) -> Parts:
    """Partition whole groups over clients, greedily balancing the clients' sizes.

    Each group of ``groups`` (N,), from the largest down (ties: first appearance first), goes to the client with the
    fewest examples so far (ties: lowest index first).

    Raises ValueError unless 1 <= clients <= number of groups.

    Example:
      >>> [part.tolist() for part in by_size(["a", "b", "a", "c", "a"], clients=2)]
      [[0, 2, 4], [1, 3]]
    """
    return united(natural(groups), clients)


def united(parts: Sequence[np.ndarray], clients: int) -> Parts:
    """Partition as :func:`by_size`, from ``parts`` that hold the row indices of each group.

    Example:
      >>> [part.tolist() for part in united([np.array([0, 2, 4]), np.array([1]), np.array([3])], clients=2)]
      [[0, 2, 4], [1, 3]]
    """
    clients = _clients(clients, len(parts), "groups")
    hands: list[list[np.ndarray]] = [[] for _ in range(clients)]
    heap = [(0, client) for client in range(clients)]
    for part in sorted(parts, key=len, reverse=True):
        size, client = heap[0]
        hands[client].append(part)
        heapq.heapreplace(heap, (size + len(part), client))
    return [np.sort(np.concatenate(hand)) for hand in hands]


def split(parts: Sequence[ArrayLike], test_fraction: float, seed: int) -> tuple[Parts, Parts]:
    """Split each client's rows at random into training and test rows; return ``(train_parts, test_parts)``.

    A client of m rows gives floor(test_fraction m) of them to its test part, which is empty for a small client, and
    keeps at least one for training. A client's split does not depend on the other clients.

    Raises ValueError unless 0 <= test_fraction < 1, seed >= 0, and ``parts`` has a client and no empty one.

    Example:
      >>> train, test = split([range(10), range(10, 13)], 0.2, seed=0)
      >>> [len(part) for part in train], [len(part) for part in test]
      ([8, 3], [2, 0])
    """
    if not (isinstance(test_fraction, int | float | np.number) and 0 <= test_fraction < 1):
        raise ValueError(f"test_fraction = {test_fraction!r}: allowed is a number from 0 up to, but not including, 1")
    seed = _whole("seed", seed, 0)
    if len(parts) == 0:
        raise ValueError("parts is empty: there must be at least one client")
    train, test = [], []
    for client, part in enumerate(parts):
        rows = _one_dimensional(f"parts[{client}]", part).astype(np.int64)
        # floor(fraction * m) < m in exact arithmetic; the product may round up to m.
        count = min(math.floor(test_fraction * len(rows)), len(rows) - 1)
        rows = np.random.default_rng([seed, client]).permutation(rows)
        test.append(np.sort(rows[:count]))
        train.append(np.sort(rows[count:]))
    return train, test


def _nobody_empty(owner: np.ndarray, clients: int) -> np.ndarray:
    """Give each empty client the last example of the largest client (ties: lowest index)."""
    sizes = np.bincount(owner, minlength=clients)
    for poor in np.flatnonzero(sizes == 0):
        rich = sizes.argmax()
        owner[np.flatnonzero(owner == rich)[-1]] = poor
        sizes[rich] -= 1
        sizes[poor] = 1
    return owner


def _owned(owner: np.ndarray, clients: int) -> Parts:
    """Return the rows of each client, given the ``owner`` (client) of each row."""
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner, minlength=clients))[:-1])


def _one_dimensional(name: str, values: ArrayLike) -> np.ndarray:
    array = as_labels(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: allowed is one dimension with at least one entry")
    return array


def _whole(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} = {value!r}: allowed is a whole number, at least {least}")
    return number


def _clients(clients: int, available: int, unit: str) -> int:
    number = _whole("clients", clients, 1)
    if number > available:
        raise ValueError(f"clients = {clients}: allowed is at most {available}, the number of {unit}")
    return number


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(_whole("seed", seed, 0))
