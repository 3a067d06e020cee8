"""How many entries are kept: of all prunable leaves together, or of each leaf."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SCOPES: dict[str, str] = {
    "global": "All prunable leaves are ranked together, as one vector.",
    "layerwise": "Each leaf is ranked by itself, with the same sparsity.",
    "erk": "Each leaf is ranked by itself, small leaves with a lower sparsity (Erdos-Renyi-Kernel, arXiv 1911.11134).",
}
"""Name of a scope -> which weights are ranked together."""


def as_scalar(sparsity: jax.Array | float) -> jax.Array:
    """Returns ``sparsity`` as an array, of its own dtype or, for a Python number, of the default dtype.

    Example:
      >>> as_scalar(0.5).shape
      ()
    """
    return jnp.asarray(sparsity, jnp.result_type(float) if isinstance(sparsity, float | int) else None)


def kept(sparsity: jax.Array | float, entries: int) -> jax.Array:
    """Returns K = max(1, round((1 - sparsity) entries)), int32; halves round to even, in the precision of ``sparsity``.

    Example:
      >>> int(kept(0.99, 7840)), int(kept(0.99, 10))
      (78, 1)
    """
    return jnp.maximum(1, jnp.round((1 - as_scalar(sparsity)) * entries)).astype(jnp.int32)


def erk_densities(shapes: Sequence[tuple[int, ...]], density: jax.Array) -> jax.Array:
    r"""Returns the Erdos-Renyi-Kernel densities, (L,), of L layers with these shapes and total ``density``.

    Layer l keeps the fraction :math:`\min(1, \epsilon \sum_i s_{li} / \prod_i s_{li})` of its weights, where
    :math:`s_l` is its shape and epsilon is such that all layers together have ``density`` (Evci et al. 2020,
    arXiv 1911.11134, section 3).

    Example:
      >>> dense, sparse = erk_densities([(2, 2), (64, 64)], jnp.float32(0.1)).tolist()
      >>> dense, round((4 * dense + 4096 * sparse) / 4100, 4)
      (1.0, 0.1)
    """
    products = np.array([math.prod(shape) for shape in shapes], np.float64)
    sums = np.array([sum(shape) for shape in shapes])
    sizes, raw = (jnp.asarray(a, density.dtype) for a in (products, sums / products))

    def scaled(full: jax.Array) -> jax.Array:
        left = density * jnp.sum(sizes) - jnp.sum(jnp.where(full, sizes, 0))
        free = jnp.sum(jnp.where(full, 0, sizes * raw))
        return jnp.where(full, 1, raw * left / jnp.where(free > 0, free, 1))

    def body(_: int, full: jax.Array) -> jax.Array:
        return full | (scaled(full) >= 1)  # each pass fills another layer, or nothing changes any more

    full = lax.fori_loop(0, len(shapes), body, jnp.zeros(len(shapes), bool))
    return scaled(full)
