"""Unbiased compressors: rand-k, a random choice of entries, and the stochastic quantiser after it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.compression.bits import FLOATS, MessageFormat
from sps_jax.compression.quantize import quantize, quantized
from sps_jax.compression.scopes import kept
from sps_jax.compression.selection import topk_mask
from sps_jax.tree import Tree, widened


def rand_k(params: Tree, key: jax.Array, sparsity: jax.Array | float) -> Tree:
    r"""Returns rand-k of x: K of its d entries, every set of K as likely, times d/K; the others are zero.

    x is the vector of all entries of ``params``, biases included, and :math:`K = \max(1, \mathrm{round}((1 - s) d))`.
    It is unbiased, :math:`E\, C(x) = x`, with :math:`E \|C(x) - x\|^2 = \omega \|x\|^2`, :math:`\omega = d/K - 1`.

    Args:
      params: pytree of floating-point arrays.
      key: a JAX random key.
      sparsity: s in [0, 1), the fraction of entries set to zero; may be traced.

    Example:
      >>> sorted(rand_k(jnp.ones(4), jax.random.key(0), 0.75).tolist())
      [0.0, 0.0, 0.0, 4.0]
    """
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])
    d = int(ends[-1])
    k = kept(sparsity, d)
    masks = jnp.split(topk_mask(jax.random.uniform(key, (d,), jnp.float32), k), ends[:-1])

    def one(x: jax.Array, mask: jax.Array) -> jax.Array:
        scale = (d / widened(k, x.dtype)).astype(x.dtype)
        return jnp.where(mask.reshape(x.shape), scale * x, jnp.zeros_like(x))

    return jax.tree.unflatten(structure, map(one, leaves, masks))


def unbiased(sparsity: jax.Array | float, bits: int | None) -> tuple[Callable[[Tree, jax.Array], Tree], MessageFormat]:
    r"""Returns C(x) = Q_r(rand-k(x)) as a function of x and a key, and the format of its messages.

    A message sends the K numbers, with a position each. :math:`1 + \omega` of C is the product of those of the two.

    Args:
      sparsity: of rand-k; with 0, C is the quantiser alone.
      bits: r of :func:`sps_jax.quantize`; with None, C is rand-k alone.

    Example:
      >>> compress, _ = unbiased(0.75, None)
      >>> float(compress(jnp.ones(4), jax.random.key(0)).sum())
      4.0
    """

    def compress(params: Tree, key: jax.Array) -> Tree:
        chosen = rand_k(params, key, sparsity)
        return chosen if bits is None else quantize(chosen, jax.random.fold_in(key, 1), bits)

    return compress, quantized(FLOATS, bits)
