"""A sparsity that grows over the rounds, for any method that takes a sparsity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm
from sps_jax.algorithms.scheduled import scheduled


def cubic(sparsity: jax.Array, rounds: jax.Array, t: jax.Array) -> jax.Array:
    r"""Returns the sparsity :math:`s_t = s (1 - (1 - \min(t/T, 1))^3)` after t communications.

    Source: Zhu and Gupta 2017, arXiv 1710.01878.

    Args:
      sparsity: s, a floating-point scalar.
      rounds: T >= 1, a scalar of the same dtype.
      t: int32.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(cubic(jnp.float32(0.8), jnp.float32(2), jnp.int32(t))), 2) for t in range(4)]
      [0.0, 0.7, 0.8, 0.8]
    """
    left = 1 - jnp.minimum(t.astype(sparsity.dtype) / rounds, 1)
    return sparsity * (1 - left**3)


def ramped(make: Callable[[jax.Array], Algorithm], sparsity: jax.Array, rounds: jax.Array) -> Algorithm:
    r"""Returns the method ``make(s)`` with s growing from 0 to ``sparsity`` in ``rounds`` communications.

    Round t = 0, 1, ... has the sparsity :math:`s_t` of :func:`cubic`, from the server's update that makes its model on,
    see :func:`sps_jax.algorithms.scheduled.scheduled`. Groups and N:M keep more of each M until round T.

    Args:
      make: a function of the sparsity, a floating-point scalar, that returns the method. Only numbers in the method may
        depend on it. The server's state stems from the sparsities of earlier rounds, so the method's ``serve`` or
        ``model`` must prune it again.
      sparsity, rounds: s and T, scalars of one floating-point dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> import sps_jax as sps
      >>> method = ramped(
      ...     lambda s: sps.sparse_proxskip(stepsize=0.5, prob=0.5, sparsity=s), jnp.float32(0.75), jnp.float32(2)
      ... )
      >>> [int((method.model((jnp.ones((1, 4)), jnp.int32(t))) != 0).sum()) for t in range(3)]
      [4, 1, 1]
    """

    def at(t: jax.Array) -> Algorithm:
        return make(cubic(sparsity, rounds, t))

    return scheduled(at, serving=lambda t: at(t + 1))
