"""TopK against NumPy's stable argsort, and the straight-through estimator."""

from functools import cache

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from sps_jax.compression import (
    SCOPES,
    Sparsifier,
    erk_densities,
    kept,
    straight_through,
    threshold,
    topk,
    topk_mask,
)

D = 24
mask_of = jax.jit(topk_mask)
masks_of = jax.jit(jax.vmap(topk_mask, in_axes=(None, 0)))
masks_of_rows = jax.jit(jax.vmap(topk_mask, in_axes=(0, None)))
compiled_topk = jax.jit(topk, static_argnames=("scope", "prunable"))


def prune(x, sparsity, **options):
    return compiled_topk(x, np.float32(sparsity), **options)


def expected_mask(x, k):
    """The first k of NumPy's stable argsort of -|x|, NaN before infinity (bfloat16 is exact in float64)."""
    wide = np.asarray(x).astype(np.float64)
    nan = np.isnan(wide)
    order = np.argsort(-np.abs(wide), kind="stable")  # NumPy sorts NaN last
    order = np.concatenate([order[nan[order]], order[~nan[order]]])
    mask = np.zeros(wide.shape, bool)
    mask[order[:k]] = True
    return mask


def bits(x):
    x = np.asarray(x)
    return x.view(f"uint{8 * x.dtype.itemsize}")


@cache
def vectors(name):
    """Vectors (D,) with all that can go wrong in them."""
    dtype = jnp.dtype(name)
    rng = np.random.default_rng(7)
    info = jnp.finfo(dtype)
    tiny = float(info.smallest_subnormal)
    zeros = np.zeros(D)
    special = rng.normal(size=D)
    special[[3, 11, 17]] = np.inf, -np.inf, np.inf
    special[[0, 5]] = -0.0, 0.0
    extremes = np.resize([float(info.max), float(info.min), float(info.tiny), -float(info.tiny), 1.0, 0.0], D)
    return {
        "normal": rng.normal(size=D),
        "equal": np.full(D, 0.3),
        "equal but signs": np.where(np.arange(D) % 3 == 0, -0.3, 0.3),
        "zeros": zeros,
        "negative zeros": -zeros,
        "zeros of both signs": np.where(np.arange(D) % 2 == 0, -0.0, 0.0),
        "few nonzeros": np.where(np.isin(np.arange(D), [4, 20]), -1.0, np.where(np.arange(D) < 9, -0.0, 0.0)),
        "denormals": tiny * rng.integers(-5, 6, size=D),
        "denormals and zeros": np.where(np.arange(D) % 2 == 0, tiny, -0.0)[::-1],
        "many ties": rng.integers(-2, 3, size=D).astype(float),
        "infinities": special,
        "extremes": extremes,
        "nan": np.where(np.isin(np.arange(D), [2, 13]), np.nan, special),
        "neighbours": 1 + float(info.eps) * rng.integers(0, 4, size=D),
    }


def check_all_k(x):
    masks = masks_of(x, jnp.arange(1, x.size + 1, dtype=jnp.int32))
    for k, mask in enumerate(np.asarray(masks), start=1):
        assert mask.sum() == k
        np.testing.assert_array_equal(mask, expected_mask(x, k), err_msg=f"k={k}")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("case", sorted(vectors("float32")))
def test_mask_is_numpys_stable_choice_for_every_k(case, name):
    check_all_k(jnp.asarray(vectors(name)[case].astype(jnp.dtype(name))))


@pytest.mark.parametrize("case", sorted(vectors("float32")))
def test_mask_in_float64(x64, case):
    x = jnp.asarray(vectors("float64")[case])
    assert x.dtype == jnp.float64
    check_all_k(x)


def test_float64_is_not_compared_in_float32(x64):
    x = np.ones(D)
    x[[9, 21]] = 1 + 2e-16, 1 + 4e-16
    assert np.flatnonzero(topk_mask(jnp.asarray(x), 1)).tolist() == [21]
    assert np.flatnonzero(topk_mask(jnp.asarray(x), 2)).tolist() == [9, 21]


arrays = hnp.arrays(
    np.float32,
    D,
    elements=st.one_of(
        st.floats(width=32, allow_subnormal=True), st.sampled_from([np.float32(v) for v in (0.0, -0.0, 1, -1, 1e-45)])
    ),
    fill=st.nothing(),
)


@settings(deadline=None, database=None, max_examples=150)
@given(arrays, st.integers(1, D))
@example(np.zeros(D, np.float32), 1)
@example(np.full(D, np.nan, np.float32), 5)
def test_any_vector(x, k):
    x[np.isnan(x)] = np.nan  # one NaN: among NaNs of different payload the order is nobody's business
    mask = np.asarray(mask_of(x, k))
    assert mask.sum() == k
    np.testing.assert_array_equal(mask, expected_mask(x, k))


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_sizes(size):
    x = jnp.asarray(np.random.default_rng(size).integers(-4, 5, size).astype(np.float32))
    for k in {1, (size + 1) // 2, size}:
        np.testing.assert_array_equal(mask_of(x, k), expected_mask(x, k))


def test_many_ties_of_a_long_vector():
    x = np.random.default_rng(0).integers(-3, 4, 20_001).astype(np.float32)
    for k in (1, 17, 2857, 2858, 10_000, 20_000, 20_001):
        np.testing.assert_array_equal(mask_of(x, k), expected_mask(x, k))


def hard_vectors(dtype, d=3001):
    """Where a search by sampling and interpolation is misled: gaps, atoms, clusters, whole exponent ranges, order."""
    rng = np.random.default_rng(11)
    info = jnp.finfo(dtype)
    tiny, huge = float(info.smallest_subnormal), float(info.max)
    normal, one = rng.normal(size=d), np.arange(d) == 1234
    nonzero = rng.random(d) < 0.01
    geometric = np.exp2(np.linspace(np.log2(tiny), np.log2(huge) - 1, d))
    return {
        "geometric": geometric,
        "geometric, largest first": geometric[::-1],
        "two clusters": np.where(rng.random(d) < 0.3, 1, huge / 4) * (1 + 4 * float(info.eps) * rng.integers(0, 9, d)),
        "equal but one larger": np.where(one, huge, 0.3),
        "equal but one smaller": np.where(one, 0.0, 0.3),
        "mostly zeros": np.where(nonzero, normal, 0),
        "zeros first": np.sort(np.abs(np.where(nonzero, normal, 0))),
        "zeros last": np.sort(np.abs(np.where(nonzero, normal, 0)))[::-1],
        "cut at its decile": np.where(np.abs(normal) > 1.645, normal, 0),
        "denormals": tiny * rng.integers(0, min(500, int(float(info.tiny) / tiny)), d),
        "one huge outlier": np.where(one, huge, 1e-3 * normal),
        "sorted": np.sort(normal),
        "heavy tail": np.clip(rng.standard_cauchy(d), -huge, huge),
        "period of the sample": np.where(np.arange(d) % 11 == 0, normal, 1e-3 * normal),
        "integers": rng.integers(-300, 300, d).astype(float),
        "many infinities and nans": np.where(rng.random(d) < 0.1, np.nan, np.where(nonzero, np.inf, normal)),
    }


def check_hard(x):
    nonzero = int(np.count_nonzero(np.asarray(x)))
    counts = {1, 2, 30, nonzero - 1, nonzero, nonzero + 1, x.size // 10, x.size // 2, x.size - 1, x.size}
    for k in sorted(k for k in counts if 1 <= k <= x.size):
        np.testing.assert_array_equal(mask_of(x, k), expected_mask(x, k), err_msg=f"k={k}")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_hard_vectors(name):
    for x in hard_vectors(jnp.dtype(name)).values():
        check_hard(jnp.asarray(x.astype(jnp.dtype(name))))


def test_hard_vectors_in_float64(x64):
    for x in hard_vectors(np.float64).values():
        check_hard(jnp.asarray(x))


def test_rows_that_need_few_and_many_passes_side_by_side():
    x = np.stack(list(hard_vectors(np.float32).values())).astype(np.float32)
    for k in (1, 30, 300, 2900):
        for mask, row in zip(masks_of_rows(x, k), x, strict=True):
            np.testing.assert_array_equal(mask, expected_mask(row, k))


@pytest.mark.parametrize("size", [2**18, 2**18 + 1, 300_007])  # these are counted in rows: 64, 5, and a prime in one
def test_long_vectors(size):
    x = np.random.default_rng(size).normal(size=size).astype(np.float32)
    for k in (1, size // 100, size // 2):
        np.testing.assert_array_equal(mask_of(x, k), expected_mask(x, k))
        np.testing.assert_array_equal(mask_of(np.round(x), k), expected_mask(np.round(x), k))


def test_nan_of_the_largest_payload():
    x = np.arange(D, dtype=np.float32)
    x[[3, 7, 20]] = np.int32(2**31 - 1).view(np.float32)
    assert [np.flatnonzero(mask_of(x, k)).tolist() for k in (1, 2, 3)] == [[3], [3, 7], [3, 7, 20]]
    assert np.flatnonzero(mask_of(x, 4)).tolist() == [3, 7, 20, 23]


def passes(x, k):
    """How often x is read to find its mask: the counting passes, run one by one."""
    reads = []

    def count(keys, thresholds):
        reads.append(None)
        return jnp.stack([jnp.sum(keys > t, dtype=jnp.int32) for t in thresholds])

    with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
        patch.setattr(threshold, "count_above", count)
        found = threshold.mask_by_search(jnp.asarray(x), jnp.int32(k))
    np.testing.assert_array_equal(found, expected_mask(x, k))
    return len(reads)


def test_few_passes_where_data_are_smooth_and_never_many():
    x = hard_vectors(np.float32)
    assert np.mean([passes(x["sorted"].astype(np.float32), k) for k in (30, 300, 1500)]) < 8
    assert passes(x["mostly zeros"].astype(np.float32), 300) < 8  # k inside the zeros: one pass, then the ties
    for case in ("equal but one larger", "two clusters", "integers"):
        assert passes(x[case].astype(np.float32), 30) <= 33 + 12


def test_as_many_passes_as_are_told():
    """4 or 5 for 50,000 entries of a smooth distribution, in the mean."""
    generator = np.random.default_rng(0)
    draws = [getattr(generator, name)(size=50_000).astype(np.float32) for name in ("normal", "laplace", "logistic")]
    assert np.mean([passes(x, k) for x in draws for k in (500, 2_000, 5_000, 15_000, 25_000)]) < 5


def test_no_array_is_written_out_but_the_mask():
    """The bits, the comparisons and the indices are fused into the passes that read x."""
    compiled = mask_of.lower(jax.ShapeDtypeStruct((100_000,), np.float32), 5).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100_000


def test_vmap_over_rows_and_counts():
    x = np.random.default_rng(1).integers(-3, 4, (6, D)).astype(np.float32)
    k = np.array([1, 2, 5, 11, 23, 24], np.int32)
    masks = jax.jit(jax.vmap(topk_mask))(x, k)
    for i in range(6):
        np.testing.assert_array_equal(masks[i], expected_mask(x[i], k[i]))


def test_inside_scan_with_traced_count():
    x = np.random.default_rng(2).integers(-3, 4, (5, D)).astype(np.float32)
    k = np.array([24, 3, 1, 17, 9], np.int32)
    _, masks = jax.jit(lambda x, k: lax.scan(lambda c, row: (c, topk_mask(*row)), 0, (x, k)))(x, k)
    for i in range(5):
        np.testing.assert_array_equal(masks[i], expected_mask(x[i], k[i]))


def test_vmap_inside_scan():
    x = np.random.default_rng(3).normal(size=(4, 2, 3)).astype(np.float32)
    sparsities = np.array([0.0, 0.5, 0.8], np.float32)

    def prune_all(x, s):
        return jax.vmap(topk, in_axes=(0, None))(x, s)

    _, seen = jax.jit(lambda x, s: lax.scan(lambda c, s: (c, prune_all(x, s)), 0, s))(x, sparsities)
    for i, k in enumerate([6, 3, 1]):
        for j in range(4):
            np.testing.assert_array_equal(seen[i, j], np.where(expected_mask(x[j].ravel(), k).reshape(2, 3), x[j], 0))


@pytest.mark.parametrize(
    "sparsity, entries, k",
    [(0.0, 7, 7), (0.5, 8, 4), (0.5, 5, 2), (0.5, 7, 4), (0.75, 2, 1), (0.99, 10, 1), (0.875, 1, 1), (0.25, 100, 75)],
)
def test_kept(sparsity, entries, k):
    for s in (sparsity, jnp.float32(sparsity)):
        assert kept(s, entries) == k and kept(s, entries).dtype == jnp.int32
    assert jax.jit(kept, static_argnums=1)(sparsity, entries) == k


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("entries", [7840, 7850, 79510, 1_199_882])
def test_kept_in_the_precision_of_the_sparsity(x64, sparsity, entries):
    single = max(1, int(np.round((np.float32(1) - np.float32(sparsity)) * np.float32(entries))))
    assert kept(jnp.float32(sparsity), entries) == single
    assert kept(jnp.float64(sparsity), entries) == max(1, round((1 - sparsity) * entries))


def model(dtype=np.float32):
    rng = np.random.default_rng(5)
    return {
        "a": {"bias": rng.normal(size=4).astype(dtype), "kernel": (0.01 * rng.normal(size=(3, 4))).astype(dtype)},
        "b": {"bias": np.array(0.5, dtype), "kernel": rng.normal(size=(2, 5, 1)).astype(dtype)},
    }


def test_global_scope_ranks_all_matrices_as_one():
    x = model()
    flat = np.concatenate([x["a"]["kernel"].ravel(), x["b"]["kernel"].ravel()])
    want = np.where(expected_mask(flat, 11), flat, 0)
    y = prune(x, 0.5)
    np.testing.assert_array_equal(y["a"]["kernel"], want[:12].reshape(3, 4))
    np.testing.assert_array_equal(y["b"]["kernel"], want[12:].reshape(2, 5, 1))
    assert np.count_nonzero(y["b"]["kernel"]) > 5  # here the scopes differ


def test_layerwise_scope_ranks_each_matrix_by_itself():
    x = model()
    y = prune(x, 0.5, scope="layerwise")
    for name, k in (("a", 6), ("b", 5)):
        leaf = x[name]["kernel"]
        want = np.where(expected_mask(leaf.ravel(), k).reshape(leaf.shape), leaf, 0)
        np.testing.assert_array_equal(y[name]["kernel"], want)


def test_layerwise_keeps_one_of_each_and_global_one_of_all():
    x = model()
    counts = [
        [int(np.count_nonzero(prune(x, 0.999, scope=scope)[name]["kernel"])) for name in ("a", "b")]
        for scope in ("layerwise", "global")
    ]
    assert counts == [[1, 1], [0, 1]]


def test_ties_across_leaves_go_to_the_first_leaf():
    y = prune({"b": jnp.ones((2, 2)), "a": jnp.full((1, 3), -1.0)}, 0.5)  # leaf order is by key; K = round(3.5) = 4
    assert y["a"].tolist() == [[-1, -1, -1]] and y["b"].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.99])
def test_biases_structure_shapes_and_dtypes_stay(scope, sparsity):
    for dtype in (np.float32, jnp.bfloat16):
        x = model(dtype)
        y = prune(x, sparsity, scope=scope)
        assert jax.tree.structure(y) == jax.tree.structure(x)
        for p, q in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
            assert p.shape == q.shape and p.dtype == q.dtype
            if p.ndim < 2 or sparsity == 0:
                np.testing.assert_array_equal(bits(p), bits(q))


@pytest.mark.parametrize("scope", SCOPES)
def test_sparsity_zero_keeps_every_bit(scope):
    for case in ("zeros of both signs", "denormals", "nan", "extremes"):
        x = vectors("float32")[case].astype(np.float32).reshape(4, 6)
        np.testing.assert_array_equal(bits(prune(x, 0.0, scope=scope)), bits(x))


def test_kept_entries_keep_their_bits_and_pruned_are_positive_zero():
    x = vectors("float32")["denormals"].astype(np.float32)
    y = prune(x.reshape(4, 6), 0.5).ravel()
    np.testing.assert_array_equal(bits(y), np.where(expected_mask(x, 12), bits(x), 0))


@pytest.mark.parametrize("scope", SCOPES)
def test_nan_is_kept(scope):
    for sign in (1, -1):
        x = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
        x[0, 0], x[1, 1] = np.inf, np.copysign(np.float32(np.nan), np.float32(sign))
        y = np.asarray(prune(x, 0.99, scope=scope))
        assert np.isnan(y[1, 1]) and np.count_nonzero(y) == 1


@pytest.mark.parametrize("scope", SCOPES)
def test_one_entry_is_never_pruned(scope):
    assert prune(jnp.full((1, 1), 1e-30), 0.999, scope=scope).tolist() == [[jnp.float32(1e-30)]]


def test_prunable():
    x = model()
    all_leaves = prune(x, 0.5, prunable=lambda path, leaf: True)
    assert sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(all_leaves)) == 14  # round(27 / 2), halves even
    only_a = prune(x, 0.5, prunable=lambda path, leaf: path[0].key == "a" and path[1].key == "kernel")
    assert np.count_nonzero(only_a["a"]["kernel"]) == 6
    np.testing.assert_array_equal(only_a["b"]["kernel"], x["b"]["kernel"])


def test_pruning_twice_is_pruning_once():
    once = prune(model(), 0.7)
    jax.tree.map(np.testing.assert_array_equal, prune(once, 0.7), once)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_sparsifier_is_topk_with_its_options_fixed(scope):
    jax.tree.map(
        np.testing.assert_array_equal, jax.jit(Sparsifier(scope=scope))(model(), 0.5), prune(model(), 0.5, scope=scope)
    )
    everything = jax.jit(Sparsifier(scope=scope, prunable=lambda path, leaf: True))(model(), 0.75)
    assert np.count_nonzero(everything["a"]["bias"]) < 4


@pytest.mark.parametrize(
    "make", [lambda scope: prune(model(), 0.5, scope=scope), lambda scope: Sparsifier(scope=scope)]
)
def test_unknown_scope(make):
    with pytest.raises(ValueError, match=r"unknown scope 'layerwize': did you mean 'layerwise'\? Allowed: global"):
        make("layerwize")
    with pytest.raises(ValueError, match="unknown scope 'xyz'"):
        make("xyz")


@pytest.mark.parametrize("scope", SCOPES)
def test_changing_sparsity_compiles_once(scope):
    traces = []

    @jax.jit
    def traced(x, s):
        traces.append(None)
        return Sparsifier(scope=scope)(x, s)

    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
    for s in (0.0, 0.25, 0.5, 0.9):
        assert np.count_nonzero(traced(x, np.float32(s))) == kept(s, 20)
    assert len(traces) == 1


def test_the_k_of_a_jitted_mask_is_not_compiled_in():
    traces = []

    @jax.jit
    def mask(x, k):
        traces.append(None)
        return topk_mask(x, k)

    x = np.linspace(-1, 1, 20, dtype=np.float32)
    assert [int(mask(x, k).sum()) for k in (1, 7, 20)] == [1, 7, 20]
    assert len(traces) == 1


def loss(x):
    """Its gradient 3 a^2 + 4 a + 5 is exact at small multiples of 1/8, however compiled, and never zero."""
    return sum(jnp.sum(leaf**3 + 2 * leaf**2 + 5 * leaf) for leaf in jax.tree.leaves(x))


@pytest.mark.parametrize("scope", SCOPES)
def test_straight_through_takes_the_gradient_at_the_pruned_point(scope):
    x = jax.tree.map(lambda a: jnp.round(16 * a) / 8, model())

    @jax.jit
    def forward_and_gradient(x, s):
        q = straight_through(lambda params: topk(params, s, scope=scope))
        return q(x), jax.grad(lambda p: loss(q(p)))(x)

    for sparsity in (0.0, 0.5, 0.9):
        forward, got = forward_and_gradient(x, np.float32(sparsity))
        pruned = prune(x, sparsity, scope=scope)
        jax.tree.map(np.testing.assert_array_equal, forward, pruned)
        jax.tree.map(lambda g, a: np.testing.assert_array_equal(g, 3 * a**2 + 4 * a + 5), got, pruned)
        assert all(np.all(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(got))  # unmasked


def test_straight_through_under_vmap():
    x = np.random.default_rng(9).integers(-16, 17, (3, 4, 5)).astype(np.float32) / 8
    gradients = jax.jit(jax.vmap(jax.grad(lambda p, s: loss(straight_through(lambda a: topk(a, s))(p))), (0, None)))
    for s in (0.25, 0.75):
        for got, row in zip(gradients(x, np.float32(s)), x, strict=True):
            a = np.asarray(prune(row, s))
            np.testing.assert_array_equal(got, 3 * a**2 + 4 * a + 5)


def test_straight_through_pushes_tangents_unchanged():
    x, v = jnp.arange(6.0).reshape(2, 3), jnp.full((2, 3), 7.0)
    out, tangent = jax.jvp(straight_through(make_topk_half), (x,), (v,))
    np.testing.assert_array_equal(out, make_topk_half(x))
    np.testing.assert_array_equal(tangent, v)


def make_topk_half(x):
    return prune(x, 0.5)


# --- Erdos-Renyi-Kernel densities ---------------------------------------------------------------------------------


def erk_by_hand(shapes, density):
    """Layers that would exceed their size are made dense one after another, the largest excess first."""
    sizes, raw = (np.array([f(s) for s in shapes], float) for f in (np.prod, lambda s: sum(s) / np.prod(s)))
    full = np.zeros(len(shapes), bool)
    while not full.all():
        scale = (density * sizes.sum() - sizes[full].sum()) / (sizes * raw)[~full].sum()
        worst = np.where(full, -np.inf, scale * raw).argmax()
        if scale * raw[worst] < 1:
            return np.where(full, 1, scale * raw)
        full[worst] = True
    return np.ones(len(shapes))


@pytest.mark.parametrize("density", [0.001, 0.05, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    "shapes", [[(3, 3, 3, 64), (3, 3, 64, 64), (64, 10)], [(784, 300), (300, 100), (100, 10)], [(7, 5)], [(2, 2)] * 3]
)
def test_erk_densities(shapes, density, x64):
    found = np.asarray(erk_densities(shapes, jnp.asarray(density)))
    sizes = np.array([np.prod(shape) for shape in shapes])
    np.testing.assert_allclose(found, erk_by_hand(shapes, density), rtol=1e-10)
    np.testing.assert_allclose((found * sizes).sum(), density * sizes.sum(), rtol=1e-10)


def test_erk_scope_prunes_each_layer_to_its_density():
    generator = np.random.default_rng(0)
    x = {
        name: jnp.asarray(generator.normal(size=s), jnp.float32)
        for name, s in (("a", (20, 30)), ("b", (6, 5)), ("c", 9))
    }
    y = jax.jit(lambda x, s: topk(x, s, scope="erk"))(x, jnp.float32(0.9))
    densities = erk_by_hand([(20, 30), (6, 5)], 0.1)
    assert densities[1] > 2 * densities[0]
    for name, density in zip("ab", densities, strict=True):
        assert int((y[name] != 0).sum()) == round(density * x[name].size)
    np.testing.assert_array_equal(y["c"], x["c"])
