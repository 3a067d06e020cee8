"""Arithmetic on pytrees, with or without a leading clients axis: what ``optax.tree`` does not have."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def size(tree: Tree) -> int:
    """Number of entries of all leaves together, known without computing."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def dtype(tree: Tree) -> jnp.dtype:
    """The one floating dtype of the leaves; mixed floating dtypes raise a ``TypeError`` (no silent promotion)."""
    found = {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    if len(found) != 1:
        raise TypeError(f"expected leaves of one floating dtype, got {sorted(map(str, found))}")
    return found.pop()


def stack(tree: Tree, n: int) -> Tree:
    """``n`` equal copies of ``tree`` along a new leading axis."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), tree)


def mean(stacked: Tree, weights: jax.Array | None) -> Tree:
    r"""Mean over the leading axis: :math:`\sum_i w_i a_i`, with ``weights`` (n,) summing to one; None for equal."""
    if weights is None:
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), stacked)
    return jax.tree.map(lambda a: jnp.sum(weights.reshape(-1, *[1] * (a.ndim - 1)) * a, axis=0), stacked)


def nonzeros(tree: Tree) -> jax.Array:
    """Number of nonzero entries, an int32 scalar."""
    return sum((jnp.sum(a != 0, dtype=jnp.int32) for a in jax.tree.leaves(tree)), start=jnp.int32(0))


def largest(tree: Tree) -> jax.Array:
    """Largest magnitude of any entry, a scalar."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(a)) for a in jax.tree.leaves(tree)]))


def finite(tree: Tree) -> jax.Array:
    """Whether every entry is finite, a boolean scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))
