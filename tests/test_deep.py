"""Deep networks through the engine: every method, clipping, and what of them is pruned."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import hyper

from sps_jax.algorithms import ALGORITHMS
from sps_jax.compression import Sparsifier
from sps_jax.layout import Layout
from sps_jax.models import lstm, resnet, transformer
from sps_jax.problems.cifar10 import crop_and_flip
from sps_jax.problems.supervised import network_problem
from sps_jax.simulation.footprint import footprint, shapes
from sps_jax.simulation.method import prepare
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.simulate import run_rounds, simulate, start_rounds

CLIENTS, EXAMPLES, SYMBOLS = 3, 6, 12
HYPER = {"stepsize": 0.05, "sparsity": 0.8, "mu": 0.1, "l1": 1e-4}
HYPER |= {"gradient_prob": 0.9, "alpha": 0.5, "server_stepsize": 0.5, "epsilon": 0.1}
COMPARED = ("sparse_proxskip", "server_pruning", "proxskip")  # the others take minutes together
SLOW = pytest.mark.slow
plain = pytest.mark.usefixtures("plainly_compiled")
CLIP = optax.clip_by_global_norm(1.0)
NETWORKS = {
    "resnet": lambda: resnet((1, 1), 10, width=8, conv=nn.Conv),
    "lstm": lambda: lstm(SYMBOLS, embedding=4, width=8, depth=1),
    "transformer": lambda: transformer(SYMBOLS, length=7, width=8, depth=1, heads=2),
}


def problem_of(network, model=None, **options):
    """A few examples of each client, and as many held out; ``model`` in place of the small one."""
    generator = np.random.default_rng(3)
    rows = (CLIENTS + 1) * EXAMPLES
    if network == "resnet":  # a class has its own pattern
        y = generator.integers(0, 10, rows).astype(np.int32)
        x = (generator.normal(size=(10, 8, 8, 3))[y] + generator.normal(size=(rows, 8, 8, 3)) / 2).astype(np.float32)
    else:  # a symbol is followed by the next one of the alphabet
        x = generator.integers(0, SYMBOLS, (rows, 7)).astype(np.int32)
        y = (x + 1) % SYMBOLS
    train, test = (x[EXAMPLES:], y[EXAMPLES:]), (x[:EXAMPLES], y[:EXAMPLES])
    parts = [np.arange(EXAMPLES) + EXAMPLES * i for i in range(CLIENTS)]
    model = NETWORKS[network]() if model is None else model
    return network_problem("softmax", model, train, test, parts, **{"batch_size": 2} | options)


def chosen(name):
    return hyper(name, **HYPER)


@pytest.fixture
def plainly_compiled():
    """XLA's dear passes left out, for programs that run a second: a third less time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
@plain
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in COMPARED else [SLOW]) for name in ALGORITHMS])
def test_every_method_trains_every_network(name, network):
    problem = problem_of(network)
    state, history = simulate(
        ALGORITHMS[name],
        problem,
        chosen(name),
        jax.random.key(0),
        rounds=2,
        local_steps=None if name == "gd" else 2,
        transform=CLIP,
        layout=Layout(1),
    )
    begun = jax.eval_shape(problem.init, jax.random.key(0))
    method = prepare(ALGORITHMS[name], chosen(name), jnp.float32, local_steps=None if name == "gd" else 2)
    model = jax.jit(method.algorithm().model)(state.server)
    assert jax.tree.map(jnp.shape, model) == jax.tree.map(jnp.shape, begun)
    assert all(np.isfinite(column).all() for column in history.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model))
    assert 0 <= history["test_accuracy"][-1] <= 1 and history["test_loss"][-1] > 0
    if name not in ("server_pruning", "fedcomloc_global") and "control_sum" in history:
        assert history["control_sum"][-1] < 1e-3


def trained(problem, stepsize, transform, rounds=12):
    """Losses of Sparse-ProxSkip, before and after each round; the same program whatever the step size."""
    hyper = {"stepsize": stepsize, "sparsity": 0.5}
    run = partial(
        simulate, ALGORITHMS["sparse_proxskip"], local_steps=5, rounds=rounds, transform=transform, layout=Layout(1)
    )
    before = jax.jit(problem.objective)(problem.init(split_key(jax.random.key(0)).init))
    return np.array([before, *run(problem, hyper, jax.random.key(0))[1]["train_loss"]])


@plain
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_training_lowers_the_loss(network):
    losses = trained(problem_of(network), 1.0, CLIP)
    assert losses[-1] < 0.7 * losses[0]


@plain
@pytest.mark.slow
def test_clipping_keeps_a_residual_network_finite():
    """A step of 300 overflows within two rounds, and does not where it is clipped."""
    problem = problem_of("resnet")
    assert np.isnan(trained(problem, 300.0, None)[-1])
    assert np.isfinite(trained(problem, 300.0, CLIP)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "model"),
    [
        pytest.param("resnet", lambda: resnet((1, 1), 10, width=16), marks=SLOW),
        ("lstm", lambda: lstm(SYMBOLS, embedding=8, width=64, depth=2)),
        pytest.param("transformer", lambda: transformer(SYMBOLS, length=7, width=32, depth=2, heads=4), marks=SLOW),
    ],
)
def test_predicted_memory_counts_activations(network, model):
    """Near what XLA reserves, and rather above: it computes some of what is saved again, in transformers most."""
    problem = problem_of(network, model=model(), batch_size=16)
    method = prepare(ALGORITHMS["proxskip"], {"stepsize": 0.1}, jnp.float32, local_steps=2)
    key = jax.random.key(0)
    state = start_rounds(method, problem, key)
    run = run_rounds.lower(method, Layout(1), problem, state, key, jnp.zeros(1, bool)).compile()
    seen = run.memory_analysis()
    real = seen.argument_size_in_bytes + seen.temp_size_in_bytes + seen.output_size_in_bytes - seen.alias_size_in_bytes
    assert 0.8 < footprint(shapes(method, problem), problem, Layout(1)).total / real < 1.5


@pytest.mark.slow
@plain
@pytest.mark.parametrize("scope", ["global", "layerwise", "erk"])
def test_first_and_last_layer_can_stay_dense(scope):
    params = NETWORKS["transformer"]().init(jax.random.key(0))["params"]
    pruned = Sparsifier(scope=scope, prunable=("!first", "!last"))(params, 0.9)
    for name in params:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), params[name], pruned[name])
        assert all(jax.tree.leaves(same)) == (name in ("first", "last") or name.startswith("LayerNorm"))


@plain
@pytest.mark.parametrize("network", NETWORKS)
def test_evaluation_in_batches_is_the_same(network):
    whole, parted = problem_of(network), problem_of(network, evaluate_batch=4)
    params = jax.jit(whole.init)(jax.random.key(1))
    seen = jax.jit(whole.evaluate)(params)
    for layout in (Layout(), Layout(1)):
        for name, value in jax.jit(parted.evaluate, static_argnums=1)(params, layout).items():
            np.testing.assert_allclose(value, seen[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@plain
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
