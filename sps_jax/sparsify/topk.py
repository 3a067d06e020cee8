"""TopK by magnitude: exact, with a number of kept entries that may be traced, and no sort."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import lax

from sps_jax.errors import unknown
from sps_jax.tree import Tree

SCOPES = ("global", "layerwise")


def matrices(path: tuple, leaf: jax.Array) -> bool:
    """The leaves that are pruned by default: those with more than one axis, so neither biases nor norms."""
    return leaf.ndim > 1


def kept(sparsity: jax.Array | float, entries: int) -> jax.Array:
    """K = max(1, round((1 - sparsity) entries)) as int32, halves to even, in the precision of ``sparsity``."""
    sparsity = jnp.asarray(sparsity, jnp.result_type(float) if isinstance(sparsity, float | int) else None)
    return jnp.maximum(1, jnp.round((1 - sparsity) * entries)).astype(jnp.int32)


def magnitude_bits(x: jax.Array) -> jax.Array:
    """``|x|`` as integers of the same width in the same order: IEEE floats without their sign sort like integers.

    No arithmetic is done on the floats, so denormals count, -0 equals 0, and NaN comes out above infinity.
    """
    word = jnp.dtype(f"int{jnp.finfo(x.dtype).bits}")
    return lax.bitcast_convert_type(x, word) & jnp.iinfo(word).max


def count_at_least(bits: jax.Array, thresholds: list[jax.Array]) -> tuple[jax.Array, ...]:
    """For each threshold the number of ``bits`` (d,) that reach it, all counted in one pass.

    One variadic reduction reads ``bits`` once; XLA:CPU would write the array out for a plain sum of comparisons.
    """
    zeros = (jnp.int32(0),) * len(thresholds)
    reached = tuple((bits >= t).astype(jnp.int32) for t in thresholds)
    return lax.reduce(reached, zeros, lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True)), (0,))


def kth_largest(bits: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th largest of the nonnegative integers ``bits`` (d,), found two binary digits a pass from the top."""
    word = bits.dtype.type
    width = jnp.iinfo(bits.dtype).bits

    def two_digits(i, found):
        low = jnp.maximum(width - 3 - 2 * i, 0).astype(bits.dtype)
        held, _ = lax.optimization_barrier((bits, found))  # else the comparisons' input is materialised once a loop
        trials = [found | (word(digits) << low) for digits in (1, 2, 3)]
        for trial, count in zip(trials, count_at_least(held, trials), strict=True):
            found = jnp.where(count >= k, trial, found)
        return found

    return lax.fori_loop(0, width // 2, two_digits, word(0))


def topk_mask(x: jax.Array, k: jax.Array | int) -> jax.Array:
    """True at exactly the ``k`` entries of ``x`` (d,) of largest magnitude; ties go to the lowest index.

    The same choice as the first ``k`` of a stable descending argsort of ``|x|``. NaN ranks above infinity, so a NaN
    is never pruned away unseen. ``k`` may be traced, 1 <= k <= d.
    """
    k = jnp.asarray(k, jnp.int32)
    bits = magnitude_bits(x)
    threshold = kth_largest(bits, k)
    index = lax.iota(jnp.int32, x.size)
    tied = bits == threshold
    above, reached = jnp.sum(bits > threshold, dtype=jnp.int32), jnp.sum(bits >= threshold, dtype=jnp.int32)

    # The first index `end` with k - above ties before it, by bisection; without surplus ties the loop runs 0 times.
    def bisect(bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.sum(tied & (index < middle), dtype=jnp.int32) >= k - above
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    start = jnp.where(reached > k, 0, x.size).astype(jnp.int32)
    _, end = lax.while_loop(lambda bounds: bounds[0] < bounds[1], bisect, (start, jnp.int32(x.size)))
    return (bits > threshold) | (tied & (index < end))


def prune_array(x: jax.Array, sparsity: jax.Array | float) -> jax.Array:
    """``x`` with all but its ``kept(sparsity, x.size)`` largest magnitudes set to zero."""
    mask = topk_mask(x.ravel(), kept(sparsity, x.size))
    return jnp.where(mask.reshape(x.shape), x, jnp.zeros_like(x))


def topk(
    params: Tree,
    sparsity: jax.Array | float,
    *,
    scope: str = "global",
    prunable: Callable[[tuple, jax.Array], bool] = matrices,
) -> Tree:
    r"""Keep the entries of largest magnitude of ``params``, set the others to zero.

    :math:`K = \max(1, \mathrm{round}((1 - s) d))` of the d prunable entries are kept, exactly, ties in favour of the
    lowest flat index (leaf order of the pytree, then row-major).

    Args:
      params: pytree of floating arrays of ONE model.
      sparsity: s in [0, 1); may be traced.
      scope: ``"global"`` ranks all prunable leaves as one vector, ``"layerwise"`` each leaf by itself.
      prunable: of a leaf's key path and the leaf, whether it is pruned; other leaves pass unchanged.

    Returns:
      A pytree of the same structure, shapes and dtypes.

    Raises:
      ValueError: for an unknown scope.
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in paths]
    chosen = [i for i, (path, leaf) in enumerate(paths) if prunable(path, leaf)]
    if scope == "layerwise":
        for i in chosen:
            leaves[i] = prune_array(leaves[i], sparsity)
    elif chosen:
        flat = prune_array(jnp.concatenate([leaves[i].ravel() for i in chosen]), sparsity)
        ends = [sum(leaves[i].size for i in chosen[: j + 1]) for j in range(len(chosen) - 1)]
        for i, part in zip(chosen, jnp.split(flat, ends), strict=True):
            leaves[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def make_topk(scope: str = "global", prunable: Callable[[tuple, jax.Array], bool] = matrices) -> Callable:
    """``topk`` with its options fixed. Equal options give the same object, so a jitted program is found again."""
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    return _make_topk(scope, prunable)


@cache
def _make_topk(scope: str, prunable: Callable[[tuple, jax.Array], bool]) -> Callable:
    return partial(topk, scope=scope, prunable=prunable)
