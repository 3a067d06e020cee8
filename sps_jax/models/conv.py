"""A convolution that is fast under ``vmap`` over clients, each with its own kernel."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


class Conv(nn.Module):
    """``flax.linen.Conv`` for NHWC images and SAME padding: same parameters, same result up to rounding.

    See :func:`convolution` for what it becomes on which platform.

    Attributes:
      features: number of output features per pixel.
      kernel_size: (height, width).
      strides: (down, right).
      use_bias: whether a bias is added.
      dtype: the dtype to compute in; None for that of the parameters.
      param_dtype: the dtype of the parameters.
      kernel_init, bias_init: initialisers of kernel and bias.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.constant(0)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, H, W, c) -> (b, ceil(H / down), ceil(W / right), features)."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolution(x, kernel, self.strides)
        return y if bias is None else y + bias[None, None, None]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Returns the convolution of ``x`` (b, H, W, c) with ``kernel`` (kh, kw, c, features), SAME padding.

    The platform that is compiled for decides how: on a CPU :func:`winograd_conv` or :func:`patches_conv`, whichever
    ``benchmarks/conv.py`` found faster for such shapes; elsewhere :func:`native_conv`. It has a reverse derivative but
    no forward one.

    Example:
      >>> convolution(jnp.ones((1, 2, 2, 1)), jnp.ones((1, 1, 1, 3)), (1, 1)).shape
      (1, 2, 2, 3)
    """
    on_cpu, native = (partial(f, strides=strides) for f in (fastest_on_cpu(x, kernel, strides), native_conv))
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=native)


def _forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> tuple[jax.Array, tuple]:
    return convolution(x, kernel, strides), (x, kernel)


def _backward(strides: tuple[int, int], saved: tuple, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved

    def through(conv: Callable) -> Callable:
        return lambda x, kernel, slope: jax.vjp(partial(conv, strides=strides), x, kernel)[1](slope)

    on_cpu = through(fastest_on_cpu(x, kernel, strides))
    on_gpu = partial(_through_on_gpu, strides=strides)
    return lax.platform_dependent(x, kernel, slope, cpu=on_cpu, cuda=on_gpu, rocm=on_gpu, default=through(native_conv))


convolution.defvjp(_forward, _backward)


def _through_on_gpu(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, strides: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Returns both gradients; under ``vmap`` that of the kernel is a batched product with the patches of x.

    XLA would make of it one grouped convolution whose windows are as large as the image, for which cuDNN has no fast
    algorithm.
    """

    shape, dtype = kernel.shape, kernel.dtype

    def of_kernel(conv: Callable, x: jax.Array, slope: jax.Array) -> jax.Array:
        anywhere = jnp.zeros(shape, dtype)  # a convolution is linear in its kernel
        return jax.vjp(lambda kernel: conv(x, kernel, strides), anywhere)[1](slope)[0]

    one = custom_vmap(partial(of_kernel, native_conv))

    @one.def_vmap
    def several(size: int, batched: list[bool], x: jax.Array, slope: jax.Array) -> tuple[jax.Array, bool]:
        axes = tuple(0 if b else None for b in batched)
        return jax.vmap(partial(of_kernel, patches_conv), in_axes=axes)(x, slope), True

    return jax.vjp(lambda x: native_conv(x, kernel, strides), x)[1](slope)[0], one(x, slope)


def fastest_on_cpu(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> Callable:
    """Returns this module's fastest convolution for such arguments on a CPU, by ``benchmarks/conv.py``."""
    (_, height, width, c), size = x.shape, kernel.shape[:2]
    possible = size == (3, 3) and strides == (1, 1) and height % 2 == width % 2 == 0
    return winograd_conv if possible and c >= 16 else patches_conv  # c is the inner axis of its matrix products


def native_conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Returns XLA's convolution of ``x`` (b, H, W, c) with ``kernel`` (kh, kw, c, features), SAME padding.

    It is slow on a CPU inside a loop (jax issue 12868), and becomes a grouped convolution under ``vmap`` over kernels.
    """
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def patches_conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Returns the same by one matrix product: the concatenated pixels under the kernel, times the kernel."""
    (b, height, width, c), (kh, kw, _, features) = x.shape, kernel.shape
    (top, bottom, rows), (left, right, columns) = map(_same, (height, width), (kh, kw), strides)
    down, across = strides
    x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    ends = (rows - 1) * down + 1, (columns - 1) * across + 1
    patches = [
        lax.slice(x, (0, i, j, 0), (b, i + ends[0], j + ends[1], c), (1, down, across, 1))
        for i in range(kh)
        for j in range(kw)
    ]
    y = jnp.concatenate(patches, axis=-1).reshape(-1, kh * kw * c) @ kernel.reshape(-1, features)
    return y.reshape(b, rows, columns, features)


def winograd_conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int] = (1, 1)) -> jax.Array:
    r"""Returns the same for 3 x 3 kernels, stride 1, even H and W, by Winograd's :math:`F(2 \times 2, 3 \times 3)`.

    Each 2 x 2 block of outputs is :math:`Y = A^\top [\, (G k G^\top) \odot (B^\top d B) \,] A`, where k is the kernel,
    d the 4 x 4 pixels around the block, and A, B and G are the fixed matrices of Lavin and Gray (2016, arXiv
    1509.09308, section 4.1). Over all blocks these are 16 matrix products whose inner axis is the input features: 4
    multiplications per output instead of 9, and 4 copies of x instead of 9.
    """
    (b, height, width, c), features = x.shape, kernel.shape[3]
    kernels = [_kernel_transform(list(row)) for row in _kernel_transform(list(kernel))]  # kernels[p][q]: (c, features)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = []
    for p, pixels in enumerate(_input_transform(_overlapping(x, 1))):
        blocks = _input_transform(_overlapping(pixels, 2))
        rows.append(_output_transform([d.reshape(-1, c) @ kernels[p][q] for q, d in enumerate(blocks)]))
    columns = [_output_transform(list(column)) for column in zip(*rows, strict=True)]
    y = jnp.stack([jnp.stack(column) for column in columns])  # (2 columns, 2 rows, blocks, features)
    y = y.reshape(2, 2, b, height // 2, width // 2, features)
    return y.transpose(2, 3, 1, 4, 0, 5).reshape(b, height, width, features)


def _overlapping(x: jax.Array, axis: int) -> list[jax.Array]:
    """Returns every second row (or column), starting at the first, second, third and fourth; their number is even.

    It reshapes, because the gradient of a strided slice pads between entries, which is slow.
    """
    half = x.shape[axis] // 2
    pairs = x.reshape(*x.shape[:axis], half, 2, *x.shape[axis + 1 :])
    even, odd = (lax.squeeze(a, (axis + 1,)) for a in lax.split(pairs, (1, 1), axis + 1))
    return [lax.slice_in_dim(a, i, i + half - 1, axis=axis) for i in range(2) for a in (even, odd)]


def _kernel_transform(k: list[jax.Array]) -> list[jax.Array]:
    """Returns G k along one axis."""
    mean = (k[0] + k[2]) / 2
    return [k[0], mean + k[1] / 2, mean - k[1] / 2, k[2]]


def _input_transform(d: list[jax.Array]) -> list[jax.Array]:
    """Returns B' d, B' being the transpose of B, along one axis."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output_transform(m: list[jax.Array]) -> list[jax.Array]:
    """Returns A' m, A' being the transpose of A, along one axis."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _same(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Returns the SAME padding of an axis: the number of zeros before and after it, and of outputs."""
    outputs = math.ceil(size / stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2, outputs
