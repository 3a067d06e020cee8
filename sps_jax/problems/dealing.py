"""Which example is whose: rows dealt to clients, held out as test data, kept apart as validation data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sps_jax.datasets import partition
from sps_jax.errors import unknown

PARTITIONS = ("natural", "iid", "dirichlet", "by_label", "by_size")

Parts = Sequence[np.ndarray]


def hold_out_and_deal(
    own: Parts,
    how: str,
    clients: int,
    *,
    labels: np.ndarray,
    natural: str,
    dirichlet_alpha: float,
    validation: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, Parts, np.ndarray | None]:
    """A tenth of the rows of each natural client, drawn with ``seed``, held out, and the others dealt.

    Args:
      own: for each natural client its rows.
      how, clients, dirichlet_alpha, validation, seed: as for :func:`deal`; ``"natural"`` takes the first ``clients``
        of them.
      labels: of all rows.
      natural: what natural clients are, for the message.

    Returns:
      The rows to train on, the rows held out, and of the former what :func:`deal` returns.

    Raises:
      ValueError: as :func:`deal`.
    """
    if how == "natural":
        if not 1 <= clients <= len(own):
            raise ValueError(f"clients must be between 1 and {len(own)}, the {natural}, not {clients}")
        own = own[:clients]
    train, test = partition.split(own, 0.1, seed)
    rows, groups = np.concatenate(train), np.repeat(np.arange(len(train)), [len(part) for part in train])
    choices: dict[str, Any] = {"dirichlet_alpha": dirichlet_alpha, "validation": validation, "seed": seed}
    parts, apart = deal(how, clients, labels=labels[rows], groups=groups, **choices)
    return rows, np.concatenate(test), parts, apart


def deal(
    how: str,
    clients: int,
    *,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    dirichlet_alpha: float = 0.5,
    validation: float = 0.0,
    seed: int = 0,
) -> tuple[Parts, np.ndarray | None]:
    """Rows dealt to ``clients`` by the partition ``how``, see :mod:`sps_jax.datasets.partition`.

    Args:
      validation: the fraction of each client's rows, drawn with ``seed``, that is then kept apart.

    Returns:
      The rows of each client, and those that are kept apart, None where that is nothing.

    Raises:
      ValueError: for an unknown partition, one that the data cannot have, more clients than there are, or a fraction
        out of [0, 1) or less than one row of every client.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"validation must be in [0, 1), not {validation:g}")
    parts = _parts(how, clients, labels, groups, dirichlet_alpha, seed)
    if validation == 0:
        return parts, None
    parts, apart = partition.split(parts, validation, seed)
    rows = np.concatenate(apart)
    if not len(rows):
        raise ValueError(f"a validation part of {validation:g} is less than one example of every client")
    return parts, rows


def _parts(
    how: str, clients: int, labels: np.ndarray, groups: np.ndarray | None, dirichlet_alpha: float, seed: int
) -> Parts:
    if how not in PARTITIONS:
        raise unknown("partition", how, PARTITIONS)
    if how in ("natural", "by_size"):
        if groups is None:
            raise ValueError(
                f"these data have no natural clients, so no partition {how!r}; try iid, dirichlet or by_label"
            )
        if how == "by_size":
            return partition.by_size(groups, clients)
        parts = partition.natural(groups)
        if not 1 <= clients <= len(parts):
            raise ValueError(f"clients must be between 1 and the data's {len(parts)} natural clients, not {clients}")
        return parts[:clients]
    if how == "iid":
        return partition.iid(len(labels), clients, seed)
    if how == "by_label":
        return partition.by_label(labels, clients)
    return partition.dirichlet(labels, clients, dirichlet_alpha, seed)
