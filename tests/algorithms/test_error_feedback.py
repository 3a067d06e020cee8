"""Error feedback on Sparse-ProxSkip's message: the sum of the control variates, and what the two kinds are."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from problems import least_squares, matrix

from sps_jax.algorithms import sparse_proxskip
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.contract import check_algorithm
from sps_jax.simulation.method import prepare
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.simulate import simulate

KEY, ROUNDS, P = jax.random.key(0), 60, 0.5
pytestmark = pytest.mark.usefixtures("x64")


def run(kind, cohort=None):
    """sum_i h_i, every client's e_i, the server's e where there is one, and who took part, after each round."""
    quadratic = least_squares()
    values = {"stepsize": 0.2 / quadratic.L, "sparsity": 0.7, "error_feedback": kind}
    method = prepare(sparse_proxskip, values, np.float64, local_steps=2)
    algorithm, sample = method.algorithm(), cohort and Cohort(cohort)

    def body(state, _):
        who = taking_part(quadratic.problem, sample, split_key(KEY), state.t).who.ids
        state, _ = one_round(algorithm, quadratic.problem, method.schedule, state, KEY, cohort=sample)
        h, e = state.memory
        mean = state.server[1] if kind == "ef21" else jax.tree.map(jnp.zeros_like, state.server)
        return state, (jax.tree.map(lambda h: h.sum(0), h), e, mean, who)

    first = start(algorithm, quadratic.problem, KEY)
    total, e, mean, who = jax.jit(lambda: lax.scan(body, first, length=ROUNDS)[1])()
    return matrix(total), matrix(e), matrix(mean), np.asarray(who), values["stepsize"]


@pytest.mark.parametrize(("kind", "cohort"), [("ef14", None), ("ef14", 3), ("ef21", None)])
def test_the_sum_is_kept(kind, cohort):
    """sum_S (b - m_i) = 0 for the mean b of what h_i follows: the messages, whatever they make up for, or all e_i."""
    total, e, *_ = run(kind, cohort)
    assert np.abs(total).max() < 1e-11 and np.abs(e[-1]).max() > 0.1


def test_ef21_with_a_cohort_breaks_the_sum():
    """Each round adds (p/gamma) sum_{i in S} (e - e_i): e is the mean of all e_i, not of the cohort's."""
    total, e, mean, who, gamma = run("ef21", 3)
    np.testing.assert_allclose(e.mean(1), mean, rtol=0, atol=1e-11)
    gains = [P / gamma * (mean[t] - e[t][who[t]]).sum(0) for t in range(ROUNDS)]
    np.testing.assert_allclose(total, np.cumsum(gains, axis=0), rtol=0, atol=1e-9)
    assert np.abs(total[-1]).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ef14", "ef21"])
def test_nothing_is_left_out_without_sparsity(kind):
    """C = identity: the same server and h as without error feedback."""
    quadratic = least_squares(batch_size=2)
    run = partial(simulate, sparse_proxskip, quadratic.problem, key=KEY, rounds=20, local_steps=2, evaluate_every=20)
    values = {"stepsize": 0.2 / quadratic.L, "sparsity": 0.0}
    plain, _ = run(hyper=values)
    state, _ = run(hyper=values | {"error_feedback": kind})
    server = state.server[0] if kind == "ef21" else state.server
    chex.assert_trees_all_close(server, plain.server, rtol=0, atol=1e-12)
    chex.assert_trees_all_close(state.memory[0], plain.memory, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ef14", "ef21"])
def test_it_keeps_the_contract(kind):
    """Only the first promises the sum, because with a cohort the second breaks it."""
    assert ("control variates" in check_algorithm(sparse_proxskip, {"error_feedback": kind})) == (kind == "ef14")


def test_an_unknown_kind():
    with pytest.raises(ValueError, match=r"unknown error feedback 'ef12': .* Allowed: none, ef14, ef21"):
        sparse_proxskip(stepsize=0.1, prob=0.5, sparsity=0.5, error_feedback="ef12")
