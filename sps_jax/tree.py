"""Arithmetic on pytrees, with or without a leading clients axis: what ``optax.tree`` does not have."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def size(tree: Tree) -> int:
    """Number of entries of all leaves together, known without computing."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def bytes(tree: Tree) -> int:
    """Bytes of all leaves together, known without computing."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def stack(tree: Tree, n: int) -> Tree:
    """``n`` equal copies of ``tree`` along a new leading axis."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), tree)


def mean(stacked: Tree, weights: jax.Array | None) -> Tree:
    r"""Mean over the leading axis: :math:`\bar a = \sum_i w_i a_i`, ``weights`` (n,) summing to one; None for equal.

    To the last bits: a second pass adds the mean of :math:`a_i - \bar a`, which rounding left away from zero. Control
    variates live on that difference, :math:`\sum_i h_i` grows by :math:`(p/\gamma) \sum_i (\bar a - a_i)` a round.
    """
    rough = _mean(stacked, weights)
    left = _mean(jax.tree.map(lambda a, m: a - m[None], stacked, rough), weights)
    return jax.tree.map(jnp.add, rough, left)


def _mean(stacked: Tree, weights: jax.Array | None) -> Tree:
    if weights is None:
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), stacked)
    return jax.tree.map(lambda a: jnp.sum(weights.reshape(-1, *[1] * (a.ndim - 1)) * a, axis=0), stacked)


def add_exactly(total: tuple[Tree, Tree], term: Tree) -> tuple[Tree, Tree]:
    """Add to a sum that remembers its rounding errors: ``total`` is (sum, errors), the true sum is nearly their sum.

    TwoSum (Knuth, The Art of Computer Programming, vol. 2, 4.2.2): six operations give the rounded sum and its error.
    """
    sums = jax.tree.map(jnp.add, total[0], term)

    def error(a: jax.Array, b: jax.Array, s: jax.Array) -> jax.Array:
        seen = s - a
        return (a - (s - seen)) + (b - seen)

    errors = jax.tree.map(error, total[0], term, sums)
    return sums, jax.tree.map(jnp.add, total[1], errors)


def floats(tree: Tree) -> list[jax.Array]:
    """The leaves of floating dtype: neither counters nor masks."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def nonzeros(tree: Tree) -> jax.Array:
    """Number of nonzero entries, an int32 scalar; counted on vectors, which XLA:CPU does faster than on rows."""
    return sum((jnp.sum(a.ravel() != 0, dtype=jnp.int32) for a in jax.tree.leaves(tree)), start=jnp.int32(0))


def largest(tree: Tree) -> jax.Array:
    """Largest magnitude of any entry, a scalar."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(a), initial=0) for a in jax.tree.leaves(tree)]))


def finite(tree: Tree) -> jax.Array:
    """Whether every entry is finite, a boolean scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))


def widened(values: jax.Array, to: Any) -> jax.Array:
    """``values``, which may be integers, in the wider one of their dtype and ``to``, float32 at the least.

    Example:
      >>> widened(jnp.ones(2, jnp.bfloat16), jnp.float32).dtype.name
      'float32'
    """
    values = jnp.asarray(values)
    floating = (jnp.dtype(kind) for kind in (jnp.float32, to, values.dtype) if jnp.issubdtype(kind, jnp.floating))
    return values.astype(max(floating, key=lambda kind: kind.itemsize))
