"""scikit-learn's handwritten digits: data that come with a dependency."""

from typing import Any

import numpy as np

from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal
from sps_jax.problems.supervised import linear_problem


def digits(
    *,
    clients: int = 10,
    partition: str = "dirichlet",
    dirichlet_alpha: float = 0.3,
    batch_size: int | None = None,
    weights: str = "equal",
    ridge: float = 1e-3,
    validation: float = 0.0,
    data_seed: int = 0,
    precision: str = "float32",
) -> Problem:
    """Softmax regression on scikit-learn's 1,797 digits, 8 x 8 pixels scaled to [0, 1], 10 classes.

    A fifth of the examples, drawn with ``data_seed``, is the test part.

    Args:
      clients: n.
      partition: iid, dirichlet or by_label.
      dirichlet_alpha: heterogeneity of the dirichlet partition; small is heterogeneous.
      batch_size: examples of a local gradient, None for all.
      weights: of the clients in the objective and in the server's mean: equal (the paper's f), or size, in proportion
        to their numbers of examples.
      ridge: weight of the ridge term.
      validation: fraction of each client's training examples that is kept apart, for choosing hyperparameters.
      data_seed: of the test part and of the partition.
      precision: float32 or float64.
    """
    from sklearn.datasets import load_digits  # heavy, and only this problem needs it

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(data_seed).permutation(len(y))
    test, train = order[: len(y) // 5], order[len(y) // 5 :]
    x = x / 16
    choices: dict[str, Any] = {"dirichlet_alpha": dirichlet_alpha, "validation": validation, "seed": data_seed}
    parts, apart = deal(partition, clients, labels=y[train], **choices)
    return linear_problem(
        "softmax",
        (x[train], y[train]),
        (x[test], y[test]),
        parts,
        outputs=10,
        ridge=ridge,
        batch_size=batch_size,
        weights=weights,
        validation=apart,
        precision=precision,
    )
