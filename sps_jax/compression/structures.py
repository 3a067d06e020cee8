"""Which entries of a leaf are kept or dropped together, and the format of a message with such zeros.

:class:`sps_jax.Sparsifier` uses three functions of a structure, each for one leaf: ``ranked`` turns the entries' scores
into one score per block, ``choose`` selects blocks, ``spread`` turns the selection into a mask of entries. A leaf is
reshaped, row-major, to a matrix whose columns are its last axis: a convolution kernel (h, w, c, features) to
(h w c, features), a vector to one row.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax import tree
from sps_jax.compression.bits import FLOATS, MessageCount, MessageFormat, MessageSpec, value_bits
from sps_jax.compression.leaves import Prunable, chosen
from sps_jax.compression.magnitude import magnitude_bits
from sps_jax.compression.scopes import kept
from sps_jax.compression.selection import topk_mask
from sps_jax.errors import unknown

COMPARED = 32
"""The largest group that is ranked by comparing all pairs, M comparisons per entry; below it a threshold search takes
more passes than that."""


def parted(message: Any, prunable: Prunable) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns the leaves of any pytree that are pruned, and the others."""
    pruned: list[jax.Array] = []
    others: list[jax.Array] = []
    for leaf, yes in zip(jax.tree.leaves(message), chosen(message, prunable), strict=True):
        (pruned if yes else others).append(leaf)
    return pruned, others


@dataclass(frozen=True)
class Entries:
    """No structure: every entry is a block, and a message sends a position per nonzero."""

    def check(self, scope: str) -> None:
        """Raise a ``ValueError`` for a scope that this structure does not support."""

    def agree(self, sparsity: float) -> None:
        """Raise a ``ValueError`` for a sparsity that contradicts this structure."""

    def ranked(self, scores: jax.Array) -> jax.Array:
        """Returns (blocks,) scores whose magnitude ranks the blocks of a leaf with these ``scores``."""
        return scores.ravel()

    def choose(self, ranked: jax.Array, sparsity: jax.Array) -> jax.Array:
        """Returns (blocks,) booleans that are true for the ``kept(sparsity, blocks)`` largest."""
        return topk_mask(ranked, kept(sparsity, ranked.size))

    def spread(self, mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Returns the mask of the entries of a leaf of this ``shape``."""
        return mask.reshape(shape)

    def code(self, prunable: Prunable) -> MessageFormat:
        """Returns the format of messages whose ``prunable`` leaves have such zeros."""
        return FLOATS


@dataclass(frozen=True)
class Tiles(Entries):
    """Tiles of ``rows`` x ``columns`` of the matrix, None for all; the last tiles may be smaller.

    A tile's score is the mean magnitude of its entries' scores, so that tiles of different sizes compare fairly; among
    tiles of one size the criterion ``magnitude`` gives the l1 norm by which Li et al. (2017, arXiv 1608.08710) rank
    filters. The sparsity is the fraction of tiles that are dropped.

    A message sends every number of each tile with a nonzero, and one position per tile; of leaves that are not pruned
    it sends the nonzeros, with a position each.
    """

    rows: int | None
    columns: int | None

    def ranked(self, scores: jax.Array) -> jax.Array:
        total = jnp.sum(jnp.abs(self._tiled(scores)), axis=(1, 3))
        return (total / self._sizes(scores.shape).astype(total.dtype)).ravel()

    def spread(self, mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        (height, width), (rows, columns), (r, c) = self._grid(shape)
        tiles = jnp.broadcast_to(mask.reshape(rows, 1, columns, 1), (rows, r, columns, c))
        return tiles.reshape(rows * r, columns * c)[:height, :width].reshape(shape)

    def code(self, prunable: Prunable) -> MessageFormat:
        def count(message: Any, info: Any) -> MessageCount:
            pruned, others = parted(message, prunable)
            values = positions = tree.nonzeros(others)
            for leaf in pruned:
                used = jnp.any(self._tiled(leaf) != 0, axis=(1, 3))
                values += jnp.sum(jnp.where(used, self._sizes(leaf.shape), 0), dtype=jnp.int32)
                positions += jnp.sum(used, dtype=jnp.int32)
            return MessageCount(values, positions)

        def size(message: Any) -> MessageSpec:
            pruned, others = parted(message, prunable)
            tiles = sum(math.prod(self._grid(leaf.shape)[1]) for leaf in pruned)
            return MessageSpec(tree.size(message), tree.size(others) + tiles, value_bits(message))

        return MessageFormat(count, size)

    def _grid(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Returns the shapes of the matrix of such a leaf, of the grid of its tiles, and of one tile."""
        width = shape[-1] if shape else 1
        height = math.prod(shape) // width
        tile = self.rows or height, self.columns or width
        return (height, width), (-(-height // tile[0]), -(-width // tile[1])), tile

    def _tiled(self, x: jax.Array) -> jax.Array:
        """Returns x as (rows of tiles, r, columns of tiles, c), padded with zeros."""
        (height, width), (rows, columns), (r, c) = self._grid(x.shape)
        padding = (0, rows * r - height), (0, columns * c - width)
        return jnp.pad(x.reshape(height, width), padding).reshape(rows, r, columns, c)

    def _sizes(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the number of entries per tile, (rows of tiles, columns of tiles) int32."""
        matrix, tiles, tile = self._grid(shape)
        down, across = (np.minimum(t, m - t * np.arange(n)) for m, n, t in zip(matrix, tiles, tile, strict=True))
        return np.outer(down, across).astype(np.int32)


@dataclass(frozen=True)
class Groups(Entries):
    """N:M (Zhou et al. 2021, arXiv 2102.04010): every group of ``size`` consecutive entries keeps the same number.

    Each group of M = ``size`` entries keeps the N = kept(sparsity, M) largest; ties go to the lowest index, and a
    smaller last group keeps up to N. So the sparsity, which may be traced, decides N; ``keep`` is the N of a structure
    given as N:M, which the sparsity has to :meth:`agree` with, or None.

    A message sends as many positions in each group as its fullest group has nonzeros, ceil(log2 M) bits each; a group
    with fewer repeats its last position, and an empty group sends a zero. Leaves that are not pruned are sent whole.
    The encoding ``entropy`` undercounts if groups differ, as in the mean of clients with different masks.
    """

    size: int
    keep: int | None = None

    def check(self, scope: str) -> None:
        if scope == "erk":
            raise ValueError(
                f"groups of {self.size} have the same sparsity in every layer, so scope must be 'global' or "
                "'layerwise', not 'erk'"
            )

    def agree(self, sparsity: float) -> None:
        if self.keep not in (None, max(1, round((1 - sparsity) * self.size))):
            wanted = 1 - self.keep / self.size
            raise ValueError(f"structure {self.keep}:{self.size} has sparsity {wanted:g}, not {sparsity:g}")

    def choose(self, ranked: jax.Array, sparsity: jax.Array) -> jax.Array:
        n = kept(sparsity, self.size)
        if self.size > COMPARED:
            return jax.vmap(topk_mask, in_axes=(0, None))(self._grouped(ranked, 0), n).ravel()[: ranked.size]
        bits = self._grouped(magnitude_bits(ranked), -1)
        one, other = bits[:, :, None], bits[:, None, :]
        index = np.arange(self.size)
        earlier = jnp.asarray(index[None, None, :] < index[None, :, None])
        before = (other > one) | ((other == one) & earlier)  # (groups, entry, another entry)
        mask = jnp.sum(before, axis=2, dtype=jnp.int32) < n
        return mask.ravel()[: ranked.size]

    def code(self, prunable: Prunable) -> MessageFormat:
        def count(message: Any, info: Any) -> MessageCount:
            pruned, others = parted(message, prunable)
            held = [jnp.sum(self._grouped(leaf.ravel(), 0) != 0, axis=1, dtype=jnp.int32) for leaf in pruned]
            all_held = jnp.concatenate([*held, jnp.zeros(1, jnp.int32)])  # the last is no group: so it is never empty
            fullest = jnp.max(all_held)
            values = jnp.sum(jnp.clip(all_held[:-1], jnp.minimum(1, fullest)), dtype=jnp.int32)
            return MessageCount(values + tree.size(others), fullest * (all_held.size - 1))

        def size(message: Any) -> MessageSpec:
            groups = sum(-(-leaf.size // self.size) for leaf in parted(message, prunable)[0])
            return MessageSpec(tree.size(message), self.size, value_bits(message), groups=max(1, groups))

        return MessageFormat(count, size)

    def _grouped(self, vector: jax.Array, padding: int) -> jax.Array:
        """Returns the vector as (groups, size), padded at the end with ``padding``."""
        return jnp.pad(vector, (0, -vector.size % self.size), constant_values=padding).reshape(-1, self.size)


def entries() -> Entries:
    """Each weight by itself; one position per weight is sent."""
    return Entries()


def rows() -> Tiles:
    """Rows of the matrix, for example all weights of one output of a linear model; one position per row."""
    return Tiles(1, None)


def filters() -> Tiles:
    """Columns: output channels of a convolution, inputs of a linear model; one position per column."""
    return Tiles(None, 1)


def blocks(height: int, width: int) -> Tiles:
    """Blocks of R x C weights, for example blocks:4x4, the last ones may be smaller; one position per block."""
    return Tiles(height, width)


def groups(size: int) -> Groups:
    """Groups of M consecutive weights, each keeping the same number; one position of ceil(log2 M) bits per weight."""
    return Groups(size)


def n_of_m(keep: int, size: int) -> Groups:
    """N of each M consecutive weights are kept, for example 2:4; the sparsity must be 1 - N/M."""
    return Groups(size, keep)


STRUCTURES: dict[str, Callable[..., Entries]] = {
    "entries": entries,
    "rows": rows,
    "filters": filters,
    "blocks:RxC": blocks,
    "groups:M": groups,
    "N:M": n_of_m,
}
"""The one table of structures; R, C, N and M stand for numbers."""


def structure(spelled: str) -> Entries:
    """Returns the structure of that name: ``"rows"``, ``"blocks:4x4"``, ``"2:4"``, ...

    Raises:
      ValueError: for an unknown name, a number below 1, or N > M.

    >>> structure("blocks:2x8"), structure("2:4")
    (Tiles(rows=2, columns=8), Groups(size=4, keep=2))
    """
    make = {re.sub("[A-Z]", "0", name): make for name, make in STRUCTURES.items()}.get(re.sub(r"\d+", "0", spelled))
    if make is None:
        raise unknown("structure", spelled, STRUCTURES)
    made = make(*map(int, re.findall(r"\d+", spelled)))
    if re.search(r"(?<!\d)0+(?!\d)", spelled) or (isinstance(made, Groups) and (made.keep or 1) > made.size):
        raise ValueError(f"the numbers of structure {spelled!r} must be at least 1, and in N:M N at most M")
    return made
