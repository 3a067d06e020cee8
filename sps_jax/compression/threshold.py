"""TopK by a search for the threshold, whose number of passes depends on the data: the fastest on a CPU.

The mask is ``|x| > t`` for a threshold t that exactly k of the d entries of x exceed. The search for t runs on the bit
patterns of |x|, between two bounds, exceeded by at least k and by fewer than k entries. Each pass over x counts the
entries above three trial thresholds at once, and the bounds move to the trials next to k.

The first trials are quantiles of a sorted sample of max(64, sqrt(d)) entries. Later trials interpolate the counts,
which reduces n entries between the bounds to about sqrt(n). So n falls from d to about d / sqrt(sample size), and then
to its square root per pass: 4 or 5 passes for 50,000 entries of a smooth distribution, 5 or 6 for ten million. One
trial per pass is the middle, which halves the interval whatever the data: at most about 32 passes in float32, 64 in
float64. If several entries equal the k-th largest, a second search of the same kind separates them by index.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sps_jax.compression.magnitude import magnitude_bits


class Bounds(NamedTuple):
    """Thresholds low < high and the numbers of keys above them: at least k above low, fewer than k above high."""

    low: jax.Array
    high: jax.Array
    above_low: jax.Array
    above_high: jax.Array


def count_above(keys: jax.Array, thresholds: jax.Array) -> jax.Array:
    """Returns the number of ``keys`` (d,) that exceed each of the ``thresholds`` (m,), counted in one pass.

    One variadic reduction reads ``keys`` once; for a plain sum of comparisons XLA:CPU would materialise the array.
    """
    rows = 1 if keys.size < 2**18 else max(r for r in range(1, 65) if keys.size % r == 0)  # uses several cores
    keys, zeros = keys.reshape(rows, -1), (jnp.int32(0),) * thresholds.size
    counts = tuple((keys > t).astype(jnp.int32) for t in thresholds)
    for axis in (1, 0):
        counts = lax.reduce(counts, zeros, lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True)), (axis,))
    return jnp.stack(counts)


def sampled(x: jax.Array, k: jax.Array) -> jax.Array:
    """Returns the first trial thresholds for the k-th largest magnitude of ``x`` (d,): zero and three sample quantiles.

    Among n sampled entries its rank is n p, p = k / d, with standard deviation sqrt(n p (1 - p)); the outer quantiles
    are 2.5 deviations away. If the lower quantile is one of many zeros, 1/64 of the upper one replaces it, so that the
    search starts among the nonzeros.
    """
    n, octave = min(x.size, max(64, math.isqrt(x.size))), 1 << jnp.finfo(x.dtype).nmant
    sample = jnp.sort(magnitude_bits(x.at[_spread(n, x.size)].get(mode="promise_in_bounds")))
    sample = jnp.append(sample, sample[-1:] + octave)  # twice the largest, as few entries exceed the whole sample
    p = 1 - k.astype(jnp.float32) / x.size
    deviation = 2.5 * jnp.sqrt(jnp.maximum(p * (1 - p), 1 / n) / n)
    ranks = (n * (p + deviation * (lax.iota(jnp.float32, 3) - 1))).astype(jnp.int32)
    lower, middle, upper = sample[jnp.clip(ranks, 0, n)]
    return jnp.stack([jnp.zeros_like(lower), jnp.maximum(lower - 1, upper - 6 * octave), middle - 1, upper])


def _spread(n: int, d: int) -> jax.Array:
    """Returns n indices below d: multiples of the golden ratio modulo 1, spread evenly and aligned with no matrix row.

    They are computed in 32 bits. As a constant array they would be an operand of every branch that TopK is in, and
    ``custom_vmap`` refuses those.
    """
    fraction = (lax.iota(jnp.uint32, n) * jnp.uint32(2654435769)) >> 8  # of 2**24; the factor is 2**32 / golden ratio
    return jnp.minimum((fraction.astype(jnp.float32) * (d / 2**24)).astype(jnp.int32), d - 1)


def interpolated(bounds: Bounds, k: jax.Array) -> jax.Array:
    """Returns three thresholds: the middle of the bounds, and one on each side of the estimate that k keys exceed.

    The logarithm of the count is interpolated linearly in the threshold: exact for a power law, since bit patterns grow
    like logarithms, and locally for any density. With n keys between the bounds, the estimate at the fraction u of the
    interval has a standard deviation of about sqrt(u (1 - u) / n); 0.65 deviations each way enclose it often enough and
    leave few keys. Adding 0.5 to the counts keeps the logarithms finite.
    """
    low, high, above_low, above_high = bounds
    surplus, inside = ((above_low - c).astype(jnp.float32) + 0.5 for c in (k, above_high))
    wanted, beyond = (c.astype(jnp.float32) + 0.5 for c in (k, above_high))
    place = jnp.log1p(surplus / wanted) / jnp.log1p(inside / beyond)
    deviation = 0.65 * jnp.sqrt(place * (1 - place) / (inside + 1.5))
    places = jnp.stack([place - deviation, jnp.full_like(place, 0.5), place + deviation])
    return low + ((high - low).astype(jnp.float32) * places).astype(low.dtype)


def moved(bounds: Bounds, count: Callable, k: jax.Array, trials: jax.Array) -> Bounds:
    """Returns ``bounds`` after a pass that counts the keys above each of the ``trials``, clipped to the bounds."""
    low, high, above_low, above_high = bounds
    trials = jnp.clip(trials, low + 1, high - 1)
    counts = count(trials)
    enough = counts >= k
    return Bounds(
        low=jnp.max(jnp.where(enough, trials, low)),
        high=jnp.min(jnp.where(enough, high, trials)),
        above_low=jnp.min(jnp.where(enough, counts, above_low)),
        above_high=jnp.max(jnp.where(enough, above_high, counts)),
    )


def narrowed(bounds: Bounds, count: Callable, k: jax.Array) -> Bounds:
    """Returns ``bounds`` moved until exactly k keys lie above ``low``, or ``high`` is the next integer."""
    return lax.while_loop(
        lambda bounds: (bounds.above_low > k) & (bounds.high - bounds.low > 1),
        lambda bounds: moved(bounds, count, k, interpolated(bounds, k)),
        bounds,
    )


def mask_by_search(x: jax.Array, k: jax.Array) -> jax.Array:
    """Returns a mask (d,) of the ``k`` entries of ``x`` (d,) of largest magnitude, see :func:`sps_jax.topk_mask`.

    Example:
      >>> mask_by_search(jnp.array([1.0, -3.0, 3.0, 2.0]), jnp.int32(2)).tolist()
      [False, True, True, False]
    """
    d, zero = jnp.int32(x.size), jnp.int32(0)
    bits = magnitude_bits(x)
    word = bits.dtype.type

    def by_magnitude(thresholds: jax.Array) -> jax.Array:
        held, _ = lax.optimization_barrier((x, thresholds))  # or XLA would materialise the bits before the loop
        return count_above(magnitude_bits(held), thresholds)

    def by_index(thresholds: jax.Array) -> jax.Array:
        held, last, _ = lax.optimization_barrier((x, d, thresholds))  # as above, for the indices too
        earliest_highest = jnp.where(magnitude_bits(held) == found.high, last - lax.iota(jnp.int32, x.size), 0)
        return many + count_above(earliest_highest, thresholds)

    everything = Bounds(word(-1), word(jnp.iinfo(word).max), d, zero)
    found = narrowed(moved(everything, by_magnitude, k, sampled(x, k)), by_magnitude, k)
    # If more than k still lie above low, those at high are tied, and the earliest are kept. Else this takes no pass.
    many = jnp.int32(2**30)  # added to all counts makes their logarithm linear, as ties lie evenly among the indices
    ties = Bounds(zero, d, many + found.above_low - found.above_high, many)
    dropped = narrowed(ties, by_index, many + k - found.above_high).low
    return bits > found.low + (lax.iota(jnp.int32, x.size) >= d - dropped).astype(word)
