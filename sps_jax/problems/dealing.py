"""Splits a data set's rows: dealt to clients, held out as test data, set apart as validation data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sps_jax.datasets import partition
from sps_jax.errors import described, real, refuse_unknown
from sps_jax.problems.shared import Split

PARTITIONS = ("natural", "iid", "dirichlet", "by_label", "few_labels", "quantity", "by_size")

Parts = Sequence[np.ndarray]


def fifth_held_out(examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training rows, in random order, and a fifth of all rows, rounded down, to hold out."""
    order = np.random.default_rng(seed).permutation(examples)
    return order[examples // 5 :], order[: examples // 5]


def hold_out_and_deal(
    split: Split, labels: np.ndarray, own: Parts, called: str
) -> tuple[np.ndarray, np.ndarray, Parts, np.ndarray | None]:
    """Holds out a tenth of each natural client's rows, drawn with ``data_seed``, and deals the others.

    Args:
      split: as for :func:`deal`; ``"natural"`` takes the first ``clients`` natural clients.
      labels: (N,) labels of all rows.
      own: the rows of each natural client.
      called: what a natural client is, for the error message.

    Returns:
      The training rows, the held-out rows, and what :func:`deal` returns for the training rows.

    Raises:
      ValueError: as :func:`deal`.
    """
    if split["partition"] == "natural":
        own = _first(own, split["clients"], called)
    train, test = partition.split(own, 0.1, split["data_seed"])
    rows = np.concatenate(train)
    return rows, np.concatenate(test), *deal(split, labels[rows], consecutive([len(part) for part in train]))


def consecutive(sizes: Sequence[int]) -> Parts:
    """Returns consecutive rows for clients with these numbers of rows.

    >>> [part.tolist() for part in consecutive([2, 1])]
    [[0, 1], [2]]
    """
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


def deal(split: Split, labels: np.ndarray, own: Parts | None = None) -> tuple[Parts, np.ndarray | None]:
    """Deals rows to ``clients`` by the ``partition``, see :mod:`sps_jax.datasets.partition`.

    Args:
      split: all options of :class:`Split`; ``validation`` is the fraction of each client's rows, drawn with
        ``data_seed``, that is then set apart.
      labels: (N,) labels of the rows.
      own: the rows of each natural client; None if the data have no natural clients.

    Returns:
      The rows of each client, and the rows that are set apart, or None if there are none.

    Raises:
      ValueError: for an unknown partition, one that the data do not support, more clients than natural clients, or a
        ``validation`` outside [0, 1) or too small for one row of any client.
    """
    parts = _parts(split, labels, own)
    if split["validation"] == 0:
        return parts, None
    return set_apart("validation", parts, split["validation"], split["data_seed"])


def set_apart(name: str, parts: Parts, fraction: Any, seed: int) -> tuple[Parts, np.ndarray]:
    """Returns the rows that each client keeps, and the rows of all clients that are set apart.

    Raises:
      ValueError: for a fraction outside (0, 1), or one that is less than one example of every client.
    """
    share = real(fraction)
    if share is None or not 0 < share < 1:
        raise ValueError(f"{name} must be a fraction in (0, 1), not {described(fraction)}")
    kept, apart = partition.split(parts, share, seed)
    rows = np.concatenate(apart)
    if not len(rows):
        raise ValueError(f"{name} {share:g} is less than one example of every client; give a larger fraction")
    return kept, rows


def _parts(split: Split, labels: np.ndarray, own: Parts | None) -> Parts:
    how, clients, seed, least = split["partition"], split["clients"], split["data_seed"], split["least"]
    refuse_unknown("partition", how, PARTITIONS)
    if how == "iid":
        return partition.iid(len(labels), clients, seed)
    if how == "by_label":
        return partition.by_label(labels, clients)
    if how == "dirichlet":
        return partition.dirichlet(labels, clients, split["dirichlet_alpha"], seed, least)
    if how == "few_labels":
        return partition.few_labels(labels, clients, split["labels_each"], seed, least)
    if how == "quantity":
        return partition.quantity(len(labels), clients, split["dirichlet_alpha"], seed, least)
    if own is None:
        raise ValueError(f"these data have no natural clients, so no partition {how!r}; try iid, dirichlet or by_label")
    return partition.united(own, clients) if how == "by_size" else _first(own, clients, "natural clients of the data")


def _first(own: Parts, clients: int, called: str) -> Parts:
    if not 1 <= clients <= len(own):
        raise ValueError(f"clients must be between 1 and {len(own)}, the {called}, not {clients}")
    return own[:clients]
