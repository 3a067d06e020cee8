"""Arithmetic on pytrees, with or without a leading clients axis, that ``optax.tree`` lacks."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def size(tree: Tree) -> int:
    """Return the total number of entries of all leaves, from their shapes alone."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def bytes(tree: Tree) -> int:
    """Return the total bytes of all leaves, from their shapes and dtypes alone."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def stack(tree: Tree, n: int) -> Tree:
    """Return ``n`` copies of ``tree`` along a new leading axis."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), tree)


def mean(stacked: Tree, weights: jax.Array | None) -> Tree:
    r"""Return the mean over the leading axis, :math:`\bar a = \sum_i w_i a_i`, accurate to the last bits.

    A second pass adds the mean of :math:`a_i - \bar a`, which rounding left away from zero. The control variates need
    this: :math:`\sum_i h_i` grows by :math:`(p/\gamma) \sum_i (\bar a - a_i)` per round.

    Args:
      stacked: arrays (n, ...).
      weights: (n,) weights that sum to one; None for equal weights.
    """
    rough = _mean(stacked, weights)
    left = _mean(jax.tree.map(lambda a, m: a - m[None], stacked, rough), weights)
    return jax.tree.map(jnp.add, rough, left)


def _mean(stacked: Tree, weights: jax.Array | None) -> Tree:
    if weights is None:
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), stacked)
    return jax.tree.map(lambda a: jnp.sum(weights.reshape(-1, *[1] * (a.ndim - 1)) * a, axis=0), stacked)


def add_exactly(total: tuple[Tree, Tree], term: Tree) -> tuple[Tree, Tree]:
    """Add ``term`` to a compensated sum: ``total`` is (sum, errors), and the exact sum is nearly sum + errors.

    TwoSum (Knuth, The Art of Computer Programming, vol. 2, 4.2.2): six operations give the rounded sum and its error.
    """
    sums = jax.tree.map(jnp.add, total[0], term)

    def error(a: jax.Array, b: jax.Array, s: jax.Array) -> jax.Array:
        added = s - a
        return (a - (s - added)) + (b - added)

    errors = jax.tree.map(error, total[0], term, sums)
    return sums, jax.tree.map(jnp.add, total[1], errors)


def floats(tree: Tree) -> list[jax.Array]:
    """Return the leaves of floating dtype, without counters and masks."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def nonzeros(tree: Tree) -> jax.Array:
    """Return the number of nonzero entries, an int32 scalar; raveled, because XLA:CPU counts vectors faster."""
    return sum((jnp.sum(a.ravel() != 0, dtype=jnp.int32) for a in jax.tree.leaves(tree)), start=jnp.int32(0))


def largest(tree: Tree) -> jax.Array:
    """Return the largest magnitude of any entry, a scalar."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(a), initial=0) for a in jax.tree.leaves(tree)]))


def finite(tree: Tree) -> jax.Array:
    """Return whether every entry is finite, a boolean scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))


def widened(values: jax.Array, to: Any) -> jax.Array:
    """Cast ``values``, which may be integers, to the wider of their dtype and ``to``, but at least to float32.

    Example:
      >>> widened(jnp.ones(2, jnp.bfloat16), jnp.float32).dtype.name
      'float32'
    """
    values = jnp.asarray(values)
    floating = (jnp.dtype(kind) for kind in (jnp.float32, to, values.dtype) if jnp.issubdtype(kind, jnp.floating))
    return values.astype(max(floating, key=lambda kind: kind.itemsize))


def divided(total: jax.Array, count: int | jax.Array) -> jax.Array:
    """Return ``total / count``, for a traced count with the bits of a constant one, by whose inverse XLA multiplies.

    Example:
      >>> float(divided(jnp.float32(3), jnp.int32(4)))
      0.75
    """
    return total / count if isinstance(count, int) else total * (1 / count.astype(total.dtype))


def first_rows(real: jax.Array, values: jax.Array) -> jax.Array:
    """Return ``values`` (b, ...) with zeros where ``real`` (b,) is false.

    Example:
      >>> first_rows(jnp.array([True, False]), jnp.ones((2, 2))).tolist()
      [[1.0, 1.0], [0.0, 0.0]]
    """
    return jnp.where(real.reshape(-1, *[1] * (values.ndim - 1)), values, jnp.zeros_like(values))


def class_count(data: tuple[jax.Array, ...]) -> int:
    """Return the number of classes if the second array holds labels (integers, or 0 and 1), else 0.

    Example:
      >>> class_count((jnp.ones((3, 2)), jnp.array([0, 2, 1]))), class_count((jnp.ones((3, 2)),))
      (3, 0)
    """
    if len(data) != 2:
        return 0
    labels = jnp.asarray(data[1])
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return int(labels.max()) + 1
    return 2 * bool((labels.min() == 0) & (labels.max() == 1) & jnp.all((labels == 0) | (labels == 1)))
