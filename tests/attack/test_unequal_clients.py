"""Clients of random unequal sizes under models that are not differentiable, or not defined, at zero."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sps_jax.algorithms import ALGORITHMS
from sps_jax.layout import Layout
from sps_jax.problems.arrays import from_arrays
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.simulate import simulate

FEATURES, KEY = 2, jax.random.key(0)
SHAPES = {  # of x (b, d) > 0: defined and smooth there, not at 0
    "log": jnp.log,
    "root": jnp.sqrt,
    "reciprocal": lambda x: 1 / x,
    "unit": lambda x: x / jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True)),
    "angle": lambda x: jnp.arctan2(x, x[:, ::-1]),
    "share": lambda x: x / jnp.sum(x, axis=1, keepdims=True),
    "distance": lambda x: jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True)) * x,
    "own root": lambda x: x**0.3,
}
LOSSES = {
    "squares": lambda outputs, y: (outputs[:, 0] - y) ** 2 / 2,
    "relative": lambda outputs, y: ((outputs[:, 0] - y) / y) ** 2,
    "log ratio": lambda outputs, y: jnp.log((1 + outputs[:, 0] ** 2) / y) ** 2,
    "kl": lambda outputs, y: y * (jnp.log(y) - jax.nn.log_sigmoid(outputs[:, 0])),
}


def init(key):
    return jnp.full((FEATURES, 1), 0.5)


@st.composite
def cases(draw):
    shape, loss = draw(st.sampled_from(sorted(SHAPES))), draw(st.sampled_from(sorted(LOSSES)))
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4).filter(lambda s: len(set(s)) > 1))
    cohort = draw(st.sampled_from([None, *(Cohort(2, by) for by in ("uniform", "size"))]))
    return shape, loss, sizes, cohort, draw(st.sampled_from([Layout(), Layout(1), Layout(2)])), draw(st.booleans())


def check(case):
    """A round of gradient descent from padded clients is that of the clients one by one, in NumPy's mean."""
    shape, loss, sizes, cohort, layout, zeros = case
    draw = np.random.default_rng(sum(sizes))
    ids = np.repeat(np.arange(len(sizes)), sizes)
    x, y = draw.uniform(0.2, 2, (len(ids), FEATURES)), draw.uniform(0.2, 2, len(ids))
    model = (init, lambda w, x: SHAPES[shape](x) @ w)
    problem = from_arrays(x, y, ids, model=model, loss=LOSSES[loss], precision="float64", test=(x, y))
    if zeros:  # as one may have padded by hand
        real = np.arange(max(sizes)) < np.array(sizes)[:, None]
        data = (np.where(real[..., None], problem.data[0], 0), np.where(real, problem.data[1], 0))
        problem = dataclasses.replace(problem, data=tuple(map(jnp.asarray, data)))

    def mean_loss(w, rows):
        return jnp.mean(LOSSES[loss](SHAPES[shape](jnp.asarray(x[rows])) @ w, jnp.asarray(y[rows])))

    run = {"rounds": 1, "cohort": cohort, "layout": layout}
    state, history = simulate(ALGORITHMS["gd"], problem, {"stepsize": 0.01}, KEY, **run)
    assert np.isfinite(state.server).all()
    losses = [mean_loss(state.server, ids == i) for i in range(len(sizes))]
    np.testing.assert_allclose(history["train_loss"], np.mean(losses), rtol=1e-12)
    np.testing.assert_allclose(history["test_loss"], mean_loss(state.server, ids >= 0), rtol=1e-12)
    if cohort is None:
        slopes = [jax.grad(mean_loss)(init(None), ids == i) for i in range(len(sizes))]
        np.testing.assert_allclose(state.server, init(None) - 0.01 * np.mean(slopes, axis=0), rtol=1e-12)


FUZZ = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=4, **FUZZ)
@given(cases())
def test_some(case):
    check(case)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=60, **FUZZ)
@given(cases())
def test_many(case):
    check(case)
