"""What is pruned of a model, and how many entries are kept of it: of all leaves together, or of each."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SCOPES: dict[str, str] = {
    "global": "All that is pruned, as one vector.",
    "layerwise": "Each leaf by itself, with the same sparsity.",
    "erk": "Each leaf by itself, small ones with the smaller sparsity (Erdos-Renyi-Kernel, arXiv 1911.11134).",
}
"""Among which weights the ranking is: name -> what it means."""


def matrices(path: tuple, leaf: jax.Array) -> bool:
    """The leaves that are pruned by default: those with more than one axis, so neither biases nor norms.

    Example:
      >>> matrices((), jnp.ones((2, 3))), matrices((), jnp.ones(3))
      (True, False)
    """
    return leaf.ndim > 1


def inner_matrices(path: tuple, leaf: jax.Array) -> bool:
    """Of these, the leaves outside the first and the last layer, which bear the names ``first`` and ``last``.

    Example:
      >>> paths, _ = jax.tree_util.tree_flatten_with_path({"first": jnp.ones((2, 2)), "middle": jnp.ones((2, 2))})
      >>> [inner_matrices(path, leaf) for path, leaf in paths]
      [False, True]
    """
    return matrices(path, leaf) and not {"first", "last"} & {getattr(key, "key", None) for key in path}


def as_scalar(sparsity: jax.Array | float) -> jax.Array:
    """``sparsity`` as an array: of its own dtype, or of the default one where it is a Python number.

    Example:
      >>> as_scalar(0.5).shape
      ()
    """
    return jnp.asarray(sparsity, jnp.result_type(float) if isinstance(sparsity, float | int) else None)


def kept(sparsity: jax.Array | float, entries: int) -> jax.Array:
    """K = max(1, round((1 - sparsity) entries)) as int32, halves to even, in the precision of ``sparsity``.

    Example:
      >>> int(kept(0.99, 7840)), int(kept(0.99, 10))
      (78, 1)
    """
    return jnp.maximum(1, jnp.round((1 - as_scalar(sparsity)) * entries)).astype(jnp.int32)


def erk_densities(shapes: Sequence[tuple[int, ...]], density: jax.Array) -> jax.Array:
    r"""(L,) densities of layers of these shapes whose weights together have ``density``: Erdos-Renyi-Kernel.

    Layer l keeps :math:`\min(1, \epsilon \sum_i s_{li} / \prod_i s_{li})` of its weights, :math:`s_l` its shape,
    the scale epsilon such that the total is right (Evci et al. 2020, arXiv 1911.11134, section 3).

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
        return full | (scaled(full) >= 1)  # each pass fills at least one layer more, or none ever again

    full = lax.fori_loop(0, len(shapes), body, jnp.zeros(len(shapes), bool))
    return scaled(full)
