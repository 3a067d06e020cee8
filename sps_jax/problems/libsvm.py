"""Binary logistic regression on LIBSVM data."""

from typing import Any

import numpy as np

from sps_jax import datasets
from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal
from sps_jax.problems.supervised import linear_problem, smoothness


def libsvm(
    *,
    dataset: str = "mushrooms",
    kappa: float = 1000.0,
    clients: int = 10,
    partition: str = "by_label",
    dirichlet_alpha: float = 0.3,
    batch_size: int | None = None,
    weights: str = "equal",
    validation: float = 0.0,
    data_seed: int = 0,
    precision: str = "float32",
    manual_dir: str | None = None,
    data_dir: str | None = None,
) -> Problem:
    """Binary logistic regression with a ridge term that makes L/mu of the worst client equal kappa.

    A fifth of the examples, drawn with ``data_seed``, is the test part.

    Args:
      dataset: mushrooms or a9a.
      kappa: condition number, above 1.
      clients: n.
      partition: by_label, iid or dirichlet.
      dirichlet_alpha: heterogeneity of the dirichlet partition.
      batch_size: examples of a local gradient, None for all.
      weights: of the clients in the objective and in the server's mean: equal (the paper's f), or size, in proportion
        to their numbers of examples.
      validation: fraction of each client's training examples that is kept apart, for choosing hyperparameters.
      data_seed: of the test part and of the partition.
      precision: float32 or float64.
      manual_dir: folder with the LIBSVM file, put there by hand.
      data_dir: where prepared data are kept.
    """
    if not 1 < kappa < np.inf:
        raise ValueError(f"kappa must be finite and above 1, not {kappa:g}")
    x, y = datasets.libsvm(dataset, manual_dir=manual_dir, data_dir=data_dir)
    order = np.random.default_rng(data_seed).permutation(len(y))
    test, train = order[: len(y) // 5], order[len(y) // 5 :]
    choices: dict[str, Any] = {"dirichlet_alpha": dirichlet_alpha, "validation": validation, "seed": data_seed}
    parts, apart = deal(partition, clients, labels=y[train], **choices)
    bare = smoothness(x[train], parts, 1 / 4, 0.0, bias=False).max()
    return linear_problem(
        "logistic",
        (x[train], y[train]),
        (x[test], y[test]),
        parts,
        bias=False,
        ridge=float(bare / (kappa - 1)),  # (bare + ridge) / ridge = kappa
        batch_size=batch_size,
        weights=weights,
        validation=apart,
        precision=precision,
    )
