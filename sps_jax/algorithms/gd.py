"""Distributed gradient descent."""

from sps_jax.algorithms.base import Algorithm, Scalar, descend


def gd(*, stepsize: Scalar) -> Algorithm:
    r"""Distributed gradient descent: all clients communicate after every step (p = 1).

    .. math:: x \leftarrow \frac1n \sum_i (x - \gamma \nabla f_i(x)) = x - \gamma \nabla f(x)

    Args:
      stepsize: gamma > 0; it converges for gamma < 2/L if f is convex and L-smooth.

    Example:
      >>> import jax.numpy as jnp
      >>> method, x = gd(stepsize=0.5), jnp.array([4.0, 2.0])
      >>> method.move(x, method.direction(x, (), x, lambda x: x, None)).tolist()  # the gradient of ||x||^2 / 2 is x
      [2.0, 1.0]
    """
    return Algorithm(move=descend(stepsize))
