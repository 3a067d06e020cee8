"""Every method against a loop in NumPy that was written from its equations."""

import jax
import numpy as np
import pytest
import reference
from problems import IDS, METHODS, PRUNED, hyper, least_squares, matrix

from sps_jax.algorithms import ALGORITHMS
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.simulate import prepare
from sps_jax.simulation.step import iterate

pytestmark = pytest.mark.usefixtures("x64")
ITERATIONS, KEEP = 200, 4
SPARSITY = 1 - KEEP / 15
OWN = {"alpha": 0.1, "tau_min": 1, "tau_max": 4, "owners": 3, "drop": 0.5, "readjust_every": 3}


def test_all_methods_have_a_reference():
    assert set(reference.METHODS) == set(ALGORITHMS) == {name for name, _ in METHODS}
    assert set(PRUNED) <= set(ALGORITHMS)


def test_topk_ties_go_to_the_lowest_index():
    x = np.array([[9.0, 9.0], [1.0, -2.0], [2.0, 2.0]])
    np.testing.assert_array_equal(reference.topk(x, 2), [[9, 9], [0, -2], [2, 0]])


@pytest.mark.parametrize("local_steps", [None, 5], ids=["coin", "fixed"])
@pytest.mark.parametrize(("name", "options"), METHODS, ids=IDS)
def test_against_numpy(name, options, local_steps):
    """Shipped model, what is broadcast of it and every client's memory after 200 iterations."""
    quadratic, key = least_squares(), jax.random.key(3)
    gamma, p = 0.5 / quadratic.L, 0.3 if local_steps is None else 1 / local_steps
    values = hyper(name, options, stepsize=gamma, prob=p, sparsity=SPARSITY, mu=0.7, l1=0.05, **OWN)
    if local_steps is not None:
        values.pop("prob", None)
    start = quadratic.problem.init(key)
    algorithm = prepare_algorithm(name, values, local_steps)
    state, heads = iterate(
        ALGORITHMS[name],
        quadratic.problem,
        values,
        key,
        iterations=ITERATIONS,
        local_steps=local_steps,
        params=start,
    )
    ends = np.flatnonzero(heads) + 1
    lengths = np.diff(ends, prepend=0)
    assert len(ends) > ITERATIONS / 8 and (name == "gd" or lengths.max() >= 5)
    case = reference.Case(quadratic.gradients, 4, matrix(start), lengths, gamma=gamma, p=p, keep=KEEP, mu=0.7, l1=0.05)
    common = split_key(key).common
    case = case._replace(
        tau=[1, 2, 3, 4],
        owners=3,
        ranks=[jax.random.permutation(jax.random.fold_in(common, t), 4) for t in ends.tolist()],
        mask=matrix(algorithm.init(start)[1][1]) if name == "feddst" else None,
        drop=0.5,
        every=3,
    )
    model, broadcast, memory = reference.METHODS[name](case, **options)
    np.testing.assert_allclose(matrix(algorithm.model(state.server)), model, rtol=0, atol=1e-10)
    server = algorithm.broadcast(state.server)
    server = server[0] if isinstance(server, tuple) else server
    np.testing.assert_allclose(matrix(server), broadcast, rtol=0, atol=1e-10)
    if memory is None:
        assert not jax.tree.leaves(state.memory)
    else:
        kept = matrix(state.memory) if isinstance(state.memory, dict) else state.memory
        np.testing.assert_allclose(kept, memory, rtol=0, atol=1e-10)


def prepare_algorithm(name, values, local_steps):
    method = prepare(ALGORITHMS[name], values, np.float64, local_steps=local_steps)
    return method.algorithm()
