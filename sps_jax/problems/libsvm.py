"""Binary logistic regression on LIBSVM data."""

from typing import Unpack

import numpy as np

from sps_jax import datasets
from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal, fifth_held_out
from sps_jax.problems.shared import SplitOfFile
from sps_jax.problems.supervised import linear_problem, objective, smoothness
from sps_jax.simulation.choices import with_shared


@with_shared(clients=10, partition="by_label")
def libsvm(*, dataset: str = "mushrooms", kappa: float = 1000.0, **split: Unpack[SplitOfFile]) -> Problem:
    """Binary logistic regression with a ridge term that makes L/mu of the worst client equal kappa.

    A fifth of the examples, drawn with ``data_seed``, is the test set.

    Args:
      dataset: mushrooms or a9a.
      kappa: condition number, above 1.
      manual_dir: folder into which you have put the LIBSVM file.
    """
    if not 1 < kappa < np.inf:
        raise ValueError(f"kappa must be finite and above 1, not {kappa:g}")
    x, y = datasets.libsvm(dataset, manual_dir=split["manual_dir"], data_dir=split["data_dir"])
    train, test = fifth_held_out(len(y), split["data_seed"])
    parts, apart = deal(split, y[train])
    bare = smoothness(x[train], parts, 1 / 4, 0.0, bias=False).max()
    ridge = float(bare / (kappa - 1))  # (bare + ridge) / ridge = kappa
    return linear_problem(
        "logistic", (x[train], y[train]), (x[test], y[test]), parts, bias=False, **objective(split, apart, ridge)
    )
