"""TopK of short rows in one kernel: a program per row on a GPU (Triton), per block of rows on a TPU (Mosaic).

A program bisects over the bits of the row's k-th largest key, and reads the keys from registers, or from a TPU's vector
memory. If several keys equal the k-th largest, it bisects over their indices. Both loops end inside the kernel, so that
the host launches it and does not wait.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from sps_jax.compression.magnitude import magnitude_bits

LONGEST = 2**16
"""The longest row that a kernel takes."""
REGISTERS = 2**14
"""Keys that a program on a GPU holds at once; it reads a longer row part by part, again in every pass."""
BLOCK = 2**18
"""Keys in a block of rows on a TPU: with its mask and double buffering 4 MB of vector memory."""

Test = Callable[[jax.Array, jax.Array], jax.Array]


def masks_by_kernel(x: jax.Array, k: jax.Array, *, tpu: bool, interpret: bool = False) -> jax.Array:
    """Returns masks (n, d) of the ``k`` (n,) largest magnitudes of each row of ``x`` (n, d), see :func:`topk_mask`.

    Args:
      x: floats.
      k: at least 1 and at most d.
      tpu: whether the kernel is for a TPU instead of a GPU.
      interpret: whether to interpret the kernel, on any platform, instead of compiling it.

    Example:
      >>> x, k = jnp.array([[1.0, 3.0, -3.0, 2.0], [0.0, 0.0, 0.0, 0.0]]), jnp.array([1, 2], jnp.int32)
      >>> masks_by_kernel(x, k, tpu=True, interpret=True).tolist()
      [[False, True, False, False], [True, True, False, False]]
    """
    (n, d), bits = x.shape, jnp.finfo(x.dtype).bits - 1
    x = x if bits >= 31 else magnitude_bits(x).astype(jnp.int32)  # a TPU's kernel cannot read the bits of 16-bit floats
    if tpu:
        rows, width, parts, params = block_rows(n, d), d, 1, None
    else:
        rows, width = 1, 1 << max(7, (d - 1).bit_length())
        parts, warps = pl.cdiv(width, REGISTERS), 4 if width <= 2**11 else 8 if width <= 2**13 else 16
        params = None if interpret else triton.CompilerParams(num_warps=warps)
    kept = pl.pallas_call(
        partial(_program, d=d, bits=bits, parts=parts, tpu=tpu),
        out_shape=jax.ShapeDtypeStruct((n, d), jnp.int8),
        grid=(pl.cdiv(n, rows),),
        in_specs=[pl.BlockSpec((rows, 1), lambda i: (i, 0)), pl.BlockSpec((rows, width), lambda i: (i, 0))],
        out_specs=pl.BlockSpec((rows, width), lambda i: (i, 0)),
        interpret=interpret,
        compiler_params=params,
    )(k[:, None], x)
    return kept != 0


def block_rows(n: int, d: int) -> int:
    """Returns the rows of (n, d) in a TPU's block: four tiles of 8, so that sums over one hide another's latency."""
    return min(32 if 32 * d <= BLOCK else 8, n)


def _read(x: Any, first: jax.Array | int, index: jax.Array, d: int, tpu: bool) -> jax.Array:
    """Returns the keys from ``first`` on; behind the end of a row -1, which no threshold counts."""
    if tpu:
        return _keys(x[...])
    own = index < d
    return jnp.where(own, _keys(triton.load(x.at[:, pl.ds(first, index.shape[1])], mask=own, other=0)), -1)


def _keys(x: jax.Array) -> jax.Array:
    return magnitude_bits(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _write(kept: Any, first: jax.Array | int, index: jax.Array, d: int, tpu: bool, values: jax.Array) -> None:
    if tpu:
        kept[...] = values
    else:
        triton.store(kept.at[:, pl.ds(first, index.shape[1])], values, mask=index < d)


def _program(k_ref: Any, x_ref: Any, kept_ref: Any, *, d: int, bits: int, parts: int, tpu: bool) -> None:
    """Write the masks of a block of rows."""
    (rows, width), k = x_ref.shape, k_ref[...]
    size = width // parts

    def part(i: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        index = i * size + lax.broadcasted_iota(jnp.int32, (rows, size), 1)
        return _read(x_ref, i * size, index, d, tpu), index

    only = part(0)
    each = (lambda i: only) if parts == 1 else part  # a row of one part stays in registers

    def count(*tests: Test) -> list[jax.Array]:
        """Returns how many keys of each row pass each test of key and index, (rows, 1)."""

        def add(i: jax.Array | int, counts: list[jax.Array]) -> list[jax.Array]:
            own = each(i)
            return [c + _sum(t(*own)) for c, t in zip(counts, tests, strict=True)]

        none = [jnp.zeros((rows, 1), jnp.int32) for _ in tests]
        return add(0, none) if parts == 1 else lax.fori_loop(0, parts, add, none)

    def two_bits(j: jax.Array, kth: jax.Array) -> jax.Array:
        unit = lax.shift_left(kth.dtype.type(1), jnp.asarray(bits // 2 * 2 - 2 - 2 * j, kth.dtype))
        reached = count(*(lambda key, _, trial=kth + v * unit: key >= trial for v in (1, 2, 3)))
        return kth + unit * sum((c >= k).astype(kth.dtype) for c in reached)

    kth = jnp.zeros((rows, 1), only[0].dtype)
    if bits % 2:
        top = kth.dtype.type(1 << bits - 1)
        kth = jnp.where(count(lambda key, _: key >= top)[0] >= k, top, kth)
    kth = lax.fori_loop(0, bits // 2, two_bits, kth)

    above, tied = count(lambda key, _: key > kth, lambda key, _: key == kth)
    wanted, places = k - above, d.bit_length()
    search = (jnp.max(tied - wanted) > 0).astype(jnp.int32)  # 0 if all ties are kept

    def one_place(j: jax.Array, end: jax.Array) -> jax.Array:
        trial = end + lax.shift_left(jnp.int32(1), places - 1 - j)
        return jnp.where(count(lambda key, index: (key == kth) & (index < trial))[0] <= wanted, trial, end)

    end = lax.fori_loop(0, search * places, one_place, jnp.full_like(k, d) * (1 - search))
    for i in range(parts):
        key, index = each(i)
        kept = (key > kth) | ((key == kth) & (index < end))
        _write(kept_ref, i * size, index, d, tpu, kept.astype(jnp.int8))


def _sum(flags: jax.Array) -> jax.Array:
    return jnp.sum(flags.astype(jnp.int32), axis=1, keepdims=True, dtype=jnp.int32)
