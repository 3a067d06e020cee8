"""RandProx with an l1 term and the proximal step at the clients."""

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Scalar, descend
from sps_jax.algorithms.proxskip import proxskip


def randprox_l1(*, stepsize: Scalar, prob: Scalar, l1: Scalar = 1e-3) -> Algorithm:
    r"""ProxSkip for f(x) + l1 ||x||_1 (RandProx, Condat and Richtarik 2023, arXiv 2207.12891).

    Soft thresholding follows every local step of :func:`proxskip`:

    .. math:: x_i \leftarrow \mathrm{sign}(y) \max(|y| - \gamma\lambda, 0), \qquad
              y = x_i - \gamma (\nabla f_i(x_i) - h_i)

    It converges to the minimiser of f(x) + l1 ||x||_1; no accelerated rate is known. The reported train_loss is f,
    without the l1 term.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      l1: lambda >= 0, for every parameter.

    Example:
      >>> import jax.numpy as jnp
      >>> method = randprox_l1(stepsize=0.5, prob=0.5, l1=1.0)
      >>> method.move(jnp.array([4.0, 0.5]), jnp.array([4.0, 0.5])).tolist()  # [2, 0.25], each 0.5 nearer to zero
      [1.5, 0.0]
    """
    step = descend(stepsize)

    def soft(y: jax.Array) -> jax.Array:
        return jnp.sign(y) * jnp.maximum(jnp.abs(y) - stepsize * l1, 0)

    return proxskip(stepsize=stepsize, prob=prob)._replace(move=lambda x, d: jax.tree.map(soft, step(x, d)))
