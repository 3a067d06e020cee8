"""Every method against a loop in NumPy that was written from its equations."""

import inspect

import jax
import numpy as np
import pytest
import reference
from compared import cases
from problems import METHODS, PRUNED, least_squares, matrix

from sps_jax.algorithms import ALGORITHMS
from sps_jax.simulation.method import prepare
from sps_jax.simulation.step import iterate

pytestmark = pytest.mark.usefixtures("x64")
ITERATIONS = 60
near = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)  # noqa: E731


def test_all_methods_have_a_reference():
    assert set(reference.METHODS) == set(ALGORITHMS) == {name for name, _ in METHODS}
    assert set(PRUNED) <= set(ALGORITHMS)


def test_topk_ties_go_to_the_lowest_index():
    x = np.array([[9.0, 9.0], [1.0, -2.0], [2.0, 2.0]])
    np.testing.assert_array_equal(reference.topk(x, 2), [[9, 9], [0, -2], [2, 0]])


@pytest.mark.parametrize(("one", "local_steps"), list(cases()))
def test_against_numpy(one, local_steps):
    """Shipped model, what is broadcast of it and every client's memory, before the start is forgotten."""
    quadratic, key = least_squares(), jax.random.key(3)
    p = 0.3 if local_steps is None else 1 / local_steps
    values = one.values(stepsize=0.5 / quadratic.L, prob=p)
    if local_steps is not None:
        del values["prob"]
    start = quadratic.problem.init(key)
    algorithm = prepare(one.make, values, np.float64, local_steps=local_steps).algorithm()
    run = {"iterations": ITERATIONS, "local_steps": local_steps, "params": start}
    state, heads = iterate(one.make, quadratic.problem, values, key, **run)
    lengths = np.diff(np.flatnonzero(heads) + 1, prepend=0)
    assert len(lengths) > ITERATIONS / 8
    assert lengths.max() >= 5 or "prob" not in inspect.signature(one.make).parameters
    case = one.case(quadratic, matrix(start), lengths, p, key)
    model, broadcast, memory = one.loop(case)
    other = one.loop(case._replace(start=case.start + 0.1))[0]
    assert np.abs(other - model).max() > 1e-5  # at a common limit, two methods would agree too
    near(matrix(algorithm.model(state.server)), model)
    server = algorithm.broadcast(state.server)
    near(matrix(server[0] if isinstance(server, tuple) else server), broadcast)
    kept, expected = vectors(state.memory), () if memory is None else memory if isinstance(memory, tuple) else (memory,)
    assert len(kept) >= len(expected) and bool(kept) == bool(expected)
    for mine, theirs in zip(kept, expected, strict=False):  # what only tells clients apart may follow
        near(mine, theirs)


def vectors(memory) -> list[np.ndarray]:
    """Of the clients' memory, those like the parameters as matrices, and the other arrays."""
    leaves = jax.tree.leaves(memory, is_leaf=lambda part: isinstance(part, dict))
    return [matrix(part) if isinstance(part, dict) else np.asarray(part) for part in leaves]
