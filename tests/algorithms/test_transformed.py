"""Transforms of the local direction: which are followed, which are refused, and in what words."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import hyper, least_squares, matrix

from sps_jax.algorithms import ALGORITHMS, Algorithm, Follow, descend, transformed
from sps_jax.simulation.method import prepare
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import iterate
from sps_jax.simulation.sweep import sweep

KEY = jax.random.key(0)
PARAMS = {"first": {"w": jnp.ones((6, 5)), "b": jnp.zeros(5)}, "last": jnp.ones((2, 1, 3, 4)), "scale": jnp.ones(())}
PARTS = {"first": "one", "last": "other", "scale": "other"}
WEIGHTS = {"first": {"w": True, "b": False}, "last": False, "scale": False}


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax itself mixes dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def begin(transform, on="direction", params=PARAMS):
    """An algorithm is started, traced as in a simulation; what is wrong with the transform is said then."""
    jax.eval_shape(transformed(Algorithm(move=descend(0.1)), transform, on).init, params)


def of_full_size():
    """A transform with arrays of its own that go with these parameters alone."""
    keep = jax.tree.map(lambda a: 0.5 * jnp.ones_like(a), PARAMS)
    return optax.stateless(lambda d, _: jax.tree.map(jnp.multiply, d, keep))


FOLLOWED = {
    "identity": optax.identity,
    "clip": lambda: optax.clip(0.1),
    "clip_by_global_norm": lambda: optax.clip_by_global_norm(1.0),
    "adaptive_grad_clip": lambda: optax.adaptive_grad_clip(0.01),
    "add_noise": lambda: optax.add_noise(1.0, 0.55, jax.random.key(0)),
    "huge noise": lambda: optax.add_noise(1e8, 0.0, jax.random.key(0)),
    "trace": lambda: optax.trace(0.9, nesterov=True),
    "scale_by_adam": optax.scale_by_adam,
    "scale_by_sign": optax.scale_by_sign,
    "centralize": optax.centralize,
    "zero_nans": optax.zero_nans,
    "add_decayed_weights": lambda: optax.add_decayed_weights(100.0),
    "set_to_zero": optax.set_to_zero,
    "two signs": lambda: optax.chain(optax.sgd(0.1), optax.scale(-10.0)),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.add_decayed_weights(0.1)),
    "masked": lambda: optax.masked(optax.clip(1.0), WEIGHTS),
    "warm-up": lambda: optax.scale_by_schedule(optax.linear_schedule(0.0, 1.0, 100)),
    "partition": lambda: optax.multi_transform({"one": optax.set_to_zero(), "other": optax.scale_by_adam()}, PARTS),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.clip)(max_delta=0.1),
    "MultiSteps": lambda: optax.MultiSteps(optax.scale_by_adam(), 4),
    "keep_params_nonnegative": optax.keep_params_nonnegative,
    "of full size": of_full_size,
}
TURNING = {
    "sgd": lambda: optax.sgd(0.1),
    "tiny sgd": lambda: optax.sgd(1e-12),
    "adam": lambda: optax.adam(1e-3),
    "adamw": lambda: optax.adamw(1e-3),
    "lion": lambda: optax.lion(1e-3),
    "rmsprop": lambda: optax.rmsprop(1e-3),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "schedule from zero": lambda: optax.adam(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)),
    "late schedule": lambda: optax.sgd(optax.linear_schedule(0.0, 0.1, 100, transition_begin=500)),
    "one part": lambda: optax.multi_transform({"one": optax.clip(1.0), "other": optax.sgd(0.1)}, PARTS),
    "masked": lambda: optax.masked(optax.sgd(1e-3), WEIGHTS),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.1), 4),
    "MultiSteps as transform": lambda: optax.MultiSteps(optax.adam(0.1), 7).gradient_transformation(),
    "scale": lambda: optax.scale(-1.0),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_is_no_optimiser_is_followed(name):
    begin(FOLLOWED[name]())


@pytest.mark.parametrize("name", TURNING)
def test_an_optimiser_is_refused(name):
    """Whatever part of the parameters it turns round, and if it is only after a while."""
    with pytest.raises(ValueError, match=r"reverses the sign of the local direction.*give only what precedes"):
        begin(TURNING[name]())


@pytest.mark.parametrize("on", ["direction", "gradient"])
def test_every_way_to_run_refuses_an_optimiser(on):
    problem, values = least_squares(dtype=np.float32).problem, {"stepsize": 0.1}
    run = {"local_steps": 2, "transform": optax.sgd(0.1), "transform_on": on}
    for started in (
        lambda: simulate(ALGORITHMS["fedavg"], problem, values, KEY, rounds=1, **run),
        lambda: iterate(ALGORITHMS["fedavg"], problem, values, KEY, iterations=1, **run),
        lambda: list(
            sweep(ALGORITHMS["fedavg"], problem, [values | {"local_steps": run.pop("local_steps")}], rounds=1, **run)
        ),
    ):
        with pytest.raises(ValueError, match="reverses the sign of the local direction"):
            started()


@pytest.mark.parametrize(
    "make",
    [
        optax.contrib.reduce_on_plateau,
        optax.polyak_sgd,
        optax.lbfgs,
        lambda: optax.chain(optax.clip(1.0), optax.contrib.reduce_on_plateau()),
        lambda: optax.masked(optax.clip(1.0), {"other": True}),
    ],
)
def test_what_wants_more_than_there_is(make):
    """The loss, say, which a local step does not have: one sentence, with what optax says of it."""
    with pytest.raises(ValueError, match=r"cannot be applied to a local direction, as .*: .+") as error:
        begin(make())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("transform", [optax.adam, optax.linear_schedule(0.1, 0.0, 10), "clip", 1.0, {}])
def test_what_is_no_transform(transform):
    with pytest.raises(
        ValueError, match=r"must be an optax transform, such as optax\.clip_by_global_norm\(1\.0\), not a"
    ):
        prepare(ALGORITHMS["fedavg"], {"stepsize": 0.1, "prob": 0.5}, np.float32, transform=transform)


def test_a_place_that_does_not_exist():
    with pytest.raises(ValueError, match="'gradients': did you mean 'gradient'"):
        prepare(
            ALGORITHMS["fedavg"],
            {"stepsize": 0.1, "prob": 0.5},
            np.float32,
            transform=optax.clip(1.0),
            transform_on="gradients",
        )


@pytest.mark.parametrize("make", [lambda: optax.trace(0.9), optax.scale_by_adam, optax.zero_nans])
def test_a_state_has_no_place_on_the_gradient(make):
    with pytest.raises(ValueError, match="must be stateless; use on='direction' for this one"):
        begin(make(), "gradient")
    begin(make())


@pytest.mark.parametrize("wrong", ["0.1", None, True, [0.1], 1j], ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("name", ["stepsize", "mu"])
def test_a_hyperparameter_that_is_no_number(name, wrong):
    values = {"stepsize": 0.1, "prob": 0.5, name: wrong}
    with pytest.raises(ValueError, match=f"{name} must be a single number, not"):
        prepare(ALGORITHMS["fedprox"], values, np.float32)


# --- what a transform is given -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["fedavg", "fednova", "scaffold", "feddst"])
def test_weight_decay_is_of_the_parameters(name):
    """Where x is more than these too: with no step size to speak of but for w's sake, x shrinks by (1 - gamma w).

    gamma = 1e-9 and w = 1e8: each step is x <- (1 - 0.1) x, but for what gradients of 1e-9 their size add.
    """
    quadratic = least_squares()
    values = hyper(name, stepsize=1e-9, sparsity=0.0)
    state, _ = simulate(
        ALGORITHMS[name],
        quadratic.problem,
        values,
        KEY,
        rounds=1,
        local_steps=1,
        transform=optax.add_decayed_weights(1e8),
    )
    method = prepare(ALGORITHMS[name], values, np.float64, local_steps=1)
    model = method.algorithm().model(state.server)
    start = quadratic.problem.init(jax.random.split(KEY, 4)[0])
    np.testing.assert_allclose(matrix(model), 0.9 * matrix(start), rtol=0, atol=1e-6)


def test_a_transform_sees_the_direction_that_is_to_be_followed_from_elsewhere():
    """From round(x) = (4, 2) along the sign of it, half a step: (3.5, 1.5); decay would be of (4, 2) as well."""

    def rounded(x, h, b, gradient, key):
        return Follow(gradient(jnp.round(x)), jnp.round(x))

    base = Algorithm(direction=rounded, move=lambda x, follow: descend(0.5)(follow.x, follow.d))
    for transform, due in ((optax.scale_by_sign(), [3.5, 1.5]), (optax.add_decayed_weights(1.0), [0, 0])):
        method = transformed(base, transform)
        h, b = method.init(jnp.array([4.2, 1.9]))
        x = method.start(b, h)
        x, _ = method.move(x, method.direction(x, h, b, lambda x: x, KEY))
        assert x.tolist() == due


@pytest.mark.usefixtures("x64")
def test_the_step_size_may_follow_a_schedule():
    """``scale_by_schedule``: with 1, 1/2, 0 and then 0, FedAvg of one step takes a step, half of one and rests."""
    quadratic = least_squares()
    run = partial(simulate, ALGORITHMS["fedavg"], quadratic.problem, {"stepsize": 0.1}, KEY, local_steps=1)
    schedule = optax.scale_by_schedule(optax.linear_schedule(1.0, 0.0, 2))
    x = matrix(quadratic.problem.init(jax.random.split(KEY, 4)[0]))
    for rounds, share in ((1, 1), (2, 0.5), (3, 0), (5, 0)):
        state, _ = run(rounds=rounds, transform=schedule)
        x = x - share * 0.1 * quadratic.gradients(x).mean(0)
        np.testing.assert_allclose(matrix(state.server), x, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_accumulated_directions_are_followed_together():
    """MultiSteps over two steps: FedAvg of two local steps goes along the mean of two gradients at the same x.

    Optax sums them in float32, of 24 bits.
    """
    quadratic = least_squares()
    every_second = optax.MultiSteps(optax.identity(), 2)
    state, _ = simulate(
        ALGORITHMS["fedavg"], quadratic.problem, {"stepsize": 0.1}, KEY, rounds=1, local_steps=2, transform=every_second
    )
    x = matrix(quadratic.problem.init(jax.random.split(KEY, 4)[0]))
    np.testing.assert_allclose(matrix(state.server), x - 0.1 * quadratic.gradients(x).mean(0), rtol=2**-23, atol=2**-23)
