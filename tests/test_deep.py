"""Deep networks through the engine: every method, clipping, and what of them is pruned."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sps_jax.algorithms import ALGORITHMS
from sps_jax.hyperparameters import prepare
from sps_jax.models import lstm, resnet, transformer
from sps_jax.plan import Plan
from sps_jax.problems.cifar10 import crop_and_flip
from sps_jax.problems.supervised import network_problem
from sps_jax.simulation import simulate
from sps_jax.sparsify import inner_matrices, make_topk

CLIENTS, EXAMPLES, SYMBOLS = 3, 6, 12
HYPER = {"stepsize": 0.05, "sparsity": 0.8, "mu": 0.1, "l1": 1e-4}
NETWORKS = {
    "resnet": lambda: resnet((1, 1), 10, width=8, side=8),
    "lstm": lambda: lstm(SYMBOLS, embedding=4, width=8, depth=1),
    "transformer": lambda: transformer(SYMBOLS, length=7, width=8, depth=1, heads=2),
}


def problem_of(network, **options):
    """A few random examples of each client, and as many held out."""
    generator = np.random.default_rng(3)
    rows = (CLIENTS + 1) * EXAMPLES
    if network == "resnet":
        x, y = generator.normal(size=(rows, 8, 8, 3)).astype(np.float32), generator.integers(0, 10, rows)
    else:
        x, y = generator.integers(0, SYMBOLS, (2, rows, 7)).astype(np.int32)
    y = y.astype(np.int32)
    train, test = (x[EXAMPLES:], y[EXAMPLES:]), (x[:EXAMPLES], y[:EXAMPLES])
    parts = [np.arange(EXAMPLES) + EXAMPLES * i for i in range(CLIENTS)]
    return network_problem("softmax", NETWORKS[network](), train, test, parts, **{"batch_size": 2} | options)


def chosen(name):
    takes = inspect.signature(ALGORITHMS[name]).parameters
    return {key: value for key, value in HYPER.items() if key in takes}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_method_trains_every_network(name, network):
    problem = problem_of(network)
    state, history = simulate(
        ALGORITHMS[name],
        problem,
        chosen(name),
        jax.random.key(0),
        rounds=2,
        local_steps=None if name == "gd" else 2,
        transform=optax.clip_by_global_norm(1.0),
        plan=Plan(1),
    )
    begun = jax.eval_shape(problem.init, jax.random.key(0))
    setup, hyper, _ = prepare(ALGORITHMS[name], chosen(name), jnp.float32, local_steps=None if name == "gd" else 2)
    model = jax.jit(setup.build(hyper).model)(state.server)
    assert jax.tree.map(jnp.shape, model) == jax.tree.map(jnp.shape, begun)
    assert all(np.isfinite(column).all() for column in history.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model))
    assert 0 <= history["test_accuracy"][-1] <= 1 and history["test_loss"][-1] > 0
    if name not in ("server_pruning",) and "control_sum" in history:
        assert history["control_sum"][-1] < 1e-3


@pytest.mark.parametrize("scope", ["global", "layerwise", "erk"])
def test_first_and_last_layer_can_stay_dense(scope):
    params = NETWORKS["transformer"]().init(jax.random.key(0))["params"]
    pruned = make_topk(scope, inner_matrices)(params, 0.9)
    for name in params:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), params[name], pruned[name])
        assert all(jax.tree.leaves(same)) == (name in ("first", "last") or name.startswith("LayerNorm"))


@pytest.mark.parametrize("network", NETWORKS)
def test_evaluation_in_batches_is_the_same(network):
    whole, parted = problem_of(network), problem_of(network, evaluate_batch=4)
    params = jax.jit(whole.init)(jax.random.key(1))
    seen = jax.jit(whole.evaluate)(params)
    for plan in (Plan(), Plan(1)):
        for name, value in jax.jit(parted.evaluate, static_argnums=1)(params, plan).items():
            np.testing.assert_allclose(value, seen[name], rtol=1e-5, atol=1e-6)


def test_some_examples_of_each_client_stand_for_the_training_loss():
    problem, few = problem_of("lstm"), problem_of("lstm", evaluate_examples=2)
    params = problem.init(jax.random.key(1))
    losses = [problem.loss(params, problem.data[0][i, :2], problem.data[1][i, :2]).mean() for i in range(CLIENTS)]
    np.testing.assert_allclose(few.objective(params), np.mean(losses), rtol=1e-6)


def test_crop_and_flip_moves_each_image_within_its_margin():
    images = jnp.asarray(np.random.default_rng(0).integers(1, 256, (40, 10, 12, 3)), jnp.uint8)
    labels = jnp.arange(40, dtype=jnp.int32)
    changed, kept = crop_and_flip(jax.random.key(0), images, labels)
    assert changed.shape == images.shape and changed.dtype == jnp.uint8
    np.testing.assert_array_equal(kept, labels)
    wide = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    seen = set()
    for before, after in zip(wide, np.asarray(changed), strict=True):
        found = [
            (i, j, mirrored)
            for i in range(9)
            for j in range(9)
            for mirrored in (False, True)
            if (before[i : i + 10, j : j + 12][:, :: -1 if mirrored else 1] == after).all()
        ]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) > 25 and {mirrored for _, _, mirrored in seen} == {True, False}
