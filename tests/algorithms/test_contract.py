"""What every method of the table promises, whatever its mathematics."""

import contextlib
import dataclasses
import inspect
from functools import partial, wraps

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import CONTROLLED, IDS, METHODS, OUTPUTS, PRUNED, SAMPLE, ZERO_SUM, hyper, init, least_squares, matrix

from sps_jax import tree
from sps_jax.algorithms import ALGORITHMS, proxskip
from sps_jax.layout import VMAP
from sps_jax.simulation.contract import check_algorithm
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import start
from sps_jax.simulation.simulate import run_rounds, simulate
from sps_jax.simulation.state import State
from sps_jax.simulation.step import iterate

KEY = jax.random.key(5)
each_method = pytest.mark.parametrize(("name", "options"), METHODS, ids=IDS)
sample_of_methods = pytest.mark.parametrize(("name", "options"), SAMPLE)
x64 = pytest.mark.usefixtures("x64")
OTHERWISE = {
    "feddyn",
    "compressed_scaffnew",
    "tamuna",
    "feddst",
    "mask_proxskip",
    "fedadam",
    "fedyogi",
    "locodl",
    "fedsmu",
}
DESCENDING = [m for m in METHODS if m[0] not in OTHERWISE]
"""Those that are gradient descent at p = 1 and sparsity 0; mask_proxskip is from its second round on."""


def built(name, values, dtype, local_steps=None):
    """The algorithm itself, for its ``model`` and ``broadcast``."""
    method = prepare(ALGORITHMS[name], values, dtype, local_steps=local_steps)
    return method.algorithm()


def all_values(name, options, quadratic, **changes):
    defaults = {"stepsize": 0.3 / quadratic.L, "prob": 0.4, "sparsity": 0.7, "mu": 0.2, "l1": 0.01}
    defaults |= {"tau_max": 4, "owners": 3, "readjust_every": 3}
    return hyper(name, options, **(defaults | changes))


def close(first, second, tolerance=1e-12):
    chex.assert_trees_all_close(first, second, rtol=tolerance, atol=tolerance)


# --- two shapes of one computation -------------------------------------------------------------------------------


def rounds_and_steps(name, options, local_steps, batch_size, cohort=None):
    """``simulate`` for some rounds and ``iterate`` for as many iterations end in the same state."""
    quadratic = least_squares(batch_size=batch_size)
    values = all_values(name, options, quadratic)
    if local_steps is not None:
        values.pop("prob", None)
    run = {"problem": quadratic.problem, "hyper": values, "key": KEY, "local_steps": local_steps, "cohort": cohort}
    by_rounds, history = simulate(ALGORITHMS[name], rounds=12, **run)
    by_steps, heads = iterate(ALGORITHMS[name], iterations=int(by_rounds.t), **run)
    assert heads[-1] and heads.sum() == 12 and by_steps.t == by_rounds.t == history["iteration"][-1]
    np.testing.assert_array_equal(np.flatnonzero(heads) + 1, history["iteration"])
    close(by_rounds.server, by_steps.server)
    close(by_rounds.memory, by_steps.memory)


@pytest.mark.slow
@each_method
def test_keeps_the_contract(name, options):
    """What :func:`sps_jax.check_algorithm` asks of anybody's method."""
    assert ("control variates" in check_algorithm(ALGORITHMS[name], hyper(name, options))) == (name in ZERO_SUM)


@pytest.mark.parametrize("name", sorted({*CONTROLLED} - {*ZERO_SUM}))
def test_who_does_not_promise_the_sum_breaks_it(name):
    """No method keeps the sum and says that it does not: with the promise, the check fails."""

    @wraps(ALGORITHMS[name])
    def promising(**hyper):
        return ALGORITHMS[name](**hyper)._replace(zero_sum=True)

    with pytest.raises(AssertionError, match="do not sum to zero"):
        check_algorithm(promising)


def test_pruning_at_the_server_and_compressing_its_broadcast_break_the_sum():
    """As the papers say: sum_i h_i gains n (p / gamma) (C(xbar) - xbar) in a round."""
    assert {*CONTROLLED} - {*ZERO_SUM} == {"server_pruning", "fedcomloc_global"}


@x64
@pytest.mark.slow
@each_method
def test_rounds_are_steps_with_a_fixed_number(name, options):
    rounds_and_steps(name, options, 3, 2)


@x64
@pytest.mark.parametrize("local_steps", [None, 3])
@pytest.mark.parametrize("name", [pytest.param("scaffold", marks=pytest.mark.slow), "sparse_proxskip"])
def test_rounds_are_steps_with_full_gradients(name, local_steps):
    rounds_and_steps(name, {}, local_steps, None)


@x64
@pytest.mark.parametrize(
    "name",
    [
        "sparse_proxskip",
        "scaffold",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("fednova", "compressed_scaffnew", "feddst")),
    ],
)
def test_rounds_are_steps_of_a_cohort(name):
    rounds_and_steps(name, {}, None, 2, cohort=3)


def sorting_topk(params, sparsity):
    """TopK by a sort, for ``test_without_jit``: op by op, the package's own takes seconds a call."""
    w = params["w"]
    rank = jnp.argsort(jnp.argsort(-jnp.abs(w.ravel()), stable=True)).reshape(w.shape)
    return params | {"w": jnp.where(rank.astype(w.dtype) < jnp.round((1 - sparsity) * w.size), w, jnp.zeros_like(w))}


@pytest.mark.slow
@x64
@sample_of_methods
def test_without_jit(name, options):
    """The same numbers when nothing is compiled."""
    quadratic = least_squares(batch_size=2, clients=2)
    values = all_values(name, options, quadratic, prune=sorting_topk)
    run = partial(iterate, ALGORITHMS[name], quadratic.problem, values, KEY, iterations=4, local_steps=None)
    compiled, heads = run()
    with jax.disable_jit():
        plain, plain_heads = run()
    np.testing.assert_array_equal(heads, plain_heads)
    close(compiled, plain)


# --- what a run keeps, and when it is compiled -------------------------------------------------------------------


@each_method
def test_float32_stays_float32(name, options):
    """Shapes and dtypes of the server's state, the memory and the model are those of the start; nothing is promoted."""
    quadratic = least_squares(dtype=np.float32, batch_size=2)
    values = all_values(name, options, quadratic)
    method = prepare(ALGORITHMS[name], values, np.float32)
    params = init(KEY)
    algorithm = method.algorithm()
    h, server = algorithm.init(params)
    state = State(server, tree.stack(h, 4), jnp.int32(0))
    run = run_rounds.eval_shape(method, VMAP, quadratic.problem, state, KEY, np.ones(5, bool))
    chex.assert_trees_all_equal_shapes_and_dtypes(run[0], state)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(algorithm.model, run[0].server), params)
    assert run[1]["train_loss"].dtype == np.float32 and run[1]["train_loss"].shape == (5,)


@x64
@sample_of_methods
def test_keys_and_compilation(name, options):
    """A key fixes the run, bit for bit, another draws other batches; other numbers and seeds reuse the program."""
    quadratic = least_squares(batch_size=2)
    model = built(name, all_values(name, options, quadratic), np.float64).model
    run = partial(simulate, ALGORITHMS[name], quadratic.problem, rounds=12)
    values = all_values(name, options, quadratic)
    state, history = run(values, KEY)
    programs = run_rounds._cache_size()
    again, history_again = run(values, KEY)
    chex.assert_trees_all_equal(state, again)
    chex.assert_trees_all_equal(history, history_again)
    run(all_values(name, options, quadratic, stepsize=0.01, prob=0.7, sparsity=0.5, mu=0.3, l1=0.02), KEY)
    other, _ = run(values, jax.random.key(6), params=init(KEY))
    same_start, _ = run(values, KEY, params=init(KEY))
    assert run_rounds._cache_size() == programs
    assert np.abs(matrix(model(other.server)) - matrix(model(same_start.server))).max() > 1e-4


@x64
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("name", PRUNED)
def test_shipped_model_has_k_nonzeros(name, sparsity):
    """Exactly K = max(1, round((1-s) d)) weights and every bias; the history's density says the same."""
    quadratic = least_squares(batch_size=2)
    values = all_values(name, {}, quadratic, sparsity=sparsity)
    state, history = simulate(ALGORITHMS[name], quadratic.problem, values, KEY, rounds=12)
    model = built(name, values, np.float64).model(state.server)
    K = max(1, round((1 - sparsity) * 15))
    assert np.count_nonzero(model["w"]) == K and np.count_nonzero(model["b"]) == OUTPUTS
    np.testing.assert_allclose(history["density"], (K + OUTPUTS) / 18, rtol=1e-12)


# --- special cases -----------------------------------------------------------------------------------------------


@x64
@pytest.mark.parametrize(("name", "options"), DESCENDING, ids=[name for name, _ in DESCENDING])
def test_gradient_descent_at_p_1(name, options):
    """p = 1, s = 0, without extra terms: x <- x - gamma grad f(x) (T9)."""
    quadratic = least_squares()
    gamma = 1 / quadratic.L
    plain = {"sparsity": 0.0, "mu": 0.0, "l1": 0.0, "alpha": 1.0, "beta": 1.0, "server_stepsize": 1.0}
    plain["momentum"] = 0.0 if name == "fedavgm" else 1.0
    values = hyper(name, options, stepsize=gamma, prob=1.0, **plain)
    x = init(KEY)
    state, _ = simulate(ALGORITHMS[name], quadratic.problem, values, KEY, rounds=12, params=x)
    x = matrix(x)
    for _ in range(12):
        x = x - gamma * quadratic.gradients(x).mean(0)
    np.testing.assert_allclose(matrix(built(name, values, np.float64).model(state.server)), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch_size", [2, None], ids=["batches", "full"])
@x64
@sample_of_methods
def test_padding_is_never_used(name, options, batch_size):
    """The rows behind ``counts`` may hold anything: NaN if batches are drawn, huge numbers with full gradients."""
    runs = []
    for padding in (0.0, np.nan if batch_size else 1e100):
        quadratic = least_squares(batch_size=batch_size, padding=padding)
        values = all_values(name, options, quadratic)
        runs.append(simulate(ALGORITHMS[name], quadratic.problem, values, KEY, rounds=12))
    (state, history), (poisoned, poisoned_history) = runs
    assert tree.finite(state.server)
    chex.assert_trees_all_equal(state, poisoned)
    chex.assert_trees_all_equal(history, poisoned_history)


# --- transforms of the local direction ---------------------------------------------------------------------------


@x64
@pytest.mark.parametrize("name", ["scaffold", "sparse_proxskip"])
def test_clipping_at_a_huge_norm_is_none(name):
    quadratic = least_squares(batch_size=2)
    run = partial(simulate, ALGORITHMS[name], quadratic.problem, all_values(name, {}, quadratic), KEY, rounds=12)
    plain, _ = run()
    for on in ("direction", "gradient"):
        clipped, _ = run(transform=optax.clip_by_global_norm(1e9), transform_on=on)
        memory = clipped.memory[0] if on == "direction" else clipped.memory
        close(plain.server, clipped.server)
        close(plain.memory, memory)


@x64
def test_clipping_the_direction_keeps_the_fixed_point():
    """g - h is zero at x*, g is not: proxskip still reaches x* with the first clipped, not with the second."""
    quadratic = least_squares(ridge=0.5)
    x_star, norm = quadratic.optimum, 1.0
    assert np.sqrt((quadratic.gradients(x_star) ** 2).sum((1, 2))).min() > norm
    off = {}
    for on in ("direction", "gradient"):
        state, _ = simulate(
            proxskip,
            quadratic.problem,
            {"stepsize": 1 / quadratic.L},
            KEY,
            rounds=3000,
            local_steps=3,
            evaluate_every=3000,
            transform=optax.clip_by_global_norm(norm),
            transform_on=on,
        )
        off[on] = np.abs(matrix(state.server) - x_star).max()
    assert off["direction"] < 1e-10
    assert off["gradient"] > 1e-2


@x64
def test_momentum_is_kept_across_rounds():
    """FedAvg with m_i <- 0.9 m_i + g_i, x_i <- x_i - gamma m_i; m_i is the client's own and lives on."""
    quadratic, rounds, k = least_squares(), 6, 3
    gamma, start = 0.05 / quadratic.L, init(KEY)
    state, _ = simulate(
        ALGORITHMS["fedavg"],
        quadratic.problem,
        {"stepsize": gamma},
        KEY,
        rounds=rounds,
        local_steps=k,
        transform=optax.trace(0.9),
        params=start,
    )
    b, m = matrix(start), np.zeros_like(quadratic.c)
    for _ in range(rounds):
        x = np.stack([b] * 4)
        for _ in range(k):
            m = 0.9 * m + quadratic.gradients(x)
            x = x - gamma * m
        b = x.mean(0)
    _, kept = state.memory
    np.testing.assert_allclose(matrix(state.server), b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(matrix(kept.trace), m, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prob", [0.0, 1.5, np.nan])
def test_a_probability_out_of_range(prob):
    """Refused with the allowed range."""
    quadratic = least_squares(dtype=np.float32)
    with pytest.raises(ValueError, match=r"prob must be in \(0, 1\]"):
        simulate(proxskip, quadratic.problem, {"stepsize": 0.1, "prob": prob}, KEY, rounds=1)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_another_model_in_the_server(name):
    """``with_model`` leaves what the server keeps beside the model as it is."""
    algorithm = built(name, all_values(name, {}, least_squares(dtype=np.float32)), np.float32)
    params = {"w": jnp.ones((5, 3)), "b": jnp.ones(3)}
    _, server = algorithm.init(params)
    again = algorithm.with_model(server, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(again, server)
    chex.assert_trees_all_equal_shapes_and_dtypes(algorithm.model(again), params)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_who_takes_clients_of_unequal_weight(name):
    """All but those whose coordinates have a few owners each."""
    quadratic = least_squares(dtype=np.float32)
    algorithm = built(name, all_values(name, {}, quadratic), np.float32)
    unequal = dataclasses.replace(quadratic.problem, weights=jnp.array([0.1, 0.2, 0.3, 0.4], jnp.float32))
    refused = name in ("compressed_scaffnew", "tamuna")
    with pytest.raises(ValueError, match="equal weight") if refused else contextlib.nullcontext():
        jax.eval_shape(lambda key: start(algorithm, unequal, key), KEY)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_defaults_are_in_their_ranges(name):
    takes = inspect.signature(ALGORITHMS[name]).parameters.values()
    given = {p.name: 0.5 if p.default is p.empty else p.default for p in takes if p.name != "prune"}
    prepare(ALGORITHMS[name], given, jnp.float32)
