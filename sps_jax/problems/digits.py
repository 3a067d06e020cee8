"""scikit-learn's handwritten digits, which need no download."""

from typing import Unpack

from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal, fifth_held_out
from sps_jax.problems.shared import Split
from sps_jax.problems.supervised import linear_problem, objective
from sps_jax.simulation.choices import with_shared


@with_shared(clients=10, partition="dirichlet")
def digits(*, ridge: float = 1e-3, **split: Unpack[Split]) -> Problem:
    """Softmax regression on scikit-learn's 1,797 digits, 8 x 8 pixels scaled to [0, 1], 10 classes.

    A fifth of the examples, drawn with ``data_seed``, is the test set.

    Args:
      ridge: weight of the ridge term.
    """
    from sklearn.datasets import load_digits  # slow to import, and only this problem needs it

    x, y = load_digits(return_X_y=True)
    train, test = fifth_held_out(len(y), split["data_seed"])
    x = x / 16
    parts, apart = deal(split, y[train])
    return linear_problem(
        "softmax", (x[train], y[train]), (x[test], y[test]), parts, outputs=10, **objective(split, apart, ridge)
    )
