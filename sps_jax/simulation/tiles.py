"""The bytes that arrays take in the memory of a device; a TPU stores them in tiles."""

import itertools
import math
from typing import Any

import jax

ROW = 128
"""Entries in a row of a TPU's tile."""


def held(rows: int | None, arrays: Any, tiled: bool) -> int:
    """Return the bytes of arrays, stacked ``rows`` times along a new first axis unless that is None."""
    first = () if rows is None else (rows,)
    return sum(stored((*first, *a.shape), a.dtype.itemsize, tiled) for a in jax.tree.leaves(arrays))


def stored(shape: tuple[int, ...], size: int, tiled: bool) -> int:
    """Return the bytes of an array of entries of ``size`` bytes.

    A TPU stores two axes in tiles of 8 x 128 entries (of 4 x 128, 2 x 128 or 128 where there are fewer rows): those two
    that waste least.
    """
    if not tiled or not shape or 0 in shape:
        return math.prod(shape) * size
    if len(shape) == 1:
        return up(shape[0], 1024 if shape[0] > 512 else ROW) * size
    pairs = itertools.permutations(range(len(shape)), 2)
    least = min(
        up(shape[i], min(8, 1 << (shape[i] - 1).bit_length())) / shape[i] * up(shape[j], ROW) / shape[j]
        for i, j in pairs
    )
    return round(math.prod(shape) * size * least)


def up(count: int, unit: int) -> int:
    """Return the least multiple of ``unit`` that is not below ``count``."""
    return -(-count // unit) * unit
