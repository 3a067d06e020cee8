"""Distributed gradient descent."""

from sps_jax.algorithms.base import Algorithm, Scalar, descend


def gd(*, stepsize: Scalar) -> Algorithm:
    r"""Distributed gradient descent: every client takes one step, then all communicate (p = 1).

    .. math:: x \leftarrow \frac1n \sum_i (x - \gamma \nabla f_i(x)) = x - \gamma \nabla f(x)

    Args:
      stepsize: gamma > 0; it converges for gamma < 2/L.
    """
    return Algorithm(move=descend(stepsize))
