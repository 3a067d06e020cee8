"""The problems: shapes, constants, and gradients that are what they stand for."""

import inspect

import docstring_parser
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax import datasets
from sps_jax.problems import PROBLEMS, blog_feedback, cifar10, digits, femnist, libsvm, quadratic, synthetic_logistic
from sps_jax.problems.supervised import linear_problem


@pytest.mark.slow
def test_least_squares_from_moments_equals_from_examples(x64):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=40)
    parts = [np.arange(0, 7), np.arange(7, 40)]
    options = dict(bias=False, ridge=0.1, precision="float64")
    moments = linear_problem("squares", (x, y), (x, y), parts, **options)
    examples = linear_problem("squares", (x, y), (x, y), parts, batch_size=40, **options)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), moments.init(jax.random.key(0)))
    for name, value in examples.evaluate(params).items():
        np.testing.assert_allclose(moments.evaluate(params)[name], value, rtol=1e-12)
    for i in range(2):
        of = [[a[i] for a in (*p.data, p.counts)] for p in (moments, examples)]
        full = [
            jax.grad(p.client_loss)(params, tuple(data), count)
            for p, (*data, count) in zip((moments, examples), of, strict=True)
        ]
        np.testing.assert_allclose(*map(lambda g: jax.tree.leaves(g)[0], full), rtol=1e-12)


@pytest.mark.slow
def test_digits_is_smooth_as_it_says(x64):
    problem = digits(clients=5, precision="float64")
    assert problem.clients == 5 and int(problem.counts.sum()) == 1438
    params = problem.init(jax.random.key(0))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    data, count = tuple(a[0] for a in problem.data), problem.counts[0]
    hessian = jax.hessian(lambda v: problem.client_loss(unravel(v), data, count))(flat)
    assert np.linalg.eigvalsh(hessian)[-1] <= float(problem.smoothness[0]) * (1 + 1e-9)


def test_quadratic_has_the_mean_for_its_minimiser(x64):
    problem = quadratic(clients=4, dimension=3, mu=2.0, precision="float64")
    centre = jnp.mean(problem.data[0][:, 0], axis=0) / jnp.sqrt(2.0)
    gradient = jax.grad(problem.objective)({"x": centre})
    np.testing.assert_allclose(gradient["x"], 0, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "folder", "examples", "test"),
    [(femnist, "femnist", 11091, None), (blog_feedback, "blogfeedback", 52397, 7624), (libsvm, "libsvm", 8124, None)],
)
def test_real_data(make, folder, examples, test, shared_data, tmp_path):
    problem = make(manual_dir=shared_data / folder, data_dir=tmp_path, batch_size=4)
    held = problem.test[0].shape[0]
    assert int(problem.counts.sum()) + (0 if test else held) == examples
    assert held == test or test is None
    assert all(bool(jnp.all(jnp.isfinite(a))) for a in problem.data)
    if make is libsvm:
        assert float(problem.smoothness.max() / problem.convexity) == pytest.approx(1000, rel=1e-4)


def test_weights_by_size_make_the_objective_the_mean_over_examples(x64):
    """At x = 0 every example of ``digits`` costs log 10; elsewhere the pooled mean differs from the mean of clients."""
    equal, pooled = (
        digits(clients=5, weights=weights, ridge=0.0, precision="float64") for weights in ("equal", "size")
    )
    counts = np.asarray(equal.counts)
    np.testing.assert_allclose(pooled.weights, counts / counts.sum())
    x = jax.tree.map(lambda a: jax.random.normal(jax.random.key(1), a.shape, a.dtype), equal.init(jax.random.key(0)))
    each = np.array([equal.client_loss(x, (equal.data[0][i], equal.data[1][i]), equal.counts[i]) for i in range(5)])
    np.testing.assert_allclose(pooled.objective(x), np.average(each, weights=counts), rtol=1e-12)
    np.testing.assert_allclose(equal.objective(x), each.mean(), rtol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_option_of_a_problem_is_in_its_signature_and_docstring(name):
    parameters = inspect.signature(PROBLEMS[name]).parameters
    told = [(p.arg_name, bool(p.description)) for p in docstring_parser.parse(PROBLEMS[name].__doc__).params]
    assert sorted(told) == sorted((option, True) for option in parameters)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters.values())


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "quadratic"])
def test_a_misspelt_option_of_a_problem_is_refused(name):
    with pytest.raises(TypeError, match=rf"unknown option of {name} 'cleints': did you mean 'clients'\?"):
        PROBLEMS[name](cleints=3)
    with pytest.raises(TypeError, match=rf"{name}\(\) takes 0 positional arguments but 1 was given"):
        PROBLEMS[name](3)


def test_unknown_weights():
    with pytest.raises(ValueError, match="unknown weights 'sizes': did you mean 'size'"):
        digits(weights="sizes")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 4])
def test_validation_examples_come_from_the_clients_and_are_of_no_client(batch_size):
    """Of each client a tenth, rounded down; the test part stays what it is."""
    whole = digits(clients=5, ridge=0.0, batch_size=batch_size)
    parted = digits(clients=5, ridge=0.0, batch_size=batch_size, validation=0.1)
    np.testing.assert_array_equal(parted.counts, whole.counts - whole.counts // 10)
    assert len(parted.validation[0]) == int((whole.counts // 10).sum()) and whole.validation is None
    rows = lambda p: [p.data[0][i, : p.counts[i]] for i in range(5)]  # noqa: E731
    pixels = lambda arrays: sorted(map(bytes, np.concatenate([np.asarray(a) for a in arrays])))  # noqa: E731
    assert pixels([*rows(parted), parted.validation[0]]) == pixels(rows(whole))
    np.testing.assert_array_equal(parted.test[0], whole.test[0])
    params = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), parted.init(jax.random.key(0)))
    seen = parted.evaluate(params)
    assert {"validation_loss", "validation_accuracy", "test_loss", "test_accuracy"} <= seen.keys()
    losses = parted.loss(params, *parted.validation)
    np.testing.assert_allclose(seen["validation_loss"], losses.mean(), rtol=1e-5)


@pytest.mark.parametrize(("fraction", "message"), [(1.0, "validation must be a fraction in"), (1e-4, "less than one")])
def test_a_validation_part_that_cannot_be(fraction, message):
    with pytest.raises(ValueError, match=message):
        digits(clients=5, validation=fraction)


def test_synthetic_clients_are_the_same_however_many(x64):
    """Unit rows, labels that follow them, and a smoothness that bounds every client's."""
    few, many = (synthetic_logistic(clients=n, features=12, examples=6, precision="float64") for n in (3, 10_002))
    for a, b in zip((*few.data, *few.test), (*many.data, *many.test), strict=True):
        np.testing.assert_array_equal(a[:3], b[:3])
    assert many.clients == 10_002 and many.test[0].shape == (10_000, 12)
    np.testing.assert_allclose(np.linalg.norm(many.data[0], axis=2), 1, rtol=1e-6)
    assert set(np.unique(many.data[1])) == {0, 1}
    x = np.asarray(few.data[0])
    largest = [np.linalg.eigvalsh(a.T @ a / 6)[-1] / 4 + float(few.ridge) for a in x]
    assert (largest <= np.asarray(few.smoothness)).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"clients": 0}, "clients must be at least 1"),
        ({"heterogeneity": -1.0}, "heterogeneity must be finite"),
        ({"informative": 0.0}, "informative must be in"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_synthetic_clients_that_cannot_be(option, message):
    with pytest.raises(ValueError, match=message):
        synthetic_logistic(**option)


WIDTHS = [("resnet18", None, 64), ("resnet20", None, 16), ("resnet56", None, 16), ("resnet20", 8, 8)]


@pytest.mark.parametrize(("model", "width", "first"), WIDTHS)
def test_each_network_for_cifar10_has_its_own_width(model, width, first, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, 40).astype(np.int32)
    monkeypatch.setattr(datasets, "cifar10", lambda **where: datasets.Cifar10(x, y, x[:5], y[:5]))
    problem = cifar10(model=model, width=width, clients=2, partition="iid")
    params = jax.eval_shape(problem.init, jax.random.key(0))["params"]
    assert params["first"]["kernel"].shape == (3, 3, 3, first)
    assert problem.data[0].dtype == jnp.uint8
