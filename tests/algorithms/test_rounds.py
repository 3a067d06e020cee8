"""What depends on the round: its number, schedules of hyperparameters, ranges, the broadcast that began it, medians."""

import dataclasses
import math
from functools import partial
from typing import Annotated

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import least_squares, matrix

from sps_jax.algorithms import Algorithm, descend, fedavg, proxskip
from sps_jax.algorithms.ranges import Range
from sps_jax.layout import Layout
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.contract import check_algorithm
from sps_jax.simulation.footprint import footprint, shapes
from sps_jax.simulation.method import prepare
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import iterate
from sps_jax.simulation.stream import stream
from sps_jax.simulation.sweep import sweep

KEY = jax.random.key(3)
pytestmark = pytest.mark.usefixtures("x64")


def counting(*, stepsize, prob):
    """Sends the round's number and keeps the sum of what the server hears: 0 + 1 + ... whatever the steps."""
    return Algorithm(
        move=descend(stepsize),
        init=lambda params: (jnp.int32(0), (params, jnp.int32(0))),
        broadcast=lambda server: server[0],
        send=lambda x, h, b, gradient, info: (x, info.round.astype(x["w"].dtype)),
        serve=lambda server, mean, info: (mean[0], server[1] + jnp.round(mean[1]).astype(jnp.int32) + info.round),
        receive=lambda x, h, m, b, info: h + info.round,
        model=lambda server: server[0],
        with_model=lambda server, params: (params, server[1]),
    )


@pytest.mark.parametrize("how", ["rounds", "steps", "stream"])
def test_clients_and_server_know_the_number_of_the_round(how):
    """5 rounds: the server adds 2 (0 + 1 + 2 + 3 + 4) = 20, each client that always takes part 10, by the coin too."""
    problem = least_squares(batch_size=2).problem
    args = (counting, problem, {"stepsize": 0.01, "prob": 0.5}, KEY)
    if how == "stream":
        state, _ = stream(*args, rounds=5, cohort=4)
    else:
        state, history = simulate(*args, rounds=5)
    if how == "steps":
        state, heads = iterate(*args, iterations=int(history["iteration"][-1]))
        assert int(heads.sum()) == 5
    assert int(state.round) == 5 and int(state.server[1]) == 20
    np.testing.assert_array_equal(np.asarray(state.memory), [10] * 4)


# --- schedules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [simulate, stream], ids=["simulate", "stream"])
def test_a_step_size_that_decays_is_gradient_descent_with_that_step_size(how):
    """x <- x - gamma_t grad f(x), with gamma_t = 0.02 / 2^t, written out in NumPy."""
    quadratic, start = least_squares(), {"w": jnp.ones((5, 3)), "b": jnp.ones(3)}
    decay = optax.exponential_decay(0.02, 1, 0.5)
    run = {"rounds": 4, "local_steps": 1, "params": start, "cohort": 4 if how is stream else None}
    state, _ = how(fedavg, quadratic.problem, {"stepsize": decay}, KEY, **run)
    x = np.ones((6, 3))
    for t in range(4):
        x = x - 0.02 / 2**t * quadratic.gradients(x).mean(0)
    np.testing.assert_allclose(matrix(state.server[0]), x, rtol=1e-7)  # optax computes the schedule in float32


@pytest.mark.slow
def test_a_constant_schedule_changes_nothing_and_all_ways_agree():
    """Of the step size and of p: as numbers, by rounds, by steps and in a sweep, in the same iterations."""
    problem, k = least_squares(batch_size=2).problem, lambda value: lambda t: jnp.full((), value, jnp.float64)
    varying = {"stepsize": k(0.02), "prob": k(0.4)}
    plain, history = simulate(proxskip, problem, {"stepsize": 0.02, "prob": 0.4}, KEY, rounds=6)
    state, seen = simulate(proxskip, problem, varying, KEY, rounds=6)
    np.testing.assert_array_equal(history["iteration"], seen["iteration"])
    np.testing.assert_array_equal(history["uplink_bits"], seen["uplink_bits"])
    chex.assert_trees_all_close(plain.server, state.server[0], rtol=1e-12)
    steps, _ = iterate(proxskip, problem, varying, KEY, iterations=int(state.t))
    chex.assert_trees_all_close(steps.server, state.server, rtol=1e-12)
    (outcome,) = sweep(proxskip, problem, [varying | {"seed": 3}], rounds=6)
    np.testing.assert_allclose(outcome.history["train_loss"], seen["train_loss"], rtol=1e-12)


def test_the_probability_of_communicating_may_change():
    """Certain in rounds 0 to 2, one step each, then rare: three rounds of one step, and a longer one."""
    problem = least_squares().problem
    prob = lambda t: jnp.where(t < 3, 1.0, 0.01)  # noqa: E731
    _, history = simulate(fedavg, problem, {"stepsize": 1e-3, "prob": prob}, KEY, rounds=4)
    assert history["iteration"][:3].tolist() == [1, 2, 3] and history["iteration"][3] > 10


def test_a_sparsity_schedule_is_followed():
    """From 0.2 to 0.8: in evaluation r the model has round((1 - s_r) 15) weights and 3 biases of 18."""
    from sps_jax.algorithms import sparse_proxskip

    problem = least_squares().problem
    hyper = {"stepsize": 0.01, "prob": 0.5, "sparsity": optax.linear_schedule(0.2, 0.8, 3)}
    _, history = simulate(sparse_proxskip, problem, hyper, KEY, rounds=4)
    kept = [round((1 - s) * 15) + 3 for s in (0.4, 0.6, 0.8, 0.8)]
    np.testing.assert_allclose(history["density"] * 18, kept, rtol=1e-12)


@pytest.mark.parametrize(
    ("hyper", "local_steps", "says"),
    [
        ({"prob": lambda t: 0.5, "stepsize": 0.1}, 3, "prob .the coin. or local_steps .*not both"),
        (
            {"prob": lambda t: 1.5, "stepsize": 0.1},
            None,
            r"prob must be in \(0, 1\], but its schedule gives 1.5 in round 1",
        ),
        (
            {"prob": 0.5, "stepsize": optax.linear_schedule(0.1, 0.0, 2)},
            None,
            "stepsize must be positive and finite, .* 0 in round 3",
        ),
        (
            {"prob": 0.5, "stepsize": lambda: 0.1},
            None,
            "function of the round's number .* this function fails: TypeError",
        ),
        (
            {"prob": 0.5, "stepsize": lambda t: jnp.ones(3)},
            None,
            "stepsize must be a number, or a function .* shape .3,.",
        ),
        ({"prob": 0.5, "stepsize": lambda t: None}, None, "stepsize must be a number, or a function .* returns None"),
    ],
)
def test_a_schedule_that_is_none_is_refused_in_a_sentence(hyper, local_steps, says):
    with pytest.raises(ValueError, match=says):
        simulate(fedavg, least_squares().problem, hyper, KEY, rounds=3, local_steps=local_steps)


# --- ranges ------------------------------------------------------------------------------------------------------


def ranged(
    *, stepsize, prob, momentum: Annotated[float, Range(-1, 1)] = 0.0, shift: "Annotated[float, Range(-math.inf)]" = 0.0
):
    return fedavg(stepsize=stepsize, prob=prob)


def test_a_factory_says_what_its_numbers_may_be():
    """A negative number where it says so; text annotations, as of ``from __future__ import annotations``, count too."""
    made = partial(prepare, ranged, dtype=jnp.float64)
    method = made({"stepsize": 0.1, "prob": 0.5, "momentum": -0.5, "shift": -3e300})
    assert float(method.hyper["momentum"]) == -0.5 and float(method.hyper["shift"]) == -3e300
    for wrong, says in (
        ({"momentum": -1.5}, r"momentum must be in \[-1, 1\], not -1.5"),
        ({"shift": math.inf}, "shift must be finite, not inf"),
        ({"stepsize": -1.0}, "stepsize must be positive and finite"),
    ):
        with pytest.raises(ValueError, match=says):
            made({"stepsize": 0.1, "prob": 0.5} | wrong)


# --- the broadcast that began the round --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_client_hears_of_the_broadcast_that_began_the_round_again():
    """Each client adds up (new broadcast - old one): the server's model minus the first one, a telescope."""

    def telescope(*, stepsize, prob):
        return fedavg(stepsize=stepsize, prob=prob)._replace(
            init=lambda params: (jax.tree.map(jnp.zeros_like, params), params),
            receive=lambda x, h, m, b, info: jax.tree.map(lambda h, b, a: h + b - a, h, b, info.begun),
        )

    problem, start = least_squares(batch_size=2).problem, {"w": jnp.ones((5, 3)), "b": jnp.ones(3)}
    for stepsize in (0.01, lambda t: 0.01):  # a schedule wraps the broadcast, and unwraps this one
        state, _ = simulate(telescope, problem, {"stepsize": stepsize, "prob": 0.5}, KEY, rounds=5, params=start)
        server = state.server if stepsize == 0.01 else state.server[0]
        gone = jax.tree.map(lambda b: jnp.broadcast_to(b - 1, (4, *b.shape)), server)
        chex.assert_trees_all_close(state.memory, gone, rtol=1e-10)
    assert check_algorithm(telescope)


# --- servers that need all messages ------------------------------------------------------------------------------


def median(*, stepsize, prob):
    """FedAvg with the coordinatewise median instead of the mean (Yin et al. 2018)."""
    return Algorithm(
        move=descend(stepsize),
        serve=lambda server, messages, info: jax.tree.map(lambda m: jnp.median(m, axis=0), messages),
        needs_all=True,
    )


def after_one_step(quadratic, stepsize):
    return 1 - stepsize * quadratic.gradients(np.ones((6, 3)))


def test_the_median_of_clients_is_their_median():
    """Three clients, one step from ones: the server has the median of what NumPy says that they send."""
    quadratic, start = least_squares(clients=3), {"w": jnp.ones((5, 3)), "b": jnp.ones(3)}
    run = {"rounds": 1, "local_steps": 1, "params": start}
    state, _ = simulate(median, quadratic.problem, {"stepsize": 0.1}, KEY, **run)
    np.testing.assert_allclose(matrix(state.server), np.median(after_one_step(quadratic, 0.1), axis=0), rtol=1e-12)


@pytest.mark.slow
def test_layouts_schedules_and_cohorts_give_one_median():
    """Chunks, steps one by one, a schedule, a streamed cohort of all: the same server to the last bits."""
    problem = least_squares(batch_size=2).problem
    args = (median, problem, {"stepsize": 0.02, "prob": 0.4}, KEY)
    state, _ = simulate(*args, rounds=5)
    for other in (
        simulate(*args, rounds=5, layout=Layout(chunk=3))[0].server,
        iterate(*args, iterations=int(state.t))[0].server,
        simulate(median, problem, {"stepsize": lambda t: jnp.float64(0.02), "prob": 0.4}, KEY, rounds=5)[0].server[0],
    ):
        chex.assert_trees_all_close(state.server, other, rtol=1e-12)
    sampled, _ = simulate(*args, rounds=5, cohort=2)
    streamed, _ = stream(*args, rounds=5, cohort=2)
    chex.assert_trees_all_close(sampled.server, streamed.server, rtol=1e-12)
    assert check_algorithm(median) == ["shapes", "steps", "layouts", "bits"]


def test_a_median_has_no_weights():
    problem = least_squares().problem
    unequal = dataclasses.replace(problem, weights=jnp.array([0.1, 0.2, 0.3, 0.4]))
    args = ({"stepsize": 0.1, "prob": 0.5}, KEY)
    for one, cohort in ((unequal, None), (unequal, 2), (problem, Cohort(2, "size"))):
        with pytest.raises(ValueError, match=r"takes all messages has no weights for them: .* drawn uniformly"):
            simulate(median, one, *args, rounds=1, cohort=cohort)
    simulate(median, problem, *args, rounds=1, cohort=Cohort(2, "size", "normalised"))  # all weigh the same


def test_all_messages_count_in_memory():
    """Beside what FedAvg holds, the server's own copy of 4 messages of 18 numbers of 8 bytes."""
    problem = least_squares().problem
    held = [
        footprint(shapes(prepare(make, {"stepsize": 0.1, "prob": 0.5}, jnp.float64), problem), problem, Layout(), "cpu")
        for make in (fedavg, median)
    ]
    assert held[1].messages - held[0].messages == 4 * 18 * 8 and held[1].data == held[0].data
