"""FedProx: FedAvg with a proximal term that keeps clients near the last broadcast."""

import jax

from sps_jax.algorithms.base import Algorithm, Gradient, Scalar, descend
from sps_jax.tree import Tree


def fedprox(*, stepsize: Scalar, prob: Scalar, mu: Scalar = 0.1) -> Algorithm:
    r"""FedProx (Li et al. 2020, arXiv 1812.06127), with gradient steps on its inner problem.

    .. math:: x_i \leftarrow x_i - \gamma (\nabla f_i(x_i) + \mu (x_i - b)), \qquad
              b \text{ the last broadcast}

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it only sets the schedule.
      mu: weight of the proximal term, >= 0, by default 0.1; with 0 it is FedAvg.

    Example:
      >>> import jax.numpy as jnp
      >>> method = fedprox(stepsize=0.5, prob=0.1, mu=1.0)
      >>> x, b = jnp.array([4.0, 2.0]), jnp.array([2.0, 2.0])
      >>> method.direction(x, (), b, lambda x: x, None).tolist()  # x + (x - b)
      [6.0, 2.0]
    """

    def direction(x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        return jax.tree.map(lambda g, x, b: g + mu * (x - b), gradient(x), x, b)

    return Algorithm(move=descend(stepsize), direction=direction)
