"""TopK by a fixed number of passes over the data: no loop whose end depends on them, so that no host waits.

The k-th largest key is found digit by digit, from the highest bits to the lowest. A pass counts the keys that reach
each possible value of the next digit, and the largest value that at least k keys reach is the digit. With 4 bits per
digit the 31 bits of a float32 magnitude take 8 passes. The last one counts within pieces of the rows, so that ties at
the k-th key are resolved inside one piece of a row, without another pass.
"""

import jax
import jax.numpy as jnp
from jax import lax

PIECE = 4096
"""Entries of a row that are counted together in the last pass."""


def masks_by_passes(keys: jax.Array, k: jax.Array, bits: int, digit: int) -> jax.Array:
    """Returns masks (n, d) of the ``k`` (n,) largest of each row of ``keys`` (n, d); ties go to the lowest index.

    Args:
      keys: integers of ``bits`` bits, at least 0.
      k: at least 1 and at most d.
      bits: the number of bits of a key.
      digit: the number of bits that a pass finds.

    Example:
      >>> keys = jnp.array([[1, 3, 3, 2], [0, 0, 0, 0]])
      >>> masks_by_passes(keys, jnp.array([1, 2]), bits=2, digit=4).tolist()
      [[False, True, False, False], [True, True, False, False]]
    """
    n, d = keys.shape
    piece = min(PIECE, d)
    pieces = jnp.pad(keys, ((0, 0), (0, -d % piece)), constant_values=-1).reshape(n, -1, piece)
    widths = [digit] * (bits // digit) + [bits % digit] * (bits % digit > 0)
    base, left = jnp.zeros(n, keys.dtype), bits
    for width in widths[:-1]:
        left -= width
        base += _digit(_count(pieces, _trials(base, width, left), (1, 2)), k).astype(keys.dtype) << left
    trials = [base - 1, *_trials(base, widths[-1], 0), base + (2 ** widths[-1] - 1)]
    counts = _count(pieces, trials, (2,))  # of each piece
    lowest = _digit([_total(c) for c in counts[1:-1]], k)
    reach, above = (_pick(counts, lowest + i) for i in (0, 1))  # of the k-th largest on, and above it
    base += lowest.astype(keys.dtype)
    last = _last_tie(pieces, base, reach - above, k - _total(above))
    kth, index = base[:, None], lax.broadcasted_iota(jnp.int32, (n, d), 1)
    return (keys > kth) | ((keys == kth) & (index <= last[:, None]))


def _trials(base: jax.Array, width: int, left: int) -> list[jax.Array]:
    """Returns the 2**width - 1 thresholds (n,) that keys exceed from ``base`` plus each value of the next digit on."""
    return [base + ((value << left) - 1) for value in range(1, 2**width)]


def _count(pieces: jax.Array, trials: list[jax.Array], axes: tuple[int, ...]) -> list[jax.Array]:
    """Returns how many keys exceed each trial (n,), summed over ``axes``, from one reading of the keys."""
    beyond = tuple((pieces > trial[:, None, None]).astype(jnp.int32) for trial in trials)
    zeros = (jnp.int32(0),) * len(trials)
    return lax.reduce(beyond, zeros, lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True)), axes)


def _digit(counts: list[jax.Array], k: jax.Array) -> jax.Array:
    """Returns the largest digit that at least k keys reach, by the counts (n,) of the digits from 1."""
    return sum(((c >= k).astype(jnp.int32) for c in counts), jnp.zeros_like(k))


def _total(counts: jax.Array) -> jax.Array:
    return jnp.sum(counts, axis=-1, dtype=jnp.int32)


def _pick(counts: list[jax.Array], index: jax.Array) -> jax.Array:
    """Returns the counts (n, pieces) at one trial per row."""
    picked = jnp.zeros_like(counts[0])
    for i, c in enumerate(counts):
        picked = jnp.where(index[:, None] == i, c, picked)
    return picked


def _last_tie(pieces: jax.Array, kth: jax.Array, tied: jax.Array, wanted: jax.Array) -> jax.Array:
    """Returns the index in each row of the ``wanted``-th key that equals ``kth``; ``tied`` counts them per piece."""
    until = jnp.cumsum(tied, axis=1, dtype=jnp.int32)
    place = jnp.sum(until < wanted[:, None], axis=1, dtype=jnp.int32)  # the piece that it lies in
    before = _total(jnp.where(until < wanted[:, None], tied, 0))
    keys = jnp.take_along_axis(pieces, place[:, None, None], axis=1, mode="promise_in_bounds")[:, 0]
    ties = jnp.cumsum(keys == kth[:, None], axis=1, dtype=jnp.int32)
    return place * pieces.shape[2] + jnp.sum(ties < (wanted - before)[:, None], axis=1, dtype=jnp.int32)
