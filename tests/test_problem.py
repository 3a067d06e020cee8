"""The objective and gradients of stacked data against plain NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.problem import Problem
from sps_jax.simulation.stacking import stack_clients

objective = jax.jit(Problem.objective)  # compiled with the problem as an argument, as the package uses it
evaluate = jax.jit(Problem.evaluate)
gradient = jax.jit(lambda p, data, count, key, x: p.gradient(data, count, jnp.int32(0), key, x))
slope = jax.jit(jax.grad(Problem.objective, argnums=1))
gradients_of = jax.jit(jax.vmap(gradient, in_axes=(None, None, None, 0, None)))

COUNTS = (4, 1, 7)
FEATURES = 3


def losses(params, a, b):
    return (a @ params["w"] + params["c"] - b) ** 2


def misses(params, a, b):
    return jnp.abs(a @ params["w"] + params["c"] - b)


def measured(params, a, b):
    return {"miss": misses(params, a, b), "square": losses(params, a, b)}


def start(key):
    return {"w": jax.random.normal(key, (FEATURES,)), "c": jnp.float32(0)}


def examples(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(m, FEATURES)).astype(dtype), rng.normal(size=m).astype(dtype)) for m in COUNTS]


def stacked(dtype=np.float32, padding=0.0):
    data = (
        np.full((len(COUNTS), max(COUNTS), FEATURES), padding, dtype),
        np.full((len(COUNTS), max(COUNTS)), padding, dtype),
    )
    for i, (a, b) in enumerate(examples(dtype)):
        data[0][i, : COUNTS[i]], data[1][i, : COUNTS[i]] = a, b
    return tuple(map(jnp.asarray, data))


def problem(dtype=np.float32, padding=0.0, ridge=0.5, **options):
    options = {"test": None, **options}
    return Problem(
        stacked(dtype, padding),
        jnp.asarray(COUNTS, jnp.int32),
        ridge=jnp.asarray(ridge, dtype),
        init=start,
        loss=losses,
        **options,
    )


def parameters(dtype=np.float32):
    return {"w": jnp.asarray([0.5, -1.0, 2.0], dtype), "c": jnp.asarray(0.25, dtype)}


def client_value(i, params, ridge):
    a, b = (v.astype(np.float64) for v in examples(np.float64 if params["w"].dtype == jnp.float64 else np.float32)[i])
    w, c = np.asarray(params["w"], np.float64), np.asarray(params["c"], np.float64)
    return np.mean((a @ w + c - b) ** 2) + ridge / 2 * (w @ w + c * c)


def client_gradient(i, params, ridge):
    a, b = (v.astype(np.float64) for v in examples(np.float64 if params["w"].dtype == jnp.float64 else np.float32)[i])
    w, c = np.asarray(params["w"], np.float64), np.asarray(params["c"], np.float64)
    error = a @ w + c - b
    return {"w": 2 * a.T @ error / len(b) + ridge * w, "c": 2 * error.mean() + ridge * c}


def of_client(p, i):
    return tuple(a[i] for a in p.data), p.counts[i]


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_client_losses_and_gradients_are_numpys(x64, ridge):
    p, x = problem(np.float64, ridge=ridge), parameters(np.float64)
    for i in range(p.clients):
        np.testing.assert_allclose(p.client_loss(x, *of_client(p, i)), client_value(i, x, ridge), rtol=1e-13)
        got = gradient(p, *of_client(p, i), jax.random.key(0), x)
        want = client_gradient(i, x, ridge)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-12)


@pytest.mark.parametrize("weights", [None, (0.5, 0.2, 0.3), (1.0, 0.0, 0.0)])
def test_objective_is_numpys(x64, weights):
    x = parameters(np.float64)
    p = problem(np.float64, weights=None if weights is None else jnp.asarray(weights))
    each = [client_value(i, x, 0.5) for i in range(3)]
    want = np.mean(each) if weights is None else np.dot(weights, each)
    np.testing.assert_allclose(objective(p, x), want, rtol=1e-13)
    assert objective(p, x).shape == () and objective(p, x).dtype == jnp.float64


def test_equal_weights_are_of_clients_not_of_examples(x64):
    x = parameters(np.float64)
    pooled = np.array(COUNTS) / sum(COUNTS)
    by_examples = objective(problem(np.float64, weights=jnp.asarray(pooled)), x)
    assert abs(objective(problem(np.float64), x) - by_examples) > 1e-3
    third = jnp.full(3, 1 / 3, jnp.float64)
    np.testing.assert_allclose(
        objective(problem(np.float64, weights=third), x), objective(problem(np.float64), x), rtol=1e-14
    )


def test_float32_stays_float32():
    p, x = problem(), parameters()
    assert objective(p, x).dtype == jnp.float32
    np.testing.assert_allclose(objective(p, x), np.mean([client_value(i, x, 0.5) for i in range(3)]), rtol=1e-5)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(gradient(p, *of_client(p, 0), jax.random.key(0), x)))


@pytest.mark.parametrize("padding", [1.0, -1e6, 1e15])
def test_padding_touches_neither_objective_nor_gradient(padding):
    clean, dirty, x = problem(), problem(padding=padding), parameters()
    assert not np.array_equal(clean.data[0], dirty.data[0])
    np.testing.assert_array_equal(objective(clean, x), objective(dirty, x))
    jax.tree.map(np.testing.assert_array_equal, slope(clean, x), slope(dirty, x))
    for i in range(clean.clients):
        one, other = (gradient(p, *of_client(p, i), jax.random.key(0), x) for p in (clean, dirty))
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_nan_padding_does_not_reach_the_objective():
    x = parameters()
    np.testing.assert_array_equal(objective(problem(padding=np.nan), x), objective(problem(), x))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_are_drawn_from_real_rows_only(batch_size):
    p, x = problem(padding=np.nan, batch_size=batch_size), parameters()
    keys = jax.random.split(jax.random.key(3), 200)
    for i in range(p.clients):
        gradients = gradients_of(p, *of_client(p, i), keys, x)
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


def identity_loss(x, a):
    return a @ x


def zero_start(key):
    return jnp.zeros(8)


def histogram(count, **options):
    """One client whose gradient on a batch of 4 is a quarter of the histogram of the rows drawn from its ``count``."""
    counts = jnp.array([count], jnp.int32)
    options |= {"init": zero_start, "loss": identity_loss, "batch_size": 4}
    return Problem((jnp.eye(8)[None],), counts, None, jnp.float32(0), **options)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_batches_are_uniform_over_the_real_rows_with_replacement(count):
    p = histogram(count)
    keys = jax.random.split(jax.random.key(5), 1000)
    drawn = 4 * np.asarray(gradients_of(p, (p.data[0][0],), p.counts[0], keys, jnp.zeros(8)))
    np.testing.assert_array_equal(drawn, np.round(drawn))
    np.testing.assert_array_equal(drawn.sum(1), 4)
    assert not drawn[:, count:].any()
    total = drawn.sum(0)[:count]
    deviation = np.sqrt(4000 / count * (1 - 1 / count))
    assert np.all(np.abs(total - 4000 / count) <= 5 * deviation)
    assert drawn.max() > 1  # with replacement


@pytest.mark.parametrize("count", [3, 8])
def test_batches_in_order_go_round_and_round(count):
    """Iteration t takes rows t b, t b + 1, ... modulo the count, also where t b does not fit in 32 bits."""
    p = histogram(count, in_order=True)
    for t in (0, 1, 2, 5, 2**31 - 1):
        seen = p.gradient((p.data[0][0],), p.counts[0], jnp.int32(t), jax.random.key(0), jnp.zeros(8))
        want = np.bincount([(4 * t + j) % count for j in range(4)], minlength=8)
        np.testing.assert_array_equal(4 * np.asarray(seen), want)


def test_a_batch_gradient_has_the_whole_ridge_and_depends_on_its_key():
    x = parameters()
    key = jax.random.key(1)
    plain, ridged = problem(ridge=0.0, batch_size=2), problem(ridge=0.5, batch_size=2)
    a = gradient(plain, *of_client(plain, 0), key, x)
    b = gradient(ridged, *of_client(ridged, 0), key, x)
    for name in x:
        np.testing.assert_allclose(b[name] - a[name], 0.5 * x[name], rtol=1e-5, atol=1e-5)
    again = gradient(plain, *of_client(plain, 0), key, x)
    jax.tree.map(np.testing.assert_array_equal, a, again)
    other = gradient(plain, *of_client(plain, 2), jax.random.key(2), x)
    same_client = gradient(plain, *of_client(plain, 2), jax.random.key(4), x)
    assert not np.array_equal(other["w"], same_client["w"])


def test_a_full_gradient_ignores_its_key():
    p, x = problem(), parameters()
    one, other = (gradient(p, *of_client(p, 2), jax.random.key(s), x) for s in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_single_example_batch_is_that_example():
    p, x = problem(batch_size=3), parameters()  # client 1 has one example
    got = gradient(p, *of_client(p, 1), jax.random.key(0), x)
    want = client_gradient(1, x, 0.5)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5)


def test_evaluate_without_test_data():
    p, x = problem(metrics=measured), parameters()
    seen = evaluate(p, x)
    assert set(seen) == {"train_loss"}
    np.testing.assert_array_equal(seen["train_loss"], objective(p, x))


def test_evaluate_with_test_data(x64):
    x = parameters(np.float64)
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(9, FEATURES)), rng.normal(size=9)
    p = problem(np.float64, test=(jnp.asarray(a), jnp.asarray(b)))
    error = a @ np.asarray(x["w"]) + 0.25 - b
    seen = evaluate(p, x)
    assert set(seen) == {"train_loss", "test_loss"}
    np.testing.assert_allclose(seen["test_loss"], np.mean(error**2), rtol=1e-13)  # no ridge
    seen = evaluate(replace(p, metrics=measured), x)
    assert set(seen) == {"train_loss", "test_miss", "test_square"}
    np.testing.assert_allclose(seen["test_square"], np.mean(error**2), rtol=1e-13)
    np.testing.assert_allclose(seen["test_miss"], np.mean(np.abs(error)), rtol=1e-13)
    np.testing.assert_array_equal(seen["train_loss"], objective(p, x))


def test_a_problem_is_a_pytree_with_its_functions_static():
    p = problem(batch_size=2)
    assert p.clients == 3
    leaves, structure = jax.tree.flatten(p)
    assert len(leaves) == 4  # two arrays of data, counts, ridge
    back = jax.tree.unflatten(structure, leaves)
    assert back.loss is losses and back.init is start and back.batch_size == 2
    assert jax.tree.structure(replace(p, ridge=jnp.float32(2))) == structure
    assert jax.tree.structure(replace(p, batch_size=3)) != structure


def test_other_data_and_ridge_do_not_retrace():
    traces = []

    @jax.jit
    def value(p, x):
        traces.append(None)
        return p.objective(x)

    x = parameters()
    for p in (problem(), problem(ridge=0.1), problem(padding=3.0)):
        np.testing.assert_allclose(value(p, x), objective(p, x), rtol=1e-6)
    assert len(traces) == 1


def test_stack_clients_round_trip():
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(12, 2, 3)).astype(np.float32), rng.integers(1, 9, 12).astype(np.int8)
    order = rng.permutation(12)
    parts = [order[:4], order[4:5], order[5:12]]
    (a, b), counts = stack_clients([images, labels], parts)
    assert a.shape == (3, 7, 2, 3) and b.shape == (3, 7)
    assert a.dtype == np.float32 and b.dtype == np.int8 and counts.dtype == np.int32
    assert counts.tolist() == [4, 1, 7]
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(a[i, : counts[i]], images[part])
        np.testing.assert_array_equal(b[i, : counts[i]], labels[part])
        assert (a[i, counts[i] :] == images[part[0]]).all() and (b[i, counts[i] :] == labels[part[0]]).all()


def test_stack_clients_may_share_and_leave_out_examples():
    (a,), counts = stack_clients([np.arange(5.0)], [np.array([1, 1, 3]), np.array([3])])
    assert a.tolist() == [[1, 1, 3], [3, 3, 3]] and counts.tolist() == [3, 1]


@pytest.mark.parametrize("parts", [[], [np.array([], int)], [np.array([0]), np.array([], int)]])
def test_stack_clients_refuses_no_clients_and_empty_ones(parts):
    with pytest.raises(ValueError, match="every client needs at least one example"):
        stack_clients([np.arange(5.0)], parts)
