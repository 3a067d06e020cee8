"""Pytree arithmetic against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax import tree


@pytest.fixture
def model():
    w = jnp.array([[1.0, 0.0, -5.0], [0.0, 2.0, -0.0]], jnp.float32)
    return {"w": w, "b": (jnp.array([0.0, 3.0], jnp.float32),)}


def test_size_counts_entries_of_all_leaves_without_computing(model):
    assert tree.size(model) == 8
    assert tree.size(jax.eval_shape(lambda: model)) == 8
    assert tree.size(jnp.float32(1)) == 1
    assert tree.size({}) == 0
    assert tree.size(jnp.zeros((3, 0))) == 0


@pytest.mark.parametrize("n", [1, 4])
def test_stack_makes_equal_copies(model, n):
    stacked = tree.stack(model, n)
    assert jax.tree.structure(stacked) == jax.tree.structure(model)
    for copies, leaf in zip(jax.tree.leaves(stacked), jax.tree.leaves(model), strict=True):
        assert copies.shape == (n, *leaf.shape) and copies.dtype == leaf.dtype
        for copy in copies:
            np.testing.assert_array_equal(copy, leaf)


def test_stack_of_a_scalar_leaf():
    np.testing.assert_array_equal(tree.stack(jnp.float32(2), 3), np.full(3, 2, np.float32))


def test_equal_mean():
    a = np.arange(24, dtype=np.float32).reshape(4, 3, 2)  # sums of small integers and a division by 4: exact
    seen = tree.mean({"a": jnp.asarray(a), "s": jnp.arange(4, dtype=jnp.float32)}, None)
    np.testing.assert_array_equal(seen["a"], a.mean(0))
    assert seen["s"].shape == () and seen["s"] == 1.5
    assert seen["a"].dtype == jnp.float32


def test_weighted_mean():
    a = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    w = np.array([0.5, 0.25, 0.25, 0.0], np.float32)  # dyadic: exact
    seen = tree.mean({"a": jnp.asarray(a), "s": jnp.arange(4, dtype=jnp.float32)}, jnp.asarray(w))
    np.testing.assert_array_equal(seen["a"], np.einsum("i,ijk->jk", w, a))
    assert seen["s"].shape == () and seen["s"] == 0.75
    assert seen["a"].dtype == jnp.float32


def test_mean_undoes_stack(model):
    for weights in (None, jnp.full(4, 0.25, jnp.float32)):
        back = tree.mean(tree.stack(model, 4), weights)
        jax.tree.map(np.testing.assert_array_equal, back, model)


def test_nonzeros(model):
    count = tree.nonzeros(model)
    assert count.dtype == jnp.int32 and count.shape == () and count == 4
    assert tree.nonzeros({}) == 0
    assert tree.nonzeros(jnp.array([jnp.nan, jnp.inf, 0.0])) == 2


def test_nonzeros_is_int32_under_x64(x64):
    assert tree.nonzeros([jnp.ones(3, jnp.float64), jnp.ones(2, jnp.float64)]).dtype == jnp.int32


def test_largest(model):
    assert tree.largest(model) == 5 and tree.largest(model).shape == ()
    assert tree.largest(jnp.zeros(3)) == 0
    assert tree.largest([jnp.ones(2), jnp.array([-jnp.inf])]) == jnp.inf
    assert jnp.isnan(tree.largest([jnp.array([1.0, jnp.nan]), jnp.array([7.0])]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite(model, bad):
    assert tree.finite(model).dtype == jnp.bool_ and tree.finite(model).shape == () and tree.finite(model)
    for spoiled in ({**model, "w": model["w"].at[1, 2].set(bad)}, {**model, "b": (model["b"][0].at[0].set(bad),)}):
        assert not tree.finite(spoiled)
