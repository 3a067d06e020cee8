"""TopK of accelerators, the kernels interpreted and the passes as they are, against NumPy's stable argsort.

Interpreted, a kernel computes what it computes on a GPU or TPU, in NumPy's arithmetic of integers.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from sps_jax.compression.kernel import LONGEST, REGISTERS, masks_by_kernel
from sps_jax.compression.magnitude import magnitude_bits
from sps_jax.compression.passes import masks_by_passes


def by_passes(x, k, digit):
    keys, bits = magnitude_bits(x), jnp.finfo(x.dtype).bits - 1
    return masks_by_passes(keys if bits > 31 else keys.astype(jnp.int32), k, bits, digit)


WAYS = {
    "gpu": partial(masks_by_kernel, tpu=False, interpret=True),
    "tpu": partial(masks_by_kernel, tpu=True, interpret=True),
    "passes of 4 bits": partial(by_passes, digit=4),
    "passes of 3 bits": partial(by_passes, digit=3),
}
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float64": np.float64}
every_way = pytest.mark.parametrize("way", WAYS)


def arrays(n, d, dtype, seed=0):
    """(n, d) of every kind in turn: smooth, tied, mostly zero, with denormals, with infinities and NaN, constant."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((n, d))
    x[1::6] = np.round(2 * x[1::6]) / 2
    x[2::6][draw.random(x[2::6].shape) < 0.9] = 0
    x = x.astype(dtype)
    x[3::6] *= np.asarray(ml_dtypes.finfo(dtype).smallest_normal, dtype)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, np.nan]).astype(dtype)
    x[4::6] = np.where(draw.random(x[4::6].shape) < 0.3, draw.choice(special, x[4::6].shape), x[4::6])
    x[5::6] = x[5::6, :1]
    k = draw.integers(1, d + 1, n)
    k[:12], k[12:24] = 1, d
    return x, k.astype(np.int32)


def expected(x, k):
    """The first k of a stable descending argsort of ``|x|``, NaN above infinity: of the bits without the sign."""
    bits = x.dtype.itemsize * 8
    keys = x.view(f"u{bits // 8}") & np.array(2 ** (bits - 1) - 1, f"u{bits // 8}")
    ranks = np.argsort(np.argsort(keys.max() - keys, axis=1, kind="stable"), axis=1)
    return ranks < k[:, None]


def found(way, x, k):
    """The masks, from a compiled program."""
    return np.asarray(jax.jit(WAYS[way])(x, k))


@pytest.mark.parametrize(("way", "dtype"), sorted(set(itertools.product(WAYS, DTYPES)) - {("tpu", "float64")}))
def test_a_thousand_arrays(way, dtype, x64):
    """All of them in one call, k = 1 and k = d among them. (On a TPU XLA cannot read the bits of a float64.)"""
    x, k = arrays(1000, 150, DTYPES[dtype])
    np.testing.assert_array_equal(found(way, x, k), expected(x, k))


@every_way
@pytest.mark.parametrize("d", [1, 2, 128, 129, 8192])
def test_rows_of_any_length(way, d):
    """Some fill their block and some do not, and 24 rows fill no block of a TPU."""
    x, k = arrays(30, d, np.float32, seed=d)
    np.testing.assert_array_equal(found(way, x, k), expected(x, k))


@every_way
def test_rows_that_a_gpu_reads_part_by_part(way):
    """Ties lie in each of the parts and pieces: all entries equal, k from the first to the last."""
    d = REGISTERS + 3000
    assert d < LONGEST
    x, k = arrays(12, d, np.float32)
    x[:4], k[:4] = 1, [1, REGISTERS - 1, REGISTERS + 1, d]
    np.testing.assert_array_equal(found(way, x, k), expected(x, k))
