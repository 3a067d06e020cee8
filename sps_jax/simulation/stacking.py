"""Stack the clients' examples along a leading axis; shorter clients are padded with their own first example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def stack_clients(
    arrays: Sequence[np.ndarray], parts: Sequence[np.ndarray], longest: int | None = None
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Partition N examples among n clients, and return ``data`` (n, m, ...) and ``counts`` (n,) int32.

    A client with fewer than m examples is padded with its first example, see :class:`Problem`.

    Args:
      arrays: one or more arrays (N, ...).
      parts: for each client the indices of its examples, at least one.
      longest: m; None for the largest number of examples of a client. Set it to stack some clients of a larger problem.

    Raises:
      ValueError: if there is no client, a client has no examples, the arrays differ in length or an index is out of
        range.

    Example:
      >>> data, counts = stack_clients([np.array([5, 6, 7])], [np.array([0, 2]), np.array([1])])
      >>> data[0].tolist(), counts.tolist()
      ([[5, 7], [6, 6]], [2, 1])
    """
    counts = np.array([len(part) for part in parts], np.int32)
    if not len(counts) or counts.min() < 1:
        raise ValueError("every client needs at least one example, and there must be at least one client")
    lengths = sorted({len(a) for a in arrays})
    if len(lengths) > 1:
        raise ValueError(f"all arrays must have equally many examples, not {' and '.join(map(str, lengths))}")
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
    """Return whether any client's padding differs from its first example.

    Example:
      >>> bool(foreign_padding((jnp.array([[1.0, 0.0]]),), jnp.array([1], jnp.int32)))
      True
    """
    like = zip(data, repeat_first(data, counts), strict=True)
    return jnp.any(jnp.stack([jnp.any(a != b) for a, b in like]))


def repeat_first(data: tuple[jax.Array, ...], counts: jax.Array) -> tuple[jax.Array, ...]:
    """Return ``data`` (n, m, ...) with each client's padding, the rows after ``counts`` (n,), set to its first example.

    Example:
      >>> repeat_first((jnp.array([[1.0, 2.0, 0.0]]),), jnp.array([2], jnp.int32))[0].tolist()
      [[1.0, 2.0, 1.0]]
    """

    def pad(a: jax.Array) -> jax.Array:
        padding = jnp.arange(a.shape[1], dtype=counts.dtype)[None] >= counts[:, None]
        return jnp.where(padding.reshape(padding.shape + (1,) * (a.ndim - 2)), a[:, :1], a)

    return tuple(map(pad, data))


def lengthened(data: tuple[jax.Array, ...], rows: int) -> tuple[jax.Array, ...]:
    """Return ``data`` (n, m, ...) padded to (n, rows, ...) with each client's first example; unchanged if m >= rows.

    Example:
      >>> lengthened((jnp.array([[1.0, 2.0]]),), 3)[0].tolist()
      [[1.0, 2.0, 1.0]]
    """

    def pad(a: jax.Array) -> jax.Array:
        more = (a.shape[0], rows - a.shape[1], *a.shape[2:])
        return jnp.concatenate([a, jnp.broadcast_to(a[:, :1], more)], axis=1)

    return tuple(pad(a) if a.shape[1] < rows else a for a in data)
