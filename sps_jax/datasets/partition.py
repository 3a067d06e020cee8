"""Partition examples over clients.

``sps.from_arrays(x, y, sps.partition.ids(parts))`` is the problem of such parts.

Every function but :func:`ids` and :func:`noisy` returns one increasing int64 array of row indices per client; every
example belongs to exactly one client, and no client is empty. The same arguments give the same parts.
"""

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sps_jax.datasets.owners import (
    Parts,
    by_shares,
    checked_alpha,
    checked_clients,
    checked_least,
    generator_of,
    ids,
    natural,
    nobody_below,
    one_dimensional,
    owned,
    whole,
)
from sps_jax.datasets.skew import few_labels, noisy, quantity

__all__ = [
    "by_label",
    "by_size",
    "dirichlet",
    "few_labels",
    "ids",
    "iid",
    "natural",
    "noisy",
    "quantity",
    "split",
    "united",
]


def iid(examples: int, clients: int, seed: int) -> Parts:
    """Partition ``examples`` rows uniformly at random; the sizes of the ``clients`` parts differ by at most one.

    Raises ValueError unless 1 <= clients <= examples and seed >= 0.

    Example:
      >>> [len(part) for part in iid(7, clients=3, seed=0)]
      [3, 2, 2]
    """
    examples, clients = whole("examples", examples, 1), checked_clients(clients, examples, "examples")
    order = generator_of(seed).permutation(examples)
    return [np.sort(part).astype(np.int64) for part in np.array_split(order, clients)]


def dirichlet(labels: ArrayLike, clients: int, alpha: float, seed: int, least: int = 1) -> Parts:
    """Partition with label skew: split each class over the clients by shares drawn from Dirichlet(alpha, ..., alpha).

    ``labels`` (N,) are of any sortable type. A small ``alpha`` gives a class to few clients, a large one to all
    equally. The shares are drawn per class, as by Yurochkin et al. 2019 (arXiv 1905.12022), so the clients differ in
    size; Hsu et al. 2019 (arXiv 1909.06335) instead draw the class shares of each client, of a fixed size. A client
    with fewer than ``least`` examples gets more, one by one from the client that has most at that moment; Yurochkin et
    al. draw anew instead, until each has 10, which may take forever.

    Raises ValueError unless 1 <= clients, clients * least <= N, alpha is positive and finite, and seed >= 0.

    Example:
      >>> parts = dirichlet([0, 0, 0, 1, 1, 1], clients=2, alpha=0.5, seed=0)
      >>> sorted(np.concatenate(parts).tolist())
      [0, 1, 2, 3, 4, 5]
    """
    values = one_dimensional("labels", labels)
    clients = checked_clients(clients, len(values), "examples")
    alpha, least, generator = checked_alpha(alpha), checked_least(least, clients, len(values)), generator_of(seed)
    owner = np.empty(len(values), np.int64)
    for rows in natural(values):
        place = by_shares(len(rows), generator.dirichlet(np.full(clients, alpha)))
        owner[generator.permutation(rows)] = place
    return owned(nobody_below(owner, clients, least), clients)


def by_label(labels: ArrayLike, clients: int) -> Parts:
    """Partition pathologically: sort rows by label (stable) and cut them into parts whose sizes differ by at most one.

    ``labels`` (N,) are of any sortable type. Raises ValueError unless 1 <= clients <= N.

    Example:
      >>> [part.tolist() for part in by_label([1, 0, 1, 0], clients=2)]
      [[1, 3], [0, 2]]
    """
    values = one_dimensional("labels", labels)
    clients = checked_clients(clients, len(values), "examples")
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
    clients = checked_clients(clients, len(parts), "groups")
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
    seed = whole("seed", seed, 0)
    if len(parts) == 0:
        raise ValueError("parts is empty: there must be at least one client")
    train, test = [], []
    for client, part in enumerate(parts):
        rows = one_dimensional(f"parts[{client}]", part).astype(np.int64)
        # floor(fraction * m) < m in exact arithmetic; the product may round up to m.
        count = min(math.floor(test_fraction * len(rows)), len(rows) - 1)
        rows = np.random.default_rng([seed, client]).permutation(rows)
        test.append(np.sort(rows[:count]))
        train.append(np.sort(rows[count:]))
    return train, test
