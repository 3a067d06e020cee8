"""Skews of Li et al. (2022), "Federated Learning on Non-IID Data Silos", arXiv 2102.02079: few labels, sizes, features.

They belong to :mod:`sps_jax.datasets.partition`, which has the conventions.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sps_jax.datasets.containers import as_array
from sps_jax.datasets.owners import (
    Parts,
    by_shares,
    checked_alpha,
    checked_clients,
    checked_least,
    generator_of,
    natural,
    nobody_below,
    one_dimensional,
    owned,
    whole,
)


def quantity(examples: int, clients: int, alpha: float, seed: int, least: int = 1) -> Parts:
    """Partition with quantity skew: the clients' sizes follow one draw of Dirichlet(alpha, ..., alpha).

    The rows of each client are drawn uniformly, so the clients differ in size alone; ``q ~ Dir(alpha)`` of Li et al.
    2022 (arXiv 2102.02079). ``least`` as in :func:`dirichlet`.

    Raises ValueError unless 1 <= clients, clients * least <= examples, alpha is positive and finite, and seed >= 0.

    Example:
      >>> [len(part) for part in quantity(100, clients=3, alpha=0.5, seed=0, least=5)]
      [31, 5, 64]
    """
    examples, clients = whole("examples", examples, 1), checked_clients(clients, examples, "examples")
    alpha, least, generator = checked_alpha(alpha), checked_least(least, clients, examples), generator_of(seed)
    place = by_shares(examples, generator.dirichlet(np.full(clients, alpha)))
    owner = np.empty(examples, np.int64)
    owner[generator.permutation(examples)] = place
    return owned(nobody_below(owner, clients, least), clients)


def few_labels(labels: ArrayLike, clients: int, each: int, seed: int, least: int = 1) -> Parts:
    """Partition such that every client has examples of ``each`` labels: #C = k of Li et al. 2022 (arXiv 2102.02079).

    A client takes, at random, labels among those that the fewest clients have so far, and the examples of a label are
    split at random and evenly among its clients. (Li et al. draw all but the first label of a client uniformly.) A
    label with fewer examples than clients reaches only some of them; ``least`` as in :func:`dirichlet`, which may give
    a client further labels.

    Raises ValueError unless 1 <= clients, clients * least <= N, 1 <= each <= number of labels <= clients * each, and
    seed >= 0.

    Example:
      >>> y = np.array([0, 1, 2] * 4)
      >>> [sorted(set(y[part].tolist())) for part in few_labels(y, clients=3, each=2, seed=0)]
      [[0, 2], [1, 2], [0, 1]]
    """
    values = one_dimensional("labels", labels)
    clients = checked_clients(clients, len(values), "examples")
    least, generator, by_value = checked_least(least, clients, len(values)), generator_of(seed), natural(values)
    each = whole("each", each, 1)
    if not each <= len(by_value) <= clients * each:
        raise ValueError(
            f"each = {each}: allowed is {-(-len(by_value) // clients)} to {len(by_value)}, so that {clients} clients "
            f"have all {len(by_value)} labels"
        )
    owners: list[list[int]] = [[] for _ in by_value]
    for client in range(clients):
        tried = generator.permutation(len(by_value)).tolist()
        for label in sorted(tried, key=lambda label: len(owners[label]))[:each]:  # stable, so ties are at random
            owners[label].append(client)
    owner = np.empty(len(values), np.int64)
    for rows, own in zip(by_value, owners, strict=True):
        owner[generator.permutation(rows)] = np.sort(np.resize(generator.permutation(own), len(rows)))
    return owned(nobody_below(owner, clients, least), clients)


def noisy(x: ArrayLike, parts: Sequence[ArrayLike], variance: float, seed: int) -> np.ndarray:
    r"""Return the examples with feature skew: client i of n gets Gaussian noise of variance :math:`\sigma i / n`.

    The noise-based feature imbalance of Li et al. 2022 (arXiv 2102.02079); :math:`i = 1, \ldots, n`, and
    sigma is ``variance``, that of the last client. Examples of no client stay as they are.

    Args:
      x: (N, ...) numbers; the result is float64, or float32 where x is.
      parts: the rows of each client.
      variance: sigma >= 0.
      seed: seed of the noise.

    Raises ValueError unless variance is finite and not negative, and seed >= 0.

    Example:
      >>> x = noisy(np.zeros((4, 1000)), [[0], [1, 2]], variance=4.0, seed=0)
      >>> np.round(x.var(axis=1), 1).tolist()
      [1.9, 4.2, 3.9, 0.0]
    """
    a = as_array("x", x)
    if not (isinstance(variance, int | float | np.number) and 0 <= variance < math.inf):
        raise ValueError(f"variance = {variance!r}: allowed is a finite number, not negative")
    generator = generator_of(seed)
    made: np.ndarray = a.astype(np.float32 if a.dtype == np.float32 else np.float64)
    for i, part in enumerate(parts, start=1):
        rows = np.asarray(part, np.int64)
        noise: np.ndarray = generator.standard_normal((len(rows), *a.shape[1:]))
        made[rows] = made[rows] + math.sqrt(variance * i / len(parts)) * noise
    return made
