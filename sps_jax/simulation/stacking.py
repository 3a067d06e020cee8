"""Clients' examples stacked along a leading axis, those with fewer than others filled up with their first one."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def stack_clients(
    arrays: Sequence[np.ndarray], parts: Sequence[np.ndarray], longest: int | None = None
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Examples (N, ...) dealt to clients: ``data`` (n, m, ...) and ``counts`` (n,) int32.

    A client with fewer than m examples is filled up with its first one, see :class:`Problem`.

    Args:
      arrays: one or more arrays with the same leading axis of N examples.
      parts: for each client the indices of its examples, none empty.
      longest: m, where these are some of the clients of a problem; None for the most that one of them has.

    Raises:
      ValueError: for no client, a client without examples, arrays of unequal lengths or a row that is not there.

    Example:
      >>> data, counts = stack_clients([np.array([5, 6, 7])], [np.array([0, 2]), np.array([1])])
      >>> data[0].tolist(), counts.tolist()
      ([[5, 7], [6, 6]], [2, 1])
    """
    counts = np.array([len(part) for part in parts], np.int32)
    if not len(counts) or counts.min() < 1:
        raise ValueError("every client needs at least one example, and there must be a client")
    lengths = sorted({len(a) for a in arrays})
    if len(lengths) > 1:
        raise ValueError(f"all arrays need equally many examples, not {' and '.join(map(str, lengths))}")
    rows = np.concatenate([np.asarray(part) for part in parts])
    if not np.issubdtype(rows.dtype, np.integer) or rows.min() < 0 or rows.max() >= lengths[0]:
        raise ValueError(
            f"clients' rows must be whole numbers from 0 to {lengths[0] - 1}, not {rows.min()} to {rows.max()}"
        )
    most = counts.max() if longest is None else longest
    data = tuple(np.empty((len(parts), most, *a.shape[1:]), a.dtype) for a in arrays)
    for stacked, a in zip(data, arrays, strict=True):
        for i, part in enumerate(parts):
            stacked[i, : len(part)] = a[part]
            stacked[i, len(part) :] = a[part[0]]
    return data, counts


def foreign_padding(data: tuple[jax.Array, ...], counts: jax.Array) -> jax.Array:
    """Whether a row behind some client's examples is other than its first example.

    Example:
      >>> bool(foreign_padding((jnp.array([[1.0, 0.0]]),), jnp.array([1], jnp.int32)))
      True
    """
    like = zip(data, repeat_first(data, counts), strict=True)
    return jnp.any(jnp.stack([jnp.any(a != b) for a, b in like]))


def repeat_first(data: tuple[jax.Array, ...], counts: jax.Array) -> tuple[jax.Array, ...]:
    """``data`` (n, m, ...) with each client's first example in the rows behind its ``counts`` (n,) examples.

    Example:
      >>> repeat_first((jnp.array([[1.0, 2.0, 0.0]]),), jnp.array([2], jnp.int32))[0].tolist()
      [[1.0, 2.0, 1.0]]
    """

    def own(a: jax.Array) -> jax.Array:
        padding = jnp.arange(a.shape[1], dtype=counts.dtype)[None] >= counts[:, None]
        return jnp.where(padding.reshape(padding.shape + (1,) * (a.ndim - 2)), a[:, :1], a)

    return tuple(map(own, data))
