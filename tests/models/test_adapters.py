"""Networks of flax.linen, flax.nnx, equinox and haiku run, with dropout of the client's key; state is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sps_jax as sps
from sps_jax.compression.leaves import names, weights
from sps_jax.models.adapters import network_of, outputs_of

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y, IDS, KEY = np.arange(12) % 3, np.arange(12) % 2, jax.random.key(0)
HYPER = dict(stepsize=0.1, sparsity=0.5)
HALF = 0.5


class Linen(nn.Module):
    """Two layers, and dropout if it is told that it trains."""

    features: list  # cannot be hashed
    norm: type | None = None

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(self.features[0])(x))
        x = self.norm(use_running_average=not train)(x) if self.norm else x
        return nn.Dense(self.features[1])(nn.Dropout(HALF, deterministic=not train)(x))


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, *, deterministic=False):
        return nn.Dense(3)(nn.Dropout(HALF)(nn.relu(nn.Dense(8)(x)), deterministic=deterministic))


class Nnx(nnx.Module):
    def __init__(self, rngs, rate=HALF):
        self.layers = nnx.List([nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)])
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.dropout(nnx.relu(self.layers[0](x))))


class WithMean(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


def equinox_net(key, extra=()):
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")

    class Net(eqx.Module):
        layers: list
        dropout: eqx.nn.Dropout

        def __call__(self, x, *, key=None):
            x = jax.nn.relu(self.layers[0](x))
            return self.layers[1](self.dropout(x, key=key))

    one, other = jax.random.split(key)
    return Net([eqx.nn.Linear(3, 8, key=one), eqx.nn.Linear(8, 3, key=other), *extra], eqx.nn.Dropout(HALF))


def haiku_pair(dropout=True, rng=True):
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")

    def forward(x, is_training):
        x = jax.nn.relu(hk.Linear(8)(x))
        if is_training and dropout:  # haiku's own needs promotion of dtypes, which the tests forbid
            x = jnp.where(jax.random.bernoulli(hk.next_rng_key(), HALF, x.shape), x / HALF, 0)
        return hk.Linear(3)(x)

    pair = hk.transform(forward)
    return pair if rng else hk.without_apply_rng(pair)


DROPPING = {
    "linen": lambda: Linen([8, 3]),
    "linen, deterministic": Deterministic,
    "nnx": lambda: Nnx(nnx.Rngs(0)),
    "nnx of a key": lambda: lambda key: Nnx(nnx.Rngs(key)),
    "equinox": lambda: equinox_net(KEY),
    "equinox of a key": lambda: equinox_net,
    "haiku": haiku_pair,
}
NAMES = {  # the weights, which are pruned by default
    "linen": ["params/Dense_0/kernel", "params/Dense_1/kernel"],
    "nnx": ["layers/0/kernel", "layers/1/kernel"],
    "equinox": ["layers/0/weight", "layers/1/weight"],
    "haiku": ["linear/w", "linear_1/w"],
}


@pytest.fixture(params=DROPPING)
def made(request):
    """A kind, a network of it, and its functions."""
    if request.param == "equinox of a key":  # whose function is called only later
        pytest.importorskip("equinox", reason="equinox is not installed")
    model = DROPPING[request.param]()
    return request.param, model, network_of(model, (3,), "float32")


def test_the_evaluation_drops_nothing_and_the_training_half(made):
    """The mean of 4000 draws of a scaled dropout is the output without it, as the layer after it is linear."""
    _, model, network = made
    assert network is network_of(model, (3,), "float32")  # or programs would be compiled again
    params = network.init(KEY)
    outputs = jax.jit(network.apply)(params, X)
    assert outputs.shape == (12, 3) and outputs_of(network, (3,), X.dtype, "float32").shape == (2, 3)
    train = jax.jit(jax.vmap(network.train, in_axes=(None, None, 0)))
    drawn = np.asarray(train(params, X, jax.random.split(KEY, 4000)))
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[0], train(params, X, jax.random.split(KEY, 4000)[:1])[0])
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - outputs) < 6 * error + 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("made", ["linen", "nnx of a key", "equinox", "haiku"], indirect=True)
def test_it_runs_and_its_weights_are_pruned(made):
    kind, model, network = made
    problem = sps.from_arrays(X, Y, IDS, model=model, test=(X, Y), batch_size=4)
    again = sps.from_arrays(X, Y, IDS, model=model, test=(X, Y), batch_size=4)
    assert jax.tree.structure(problem) == jax.tree.structure(again)
    params = problem.init(KEY)
    kept = names(params), jax.tree.leaves(params)
    found = [name for name, weight in zip(kept[0], weights(*kept), strict=True) if weight]
    assert found == NAMES[kind.split(" ")[0]]
    state, history = sps.simulate(sps.sparse_proxskip, problem, HYPER, KEY, rounds=2, local_steps=2)
    assert np.isfinite(history["train_loss"]).all() and history["density"][-1] < 0.75
    values = sps.model_of(sps.sparse_proxskip(prob=0.5, **HYPER), state)
    loss = -jax.nn.log_softmax(network.apply(values, X))[jnp.arange(12), Y].mean()  # without dropout
    np.testing.assert_allclose(history["test_loss"][-1], loss, rtol=1e-5)


def test_dropout_follows_the_key_the_client_and_the_step():
    """Two clients with the same data part in a step, and a run with another key is another run."""
    problem = sps.from_arrays(np.tile(X[:6], (2, 1)), np.tile(Y[:6], 2), np.repeat([0, 1], 6), model=Linen([8, 3]))
    params = problem.init(KEY)
    own = tuple(a[0] for a in problem.data)
    slope = jax.jit(lambda key: problem.gradient(own, problem.counts[0], jnp.int32(0), key, params))
    one, same, other = (jax.tree.leaves(slope(jax.random.key(seed))) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))
    runs = [sps.simulate(sps.gd, problem, {"stepsize": 0.1}, jax.random.key(seed), rounds=1)[0] for seed in (0, 0, 1)]
    one, same, other = (np.asarray(jax.tree.leaves(state.server)[0]) for state in runs)
    assert (one == same).all() and (one != other).any()


def test_the_gradient_is_that_of_the_dropped_network():
    """Over a full batch with padding: the mean over the client's own examples alone."""
    problem = sps.from_arrays(X[:5], Y[:5], [0, 0, 0, 1, 1], model=Linen([8, 3]))
    network, params = network_of(Linen([8, 3]), (3,), "float32"), problem.init(KEY)
    own = tuple(a[1] for a in problem.data)
    found = jax.grad(problem.local_loss(own, problem.counts[1], jnp.int32(0), KEY))(params)
    noise = jax.random.split(KEY)[1]

    def loss(params):  # three rows, as padded, so that the same entries are dropped
        z = network.train(params, own[0], noise)
        return -jax.nn.log_softmax(z)[jnp.arange(2), own[1][:2]].mean()

    for a, b in zip(*(jax.tree.leaves(tree) for tree in (found, jax.grad(loss)(params))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["nnx", "equinox"])
def test_a_module_starts_from_its_own_parameters_and_a_function_from_the_key(kind):
    make = equinox_net if kind == "equinox" else lambda key: Nnx(nnx.Rngs(key))
    module = make(KEY)
    for model, moves in ((module, False), (make, True)):
        init = jax.jit(network_of(model, (3,), "float32").init)
        one, other = (jax.tree.leaves(init(jax.random.key(seed))) for seed in (1, 2))
        assert any((a != b).any() for a, b in zip(one, other, strict=True)) == moves
    weight = module.layers[0].kernel[...] if kind == "nnx" else module.layers[0].weight
    start = network_of(module, (3,), "float32").init(KEY)["layers"]["0"]
    np.testing.assert_array_equal(start["kernel" if kind == "nnx" else "weight"], weight)


def test_a_module_that_was_changed_is_another():
    module = Nnx(nnx.Rngs(0))
    before = network_of(module, (3,), "float32")
    module.layers[0].kernel[...] = jnp.zeros((3, 8))
    after = network_of(module, (3,), "float32")
    assert before is not after and not after.init(KEY)["layers"]["0"]["kernel"].any()


def test_haiku_without_a_key():
    pair = haiku_pair(dropout=False, rng=False)
    network = network_of(pair, (3,), "float32")
    params = network.init(KEY)
    np.testing.assert_array_equal(network.apply(params, X), pair.apply(params, X, False))


def with_state(kind):
    if kind == "linen":
        return Linen([8, 3], nn.BatchNorm)
    if kind == "nnx":
        return WithMean(nnx.Rngs(0))
    if kind == "equinox":
        eqx = pytest.importorskip("equinox", reason="equinox is not installed")
        return equinox_net(KEY, [eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch")[0]])
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")
    return hk.transform_with_state(lambda x: hk.BatchNorm(True, True, 0.9)(x, True))


@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox", "haiku"])
def test_batch_norm_is_refused_with_its_reason(kind):
    with pytest.raises(
        ValueError, match=r"^the model keeps .* beside its parameters.*; use layers without state, such as"
    ):
        sps.from_arrays(X, Y, IDS, model=with_state(kind))


class Always(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Dropout(HALF, deterministic=False)(x))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Always(), "the model draws random numbers in evaluation too: let it take train or training or"),
        (Nnx, "not the class Nnx: make an instance of it"),
        (lambda key: 3, "a model that is one function must make a module of a key, not 3"),
        (3, "model must be functions .init, apply., an instance of a flax.linen module, or .*, not 3"),
        (lambda: 3, "a model that is one function must take a key alone"),
    ],
)
def test_what_is_no_model(model, says):
    with pytest.raises(ValueError, match=says):
        sps.from_arrays(X, Y, IDS, model=model)
