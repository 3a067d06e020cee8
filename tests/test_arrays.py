"""Problems of one's own arrays: equal to plain NumPy, and refused in words where they are wrong."""

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import sps_jax as sps

objective = jax.jit(sps.Problem.objective)
X, Y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 3
IDS = [*"abacabba", *"bbca"]


def half_square(outputs, y):
    return (outputs[:, 0] - y) ** 2 / 2


def dealt(ids):
    """Client after client, in the order of first appearance, its rows: by looking each row up."""
    rows = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    return list(rows.values())


names = st.integers(-3, 3) | st.sampled_from(["ann", "bob"]) | st.tuples(st.integers(0, 1))


@settings(max_examples=30)
@given(ids=st.lists(names, min_size=1, max_size=20), seed=st.integers(0, 9))
def test_every_example_is_at_its_client_and_in_order(ids, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(len(ids), 2, 2)).astype(np.float32), rng.integers(0, 4, len(ids))
    problem = sps.from_arrays(x, y, ids, outputs=4)
    clients = dealt(ids)
    assert problem.counts.tolist() == [len(rows) for rows in clients]
    own = tuple(map(np.asarray, problem.data))
    for i, rows in enumerate(clients):
        np.testing.assert_array_equal(own[0][i, : len(rows)], x[rows].reshape(-1, 4))
        np.testing.assert_array_equal(own[1][i, : len(rows)], y[rows])
    assert problem.test is None and problem.validation is None


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), test=st.floats(0.01, 0.9), rest=st.floats(0.01, 0.9))
def test_held_out_examples_are_of_no_client_and_each_client_gives_its_share(sizes, test, rest):
    ids = np.repeat(np.arange(len(sizes)), sizes)
    held = [min(int(test * m), m - 1) for m in sizes]
    kept = [min(int(rest * (m - h)), m - h - 1) for m, h in zip(sizes, held, strict=True)]
    marks = np.arange(len(ids), dtype=np.float32)[:, None]
    make = lambda: sps.from_arrays(marks, np.zeros(len(ids), int), ids, batch_size=1, test=test, validation=rest)  # noqa: E731
    if not sum(held) or not sum(kept):
        with pytest.raises(ValueError, match="less than one example of every client"):
            make()
        return
    problem = make()
    assert problem.counts.tolist() == [m - h - k for m, h, k in zip(sizes, held, kept, strict=True)]
    own, out, apart = (np.asarray(part[0])[..., 0] for part in (problem.data, problem.test, problem.validation))
    own = np.concatenate([own[i, :m] for i, m in enumerate(problem.counts.tolist())])
    for part, shares in ((out, held), (apart, kept)):
        assert np.bincount(ids[part.astype(int)], minlength=len(sizes)).tolist() == shares
    assert sorted([*own, *out, *apart]) == marks[:, 0].tolist()


@pytest.mark.parametrize("loss", ["softmax", "logistic", "squares", half_square])
@pytest.mark.parametrize("bias", [True, False])
def test_the_objective_is_numpys(x64, loss, bias):
    y = {"softmax": Y, "logistic": Y % 2}.get(loss, X[:, 0] ** 2)
    problem = sps.from_arrays(X, y, IDS, loss=loss, bias=bias, ridge=0.3, precision="float64")
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), problem.init(jax.random.key(0)))
    kernel = np.asarray(params["params"]["kernel"])
    z = X @ kernel.T + (np.asarray(params["params"]["bias"]) if bias else 0)
    if loss == "softmax":
        losses = np.log(np.exp(z).sum(1)) - z[np.arange(12), y]
    elif loss == "logistic":
        losses = np.log1p(np.exp(z[:, 0])) - y * z[:, 0]
    else:
        losses = (z[:, 0] - y) ** 2 / 2
    squared = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(params))
    want = np.mean([losses[rows].mean() for rows in dealt(IDS)]) + 0.15 * squared
    np.testing.assert_allclose(objective(problem, params), want, rtol=1e-13)
    assert (problem.smoothness is None) == callable(loss)


def test_the_problem_knows_how_smooth_each_client_is(x64):
    a = np.hstack([X, np.ones((12, 1))])
    for loss, y, curvature in (("softmax", Y, 1 / 2), ("logistic", Y % 2, 1 / 4), ("squares", X[:, 0], 1)):
        problem = sps.from_arrays(X, y, IDS, loss=loss, ridge=0.3, precision="float64")
        want = [curvature * np.linalg.norm(a[rows], 2) ** 2 / len(rows) + 0.3 for rows in dealt(IDS)]
        np.testing.assert_allclose(problem.smoothness, want, rtol=1e-12)


class Network(nn.Module):
    outputs: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.relu(nn.Dense(5)(x)))


PAIR = (lambda key: {"w": jnp.zeros((3, 3))}, lambda params, x: x @ params["w"])


LISTED = nn.Sequential([nn.Dense(5), nn.relu, nn.Dense(3)])  # cannot be hashed, as a list is among its fields


@pytest.mark.slow
@pytest.mark.parametrize("model", [Network(), LISTED, PAIR], ids=["flax", "flax of a list", "pair"])
def test_a_network_of_ones_own_runs(model):
    problem = sps.from_arrays(X, Y, IDS, model=model, test=0.34, batch_size=2)
    again = sps.from_arrays(X, Y, IDS, model=model, test=0.34, batch_size=2)
    assert jax.tree.structure(problem) == jax.tree.structure(again)  # or its programs would be compiled again
    hyper = dict(stepsize=0.1, prob=0.5, sparsity=0.5)
    _, history = sps.simulate(sps.sparse_proxskip, problem, hyper, jax.random.key(0), rounds=2)
    assert history["test_accuracy"].shape == (2,) and np.isfinite(history["train_loss"]).all()


def test_equal_modules_share_their_compiled_programs():
    one, other = (sps.from_arrays(X, Y, IDS, model=Network()) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(other)


def test_weights_test_data_and_integers_are_taken_as_given():
    tokens = np.arange(12).reshape(4, 3)
    embed = (lambda key: {"e": jnp.zeros((12, 2))}, lambda params, x: params["e"][x])
    problem = sps.from_arrays(tokens, tokens % 2, [5, 5, 5, 7], model=embed, weights="size", test=(tokens, tokens % 2))
    assert problem.data[0].dtype == jnp.int32 and problem.test[1].shape == (4, 3)
    np.testing.assert_allclose(problem.weights, [0.75, 0.25])


def grown(*_):
    return {"params": {"w": jnp.zeros((3, 3))}, "batch_stats": {"mean": jnp.zeros(3)}}


WRONG = {
    "lengths": ((X, Y[:-1], IDS), {}, "x has 12 examples and y 11"),
    "ids": ((X, Y, IDS[:-1]), {}, "x has 12 examples and client_ids 11 entries"),
    "nothing": ((X[:0], Y[:0], []), {}, "there are no examples"),
    "no features": ((X[:, :0], Y, IDS), {}, r"x has shape \(12, 0\)"),
    "missing id": ((X, Y, [*IDS[:-1], None]), {}, "no client for example 11: None"),
    "missing id, NaN": ((X, Y, np.where(Y == 1, np.nan, Y)), {}, "no client for example 1: nan"),
    "unhashable id": ((X, Y, X), {}, "one hashable value per example"),
    "not finite": ((np.where(X[3, 1] == X, np.inf, X), Y, IDS), {}, r"x must be finite in float32; entry \(3, 1\)"),
    "too large": ((X * 1e300, Y, IDS), {}, "x must be finite in float32"),
    "names as numbers": ((X, np.array(IDS), IDS), {"loss": "squares"}, "y holds names, such as 'a', but squares"),
    "complex": ((X * 1j, Y, IDS), {}, "x holds complex128"),
    "integers": ((np.full(12, 2**40), Y, IDS), {}, "integers beyond 32 bits, such as 1099511627776"),
    "negative class": ((X, Y - 1, IDS), {}, "y must be classes 0 to 1 for softmax of 2 outputs, not -1"),
    "class": ((X, Y, IDS), {"outputs": 2}, "y must be classes 0 to 1 for softmax of 2 outputs, not 2"),
    "class of a model": ((X, np.arange(12) % 4, IDS), {"model": PAIR}, "0 to 2 for softmax of 3 outputs, not 3"),
    "half a class": ((X, Y / 2, IDS), {"loss": "softmax"}, "not 0.5"),
    "labels": ((X, Y, IDS), {"loss": "logistic"}, "y must be 0 or 1 for logistic, not 2"),
    "two targets": ((X, X, IDS), {}, r"squares takes outputs \(b, 1\) and y \(b,\)"),
    "outputs": ((X, X[:, 0], IDS), {"model": PAIR, "loss": lambda z, y: z.mean()}, "one number per example"),
    "positions": ((X, np.stack([Y, Y], 1), IDS), {"model": PAIR}, "softmax takes outputs"),
    "loss": ((X, Y, IDS), {"loss": "softmx"}, "unknown loss 'softmx': did you mean 'softmax'"),
    "weights": ((X, Y, IDS), {"weights": "sizes"}, "unknown weights"),
    "ridge": ((X, Y, IDS), {"ridge": -1}, "ridge must be finite and not negative"),
    "ridge of a model": ((X, Y, IDS), {"ridge": -1, "model": PAIR}, "ridge must be finite and not negative"),
    "batch": ((X, Y, IDS), {"batch_size": 0}, "batch_size must be at least 1"),
    "test": ((X, Y, IDS), {"test": 1.0}, r"test must be a fraction in \(0, 1\), not 1.0"),
    "test of no one": ((X, Y, IDS), {"test": 0.01}, "test 0.01 is less than one example"),
    "test shape": ((X, Y, IDS), {"test": (X[:, :2], Y)}, r"test x has examples of shape \(2,\)"),
    "test class": ((X, Y, IDS), {"test": (X, Y + 1), "outputs": 3}, "not 3"),
    "validation": ((X, Y, IDS), {"validation": -0.1}, r"validation must be a fraction in \(0, 1\)"),
    "floats as classes": (
        (X, Y * 1.0, IDS),
        {},
        "y holds floats that are all whole numbers, such as 0.0: name the loss",
    ),
    "more names": (
        (X, [*"abcdefghijkl"], IDS),
        {"model": PAIR},
        "y has 12 classes, a, b, c, d, e and 7 more; the loss",
    ),
    "names of several kinds": ((X, np.array([*IDS[:-1], 1], object), IDS), {}, "y mixes names of several kinds"),
    "float64": ((X, Y, IDS), {"precision": "float64"}, "jax_enable_x64"),
    "module class": ((X, Y, IDS), {"model": Network}, "an instance of a flax.linen module"),
    "batch norm": ((X, Y, IDS), {"model": (grown, lambda p, x: x)}, "keeps batch_stats beside its parameters"),
    "bfloat16": ((X, Y, IDS), {"model": (lambda k: jnp.zeros(3, "bfloat16"), None)}, "functions"),
    "parameters": (
        (X, Y, IDS),
        {"model": (lambda k: jnp.zeros((3, 3), "bfloat16"), lambda p, x: x @ p)},
        "parameters are bfloat16, but precision needs float32",
    ),
    "dict of outputs": (
        (X, Y, IDS),
        {"model": (PAIR[0], lambda p, x: {"logits": x @ p["w"]})},
        "the model returns a dict, not one array of outputs",
    ),
    "tuple of outputs": ((X, Y, IDS), {"model": (PAIR[0], lambda p, x: (x @ p["w"], x))}, "the model returns a tuple"),
    "init of inputs": ((X, Y, IDS), {"model": (lambda key, x: x, PAIR[1])}, "init must take a key alone .*'x'"),
    "apply with a key": (
        (X, Y, IDS),
        {"model": (PAIR[0], lambda p, key, x: x)},
        "apply must take parameters and inputs",
    ),
    "a name for a model": ((X, Y, IDS), {"model": "resnet18"}, "not 'resnet18'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case):
    arrays, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        sps.from_arrays(*arrays, **options)
