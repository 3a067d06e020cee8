"""Networks: what each computes, in what precision, and that equal arguments give one object."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.models import linear, lstm, resnet, resnet18, resnet20, resnet32, resnet44, resnet56, transformer
from sps_jax.models.resnet import Block, padded

SYMBOLS = 11
TEXT = {
    "lstm": lambda dtype: lstm(SYMBOLS, embedding=3, width=5, depth=2, dtype=dtype),
    "transformer": lambda dtype: transformer(SYMBOLS, length=9, width=8, depth=2, heads=2, dtype=dtype),
}


def tokens(b=2, length=7, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, SYMBOLS, (b, length)), jnp.int32)


def moved(params, seed=1):
    """Parameters none of which is at its initial zero or one."""
    leaves, structure = jax.tree.flatten(params)
    generator = np.random.default_rng(seed)
    return structure.unflatten([a + jnp.asarray(0.3 * generator.normal(size=a.shape), a.dtype) for a in leaves])


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_resnet18_has_the_known_number_of_parameters():
    shapes = jax.eval_shape(resnet18().init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 11_173_962
    assert {"first", "last"} < shapes["params"].keys()


@pytest.mark.slow
def test_resnet18_halves_the_image_three_times():
    model = resnet18(10, width=8)
    params = jax.jit(model.init)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    logits, captured = jax.jit(model.apply)(params, images), []
    jax.tree.map_with_path(lambda path, leaf: captured.append((path, leaf.shape)), params)
    assert logits.shape == (2, 10) and logits.dtype == jnp.float32 and bool(jnp.isfinite(logits).all())
    kernels = [shape for _, shape in captured if len(shape) == 4]
    assert sorted(shape[:2] for shape in kernels) == [(1, 1)] * 3 + [(3, 3)] * 17
    assert max(shape[3] for shape in kernels) == 64


@pytest.mark.parametrize(
    ("make", "n", "known"),
    [(resnet20, 3, 0.27), (resnet32, 5, 0.46), (resnet44, 7, 0.66), (resnet56, 9, 0.85)],
)
def test_thin_residual_networks_have_the_known_numbers_of_parameters(make, n, known):
    """97,216 n - 21,926, in millions as in table 6 of He et al. 2016 (arXiv 1512.03385), with 6n + 2 layers.

    Kernels: 9 (3 x 16) of the stem, and per stage 2n of 9 c^2 with c = 16, 32, 64, of which the first of the second
    and third stage have c / 2 inputs: 432 + 2n (2,304 + 9,216 + 36,864) - 4,608 - 18,432. Scales and biases of the
    norms: 2 (16 + 2n (16 + 32 + 64)). Head: 64 x 10 + 10.
    """
    shapes = jax.eval_shape(make().init, jax.random.key(0))
    kernels = 432 + 2 * n * (2304 + 9216 + 36864) - 4608 - 18432
    leaves = jax.tree.leaves(shapes)
    assert sum(leaf.size for leaf in leaves) == kernels + 2 * (16 + 2 * n * 112) + 650 == 97216 * n - 21926
    assert round((97216 * n - 21926) / 1e6, 2) == known
    assert len([leaf for leaf in leaves if leaf.ndim > 1]) == 6 * n + 2
    assert {leaf.shape[:2] for leaf in leaves if leaf.ndim == 4} == {(3, 3)}
    assert {"first", "last"} < shapes["params"].keys()
    assert make() is make()


def test_a_block_whose_convolutions_are_zero_is_its_shortcut():
    """relu(0 + x), every second pixel of it and 0 for the 3 features that the input has not (option A)."""
    block = Block(5, 2, lambda *a: nn.Conv(*a, use_bias=False), lambda features: nn.GroupNorm(1), padded)
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 2))
    zeros = jax.tree.map(jnp.zeros_like, block.init(jax.random.key(1), x))
    expected = np.zeros((2, 3, 2, 5), np.float32)
    expected[..., :2] = np.maximum(x[:, ::2, ::2], 0)
    np.testing.assert_array_equal(block.apply(zeros, x), expected)


@pytest.mark.parametrize(("make", "width", "groups"), [(resnet20, 12, 8), (resnet18, 40, 32), (resnet20, 3, 8)])
def test_a_width_that_the_groups_do_not_divide_is_refused(make, width, groups):
    """Features of 3, 6, 12 too: 8 groups cannot divide the 12 of the last stage."""
    with pytest.raises(ValueError, match=f"width must be a power of two or a multiple of {groups}.*, not {width}"):
        make(width=width)


@pytest.mark.parametrize("name", TEXT)
def test_no_position_looks_ahead(name, x64):
    model = TEXT[name]("float64")
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    text, apply = tokens(), jax.jit(model.apply)
    for t in (1, 4, 6):
        change = np.abs(apply(params, text.at[:, t].add(1) % SYMBOLS) - apply(params, text)).max((0, 2))
        assert (change[:t] == 0).all() and (change[t:] > 0).all()


def test_lstm_is_its_recurrence(x64):
    model = TEXT["lstm"]("float64")
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    p = jax.tree.map(np.asarray, params)["params"]
    text = tokens()
    x = p["first"]["embedding"][text]
    for layer in ("layer_0", "layer_1"):
        q = p[layer]
        h = c = np.zeros((2, 5))
        out = []
        for t in range(x.shape[1]):
            i, f, g, o = (
                x[:, t] @ q[f"i{k}"]["kernel"] + h @ q[f"h{k}"]["kernel"] + q[f"h{k}"]["bias"] for k in "ifgo"
            )
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        x = np.stack(out, 1)
    expected = x @ p["last"]["kernel"] + p["last"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(params, text), expected, rtol=1e-10, atol=1e-12)


def normed(x, p):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return scaled * p["scale"] + p["bias"]


def test_transformer_is_its_formula(x64):
    model = TEXT["transformer"]("float64")
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    p = jax.tree.map(np.asarray, params)["params"]
    text = tokens()
    x = p["first"]["embedding"][text] + p["positions"]["embedding"][: text.shape[1]]
    for block in range(2):
        attention = p[f"Attention_{block}"]
        q, k, v = np.split(normed(x, p[f"LayerNorm_{2 * block}"]) @ attention["query_key_value"]["kernel"], 3, axis=-1)
        heads = []
        for own in (slice(0, 4), slice(4, 8)):
            scores = np.einsum("bqd,bkd->bqk", q[..., own], k[..., own]) / np.sqrt(4)
            scores[:, ~np.tri(text.shape[1], dtype=bool)] = -np.inf
            weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            heads.append(np.einsum("bqk,bkd->bqd", weights, v[..., own]))
        x = x + np.concatenate(heads, -1) @ attention["out"]["kernel"]
        up, down = (p[f"Dense_{2 * block + i}"] for i in (0, 1))
        y = normed(x, p[f"LayerNorm_{2 * block + 1}"]) @ up["kernel"] + up["bias"]
        y = y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + y @ down["kernel"] + down["bias"]
    expected = normed(x, p["LayerNorm_4"]) @ p["last"]["kernel"] + p["last"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(params, text), expected, rtol=1e-9, atol=1e-11)


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width must be a multiple of heads=4, not 10"):
        transformer(SYMBOLS, width=10)


def test_more_positions_than_there_are_embeddings_are_refused():
    model = TEXT["transformer"]("float32")
    with pytest.raises(ValueError, match="examples may have at most length=9 positions, not 10"):
        jax.eval_shape(model.apply, jax.eval_shape(model.init, jax.random.key(0)), tokens(length=10))


INPUTS = {
    "linear": (lambda dtype: linear(6, 3, dtype=dtype), jnp.ones((2, 6)) / 3),
    "resnet": (
        lambda dtype: resnet((1, 1), 10, width=8, dtype=dtype),
        jnp.sin(jnp.arange(384.0)).reshape(2, 8, 8, 3),
    ),
    "thin resnet": (
        lambda dtype: resnet((1, 1), 10, width=4, groups=2, shortcut=padded, dtype=dtype),
        jnp.sin(jnp.arange(384.0)).reshape(2, 8, 8, 3),
    ),
    "lstm": (TEXT["lstm"], tokens()),
    "transformer": (TEXT["transformer"], tokens()),
}


RESNET_SLOW = [pytest.param(name, marks=[pytest.mark.slow] * ("resnet" in name)) for name in INPUTS]


@pytest.mark.parametrize("name", RESNET_SLOW)
def test_bfloat16_computes_near_float32_and_keeps_parameters_in_it(name):
    make, inputs = INPUTS[name]
    params = moved(jax.jit(make("float32").init)(jax.random.key(0)))
    assert make("bfloat16") is make("bfloat16")
    shapes = jax.eval_shape(make("bfloat16").init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    short, full = (jax.jit(make(dtype).apply)(params, inputs) for dtype in ("bfloat16", "float32"))
    assert short.dtype == full.dtype == jnp.float32
    scale = float(jnp.abs(full).max())
    assert 0 < float(jnp.abs(short - full).max()) < 0.1 * scale


@pytest.mark.parametrize("name", RESNET_SLOW)
def test_gradient_of_each_client_is_its_own_under_vmap(name):
    make, inputs = INPUTS[name]
    model = make("float32")
    stacked = jax.tree.map(lambda a: jnp.stack([a, a / 2]), moved(jax.jit(model.init)(jax.random.key(0))))

    def gradient(params):
        return jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, inputs))))(params)

    together = jax.jit(jax.vmap(gradient))(stacked)
    for i in range(2):
        alone = jax.jit(gradient)(jax.tree.map(lambda a, i=i: a[i], stacked))
        for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(one[i], other, atol=2e-4 * float(jnp.abs(other).max() + 1e-3))
