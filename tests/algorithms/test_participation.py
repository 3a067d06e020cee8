"""Cohorts and weights: what every method converges to, whoever is drawn and whatever the clients count for."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import COHORTS, hyper

from sps_jax.algorithms import ALGORITHMS
from sps_jax.problem import Problem
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.schedule import Schedule
from sps_jax.simulation.simulate import simulate

KEY = jax.random.key(3)
x64 = pytest.mark.usefixtures("x64")
pytestmark = x64


def scalars(targets, sizes, weights):
    """f_i(x) = (x - a_i)^2 / 2 for a 2 x 1 matrix x of equal entries; sizes are told apart from rows."""
    shares = jnp.array(np.array(sizes) / np.sum(sizes))
    return Problem(
        data=(jnp.array(targets, float)[:, None],),
        counts=jnp.ones(len(targets), jnp.int32),
        sizes=jnp.array(sizes, jnp.int32),
        test=None,
        ridge=jnp.zeros(()),
        weights=shares if weights == "size" else None,
        init=lambda key: jnp.full((2, 1), 5.0),
        loss=lambda x, a: jnp.sum((x[None] - a[:, None, None]) ** 2, axis=(1, 2)) / 2,
    )


def minimiser(problem):
    """sum_i w_i a_i."""
    w = np.full(problem.clients, 1 / problem.clients) if problem.weights is None else np.asarray(problem.weights)
    return float(w @ np.asarray(problem.data[0])[:, 0])


# --- what is drawn counts for all ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 5])
@pytest.mark.parametrize("by", ["uniform", "size"])
def test_weights_divided_by_the_probability_are_unbiased(by, size):
    """E[1{i in S} / pi_i] = 1 for every client, here the mean of 100,000 draws within five standard errors of it.

    By size: given when all others ring, client i is in S if it rings before tau, the C-th of the others; the estimate
    is then 1 / P(E_i < tau) with that very probability, so its mean is 1 whatever tau.
    """
    sizes, draws = jnp.array([8, 1, 1, 3, 2], jnp.int32), 100_000
    ids, likely = jax.jit(jax.vmap(lambda key: Cohort(size, by).sample(key, sizes)))(jax.random.split(KEY, draws))
    estimates = np.zeros((draws, 5))
    np.put_along_axis(estimates, np.asarray(ids), 1 / np.asarray(likely, float), axis=1)
    error = estimates.std(0) / np.sqrt(draws)
    assert (abs(estimates.mean(0) - 1) <= 5 * error + 1e-6).all()
    assert ((likely > 0) & (likely <= 1)).all()


@pytest.mark.parametrize("weights", ["equal", "size"])
@pytest.mark.parametrize("name", ["gd", "fedavg", "fedprox", "fedavg_client_pruning", "fedavg_server_pruning"])
def test_the_mean_round_of_all_cohorts_is_the_round_of_all_clients(name, weights, monkeypatch):
    """One round of each of the 6 cohorts of 2 of 4 clients, all as likely: the mean of the servers' models.

    These methods' models are affine in the messages while nothing is pruned away (sparsity 0), so the mean over
    cohorts of an unbiased estimate gives the model of full participation.
    """
    problem = scalars([0.0, 1.0, 4.0, -2.0], [8, 1, 1, 2], weights)
    values = hyper(name, stepsize=0.3, sparsity=0.0, mu=0.1)
    method = prepare(ALGORITHMS[name], values, jnp.float64, local_steps=1 if name == "gd" else 3)

    @jax.jit
    def model(ids):
        monkeypatch.setattr(Cohort, "_uniform", lambda self, key, n: ids)
        algorithm = method.algorithm()
        cohort = None if ids is None else Cohort(2)
        state, _ = one_round(algorithm, problem, method.schedule, start(algorithm, problem, KEY), KEY, cohort=cohort)
        return algorithm.model(state.server)

    models = [model(jnp.array(ids, jnp.int32)) for ids in combinations(range(4), 2)]
    assert np.ptp(models) > 0.1
    np.testing.assert_allclose(np.mean(models, axis=0), model(None), rtol=1e-14)


@pytest.mark.parametrize("by", ["uniform", "size"])
@pytest.mark.parametrize("weights", ["equal", "size"])
def test_fedavg_settles_at_the_minimiser_of_the_objective(weights, by):
    """Clients of 8, 1 and 1 examples at 0, 1, 1, two of them in a round: 2/3 with equal weights, 0.2 by size.

    The map of a round is affine and its mean is that of all clients, so the stationary mean is the minimiser; averages
    over 30,000 rounds are within 0.01. With weights that are normalised in the cohort three of the four pairs settle
    elsewhere: 0.51 (equal, by size), 11/27 (size, uniform) and about 1/8 (size, by size).
    """
    problem = scalars([0.0, 1.0, 1.0], [8, 1, 1], weights)
    run = {"rounds": 30_000, "local_steps": 1, "evaluate_every": 30_000}
    means = {}
    for estimate in ("unbiased", "normalised"):
        models = rounds_of(problem, Cohort(2, by, estimate), **run)
        means[estimate] = models[1000:].mean()
    assert minimiser(problem) == pytest.approx({"equal": 2 / 3, "size": 0.2}[weights])
    assert means["unbiased"] == pytest.approx(minimiser(problem), abs=0.01)
    if (weights, by) != ("equal", "uniform"):
        settled = {("equal", "size"): 0.508, ("size", "uniform"): 11 / 27, ("size", "size"): 0.125}[weights, by]
        assert means["normalised"] == pytest.approx(settled, abs=0.01)


def rounds_of(problem, cohort, rounds, local_steps, evaluate_every):
    """The servers' models of FedAvg, round by round."""
    method = prepare(ALGORITHMS["fedavg"], {"stepsize": 0.02}, jnp.float64, local_steps=local_steps)

    @jax.jit
    def all_rounds(problem):
        algorithm = method.algorithm()

        def body(state, _):
            state, _ = one_round(algorithm, problem, method.schedule, state, KEY, cohort=cohort)
            return state, state.server[0, 0]

        return jax.lax.scan(body, start(algorithm, problem, KEY), length=rounds)[1]

    return np.asarray(all_rounds(problem))


# --- control variates lead to x* ------------------------------------------------------------------------------------

EVERY_DAY = {("proxskip", "size", "size"), ("scaffold", "size", "uniform"), ("scaffold", "equal", "size")}
EVERY_DAY |= {("feddyn", "size", "uniform"), ("randprox_server", "size", "size"), ("tamuna", "equal", "size")}
CASES = [
    pytest.param(*case, marks=[] if case in EVERY_DAY else pytest.mark.slow, id="-".join(case))
    for name in COHORTS
    for weights in ("equal", "size")
    for by in ("uniform", "size")
    for case in [(name, weights, by)]
    if not (weights == "size" and name in ("compressed_scaffnew", "tamuna"))
]


@pytest.mark.parametrize("coin", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["fixed", "coin"])
@pytest.mark.parametrize(("name", "weights", "by"), CASES)
def test_the_minimiser_is_reached_and_the_sum_kept(name, weights, by, coin):
    """3 of 5 clients of unequal sizes: x* = sum_i w_i a_i to 1e-9, and the weighted sum of control variates is zero.

    At x* every client's message is x* itself when h_i = grad f_i(x*), whatever it counts for; sparsity and l1 are zero.
    """
    problem = scalars([0.0, 1.0, 4.0, -2.0, 3.0], [8, 1, 1, 2, 3], weights)
    values = hyper(name, stepsize=0.3, sparsity=0.0, l1=0.0, alpha=1.0, owners=2, **({"prob": 0.4} if coin else {}))
    how = {} if coin else {"local_steps": 3}
    run = {"rounds": 1500, "evaluate_every": 100, "cohort": Cohort(3, by)}
    state, history = simulate(ALGORITHMS[name], problem, values, KEY, **run, **how)
    algorithm = ALGORITHMS[name](**hyper(name, prob=1 / 3) | values)
    np.testing.assert_allclose(algorithm.model(state.server), minimiser(problem), rtol=0, atol=1e-9)
    assert history["control_sum"].max() < 1e-11


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_one_client_in_a_round_is_enough(name):
    """Clients of 1 and 3 examples at 0 and 4: x* = 3, with one of them in a round."""
    problem = scalars([0.0, 4.0], [1, 3], "size")
    values = hyper(name, stepsize=0.1, alpha=1.0)
    state, history = simulate(
        ALGORITHMS[name], problem, values, KEY, rounds=3000, local_steps=2, evaluate_every=500, cohort=1
    )
    algorithm = ALGORITHMS[name](**{"prob": 0.5} | values)
    np.testing.assert_allclose(algorithm.model(state.server), 3, rtol=0, atol=1e-9)
    assert history["control_sum"].max() < 1e-11


def test_proxskip_with_one_client_in_a_round_has_no_control_variates():
    """b is the client's own x_i, so h_i + (p / gamma) (b - x_i) = h_i: h stays zero, and x goes after who was drawn."""
    problem = scalars([0.0, 4.0], [1, 3], "equal")
    state, _ = simulate(
        ALGORITHMS["proxskip"], problem, {"stepsize": 0.1}, KEY, rounds=50, local_steps=2, evaluate_every=50, cohort=1
    )
    assert not np.asarray(state.memory).any()


def test_randprox_server_reaches_the_lasso_point_with_a_cohort():
    """min 1/2 sum_i w_i (x - a_i)^2 + l1 |x|: the mean of the a_i, soft-thresholded at l1."""
    problem = scalars([0.0, 1.0, 4.0, -2.0, 3.0], [8, 1, 1, 2, 3], "size")
    values = {"stepsize": 0.3, "l1": 0.25}
    state, _ = simulate(
        ALGORITHMS["randprox_server"], problem, values, KEY, rounds=1500, local_steps=3, evaluate_every=1500, cohort=3
    )
    np.testing.assert_allclose(state.server.model, minimiser(problem) - 0.25, rtol=0, atol=1e-9)


def test_fednova_with_a_cohort_goes_where_its_docstring_says():
    """As gamma -> 0 to the minimiser of sum_i v_i f_i, v_i = E[tau_S a_i]; with equal tau and weights that is f's.

    Three clients with tau = 1, 2, 3, equal weights, cohorts of two, each of the three sets as likely, a_i = 1/2:
    v_1 = (1.5 + 2) / 2, v_2 = (1.5 + 2.5) / 2, v_3 = (2 + 2.5) / 2 up to a common factor, so with a_i at 0, 0, 1 the
    point is 2.25 / (1.75 + 2 + 2.25) = 0.375, not 1/3. The mean over 40,000 rounds of small steps shows it.
    """
    problem = scalars([0.0, 0.0, 1.0], [1, 1, 1], "equal")
    method = prepare(ALGORITHMS["fednova"], {"stepsize": 0.01, "tau_min": 1, "tau_max": 3}, jnp.float64, local_steps=3)
    schedule = Schedule(jnp.float64(1 / 3), 3)

    @jax.jit
    def models(problem):
        algorithm = method.algorithm()

        def body(state, _):
            state, _ = one_round(algorithm, problem, schedule, state, KEY, cohort=Cohort(2))
            return state, state.server[0, 0]

        return jax.lax.scan(body, start(algorithm, problem, KEY), length=40_000)[1]

    assert np.asarray(models(problem))[2000:].mean() == pytest.approx(0.375, abs=0.01)


@pytest.mark.parametrize("by", ["uniform", "size"])
def test_feddst_divides_by_the_weight_it_gets(by):
    """b = sum M_i x_i / sum M_i is a mean of the clients' weights whatever these count for, so no larger than theirs.

    The mask moves in every round and differs between clients; their targets are in [-1, 1], so no iterate leaves it.
    """
    generator = np.random.default_rng(0)
    shares = np.array([8, 1, 1, 2, 3]) / 15
    problem = Problem(
        data=(jnp.asarray(generator.uniform(-1, 1, (5, 1, 4, 3))),),
        counts=jnp.ones(5, jnp.int32),
        sizes=jnp.array([8, 1, 1, 2, 3], jnp.int32),
        test=None,
        ridge=jnp.zeros(()),
        weights=jnp.asarray(shares),
        init=lambda key: jnp.ones((4, 3)),
        loss=lambda x, a: jnp.sum((x[None] - a) ** 2, axis=(1, 2)) / 2,
    )
    hyper = {"stepsize": 0.5, "sparsity": 0.5, "drop": 0.5, "readjust_every": 1}
    run = {"rounds": 40, "local_steps": 4, "cohort": Cohort(2, by)}
    state, history = simulate(ALGORITHMS["feddst"], problem, hyper, KEY, **run)
    assert abs(state.server[0]).max() <= 1 and np.isfinite(history["train_loss"]).all()
    assert history["train_loss"].max() <= 12 * 2
