"""The convolution against flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.models import conv

SHAPES = [  # height, width, inputs, features, kernel, strides
    (8, 8, 5, 7, (3, 3), (1, 1)),
    (8, 8, 3, 4, (3, 3), (2, 2)),
    (32, 32, 3, 8, (3, 3), (1, 1)),
    (16, 16, 16, 24, (3, 3), (1, 1)),
    (6, 4, 16, 5, (3, 3), (1, 1)),
    (8, 8, 5, 6, (1, 1), (2, 2)),
    (8, 8, 5, 6, (1, 1), (1, 1)),
    (7, 9, 2, 3, (3, 3), (1, 1)),
    (7, 5, 2, 3, (3, 3), (2, 2)),
    (6, 8, 2, 3, (5, 3), (1, 2)),
    (4, 4, 16, 16, (3, 3), (1, 1)),
    (1, 1, 4, 4, (3, 3), (1, 1)),
]
IDS = ["x".join(map(str, (h, w, i, o, *k, *s))) for h, w, i, o, k, s in SHAPES]


def layers(shape, **options):
    _, _, _, features, kernel, strides = shape
    return conv.Conv(features, kernel, strides, **options), nn.Conv(features, kernel, strides, **options)


def images(shape, b=3, seed=0):
    height, width, inputs, *_ = shape
    return jnp.asarray(np.random.default_rng(seed).normal(size=(b, height, width, inputs)), jnp.float32)


def close(first, second, tolerance):
    scale = float(jnp.abs(second).max())
    np.testing.assert_allclose(first, second, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_parameters_and_result_are_flaxs(shape, use_bias):
    mine, flaxs = layers(shape, use_bias=use_bias)
    x, key = images(shape), jax.random.key(0)
    params = mine.init(key, x)
    jax.tree.map(np.testing.assert_array_equal, params, flaxs.init(key, x))
    close(mine.apply(params, x), flaxs.apply(params, x), 1e-5)


@pytest.mark.parametrize(
    "shape",
    [pytest.param(s, id=i, marks=[pytest.mark.slow] * (s not in SHAPES[:4])) for s, i in zip(SHAPES, IDS, strict=True)],
)
def test_gradients_are_flaxs(shape):
    mine, flaxs = layers(shape)
    x = images(shape)
    params = mine.init(jax.random.key(0), x)

    def gradients(layer):
        return jax.grad(lambda params, x: jnp.sum(jnp.sin(layer.apply(params, x))), argnums=(0, 1))(params, x)

    for one, other in zip(*map(jax.tree.leaves, map(gradients, (mine, flaxs))), strict=True):
        close(one, other, 1e-5)


@pytest.mark.parametrize("shape", SHAPES[:4], ids=IDS[:4])
def test_clients_with_kernels_of_their_own(shape):
    mine, flaxs = layers(shape)
    x = jnp.stack([images(shape, seed=seed) for seed in range(3)])
    params = jax.vmap(mine.init)(jax.random.split(jax.random.key(0), 3), x)
    together = jax.vmap(mine.apply)(params, x)
    for i in range(3):
        close(together[i], flaxs.apply(jax.tree.map(lambda a, i=i: a[i], params), x[i]), 1e-5)


def test_precision():
    x = images(SHAPES[0])
    mine, flaxs = layers(SHAPES[0], dtype=jnp.bfloat16)
    params = mine.init(jax.random.key(0), x)
    y = mine.apply(params, x)
    assert params["params"]["kernel"].dtype == jnp.float32 and y.dtype == jnp.bfloat16
    close(y.astype(jnp.float32), flaxs.apply(params, x).astype(jnp.float32), 0.03)


def test_each_way_is_taken_by_some_of_the_shapes():
    found = set()
    for height, width, inputs, features, kernel, strides in SHAPES:
        x, k = jnp.zeros((3, height, width, inputs)), jnp.zeros((*kernel, inputs, features))
        found.add(conv.fastest_on_cpu(x, k, strides))
    assert found == {conv.winograd_conv, conv.patches_conv}


def lowered(platform, clients):
    """The StableHLO of the gradients of one client's convolution, or of several under ``vmap``, for a platform."""
    x, kernel = jnp.zeros((2, 8, 8, 5)), jnp.zeros((3, 3, 5, 7))
    gradients = jax.grad(lambda x, k: jnp.sum(jnp.sin(conv.convolution(x, k, (1, 1)))), argnums=(0, 1))
    if clients > 1:
        gradients, x, kernel = jax.vmap(gradients), *(jnp.stack([a] * clients) for a in (x, kernel))
    return jax.export.export(jax.jit(gradients), platforms=[platform])(x, kernel).mlir_module()


def test_the_platform_that_is_compiled_for_decides():
    """On a CPU there are only matrix products; elsewhere three convolutions: forward, and one for each gradient."""
    assert lowered("cpu", 1).count("stablehlo.convolution") == 0
    assert [lowered(platform, 1).count("stablehlo.convolution") for platform in ("cuda", "tpu")] == [3, 3]


def test_on_a_gpu_no_window_is_as_large_as_the_image():
    """With a kernel per client, XLA's gradient of the kernels would be a grouped convolution with such windows."""
    assert lowered("tpu", 3).count("stablehlo.convolution") == 3
    text = lowered("cuda", 3)
    assert text.count("stablehlo.convolution") == 2 and "stablehlo.dot_general" in text


@pytest.mark.parametrize("shape", SHAPES[:3], ids=IDS[:3])
def test_the_gradients_on_a_gpu(shape):
    """Of one client, and of clients with kernels of their own: those of :func:`native_conv`, run here."""
    _, _, inputs, features, kernel, strides = shape
    x = jnp.stack([images(shape, seed=seed) for seed in range(2)])
    k = jnp.asarray(np.random.default_rng(3).normal(size=(2, *kernel, inputs, features)), jnp.float32)

    def reference(x, k):
        y, pull = jax.vjp(lambda x, k: conv.native_conv(x, k, strides), x, k)
        return pull(jnp.sin(y))

    def on_gpu(x, k):
        return conv._through_on_gpu(x, k, jnp.sin(conv.native_conv(x, k, strides)), strides)

    for one, other in zip(jax.jit(on_gpu)(x[0], k[0]), jax.jit(reference)(x[0], k[0]), strict=True):
        close(one, other, 1e-5)
    both = zip(jax.jit(jax.vmap(on_gpu))(x, k), jax.jit(jax.vmap(reference))(x, k), strict=True)
    for one, other in both:
        close(one, other, 1e-5)
