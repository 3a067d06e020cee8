"""Which leaves are pruned: of networks as their libraries make them, by patterns, and what is said where none is."""

import dataclasses
import json
from functools import cache, partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sps_jax as sps
from sps_jax import models
from sps_jax.algorithms import ALGORITHMS
from sps_jax.cli.from_options import pruned_leaves
from sps_jax.cli.option_checks import check_names, refuse_strangers
from sps_jax.cli.options import Run, command_type
from sps_jax.cli.resume import options_of
from sps_jax.cli.sweep_options import points, sweep_type
from sps_jax.compression import SCOPES, Sparsifier, kept, topk
from sps_jax.compression.leaves import chosen, fits, names
from sps_jax.problems import quadratic
from sps_jax.simulation.simulate import run_rounds

KEY = jax.random.key(0)
X = jnp.ones((2, 6, 8))  # (b, length, features)


class Block(nn.Module):
    """Attention, normalisation and two layers, as the carry of a scan."""

    @nn.compact
    def __call__(self, x: jax.Array, _: Any = None) -> tuple[jax.Array, None]:
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
        return x + nn.Dense(8)(nn.Dense(12)(nn.RMSNorm()(x))), None


BLOCK = {"Dense_0/kernel", "Dense_1/kernel", *(f"attention/{name}/kernel" for name in ("query", "key", "value", "out"))}


class Stacked(nn.Module):
    """Three blocks, one stack of parameters: by ``nn.scan``."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return scanned(name="layers")(x)[0]


class Heads(nn.Module):
    """Four blocks side by side: by ``nn.vmap``."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mapped = nn.vmap(Block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=4)
        return mapped(name="heads")(x)[0]


class Layer(nnx.Module):
    """A linear layer and a normalisation, of flax's newer kind."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear, self.ln1 = nnx.Linear(8, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False)


class Network(nnx.Module):
    """An embedding and a stack of three layers: by ``nnx.vmap``."""

    def __init__(self):
        self.embed = nnx.Embed(5, 8, rngs=nnx.Rngs(1))
        self.layers = nnx.vmap(lambda rngs: Layer(rngs=rngs))(nnx.Rngs(0).split(3))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Weighted:
    """A layer as equinox has them: attributes ``weight`` and ``bias``, of a LayerNorm too."""

    weight: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Cell:
    """A recurrent cell of equinox, with a LayerNorm."""

    weight_ih: Any
    weight_hh: Any
    bias_n: Any
    norm1: Any


def linen(module, *inputs):
    return lambda: module.init(KEY, *(inputs or (X,)))


def equinox(*stack):
    linear = Weighted(jnp.ones((*stack, 4, 3)), jnp.ones((*stack, 4)))
    norm = Weighted(jnp.ones((*stack, 4)), jnp.ones((*stack, 4)))
    cell = Cell(jnp.ones((*stack, 12, 4)), jnp.ones((*stack, 12, 4)), jnp.ones((*stack, 4)), norm)
    return {"layers": [linear, cell]}


def haiku(*stack):
    dense = {"w": jnp.ones((*stack, 3, 4)), "b": jnp.ones((*stack, 4))}
    gru = {"w_i": jnp.ones((*stack, 3, 12)), "w_h": jnp.ones((*stack, 4, 12)), "b": jnp.ones((*stack, 12))}
    norm = {"scale": jnp.ones((*stack, 4)), "offset": jnp.ones((*stack, 4))}
    return {"mlp/~/linear_0": dense, "gru": gru, "mlp/~/layer_norm": norm, "embed": {"embeddings": jnp.ones((9, 3))}}


def by_hand(*stack):
    """GPT-2 in dictionaries, and the names of open language models."""
    dense, norm = (
        {"w": jnp.ones((*stack, 3, 4)), "b": jnp.ones((*stack, 4))},
        {n: jnp.ones((*stack, 4)) for n in "gb"},
    )
    named = {"wq": jnp.ones((*stack, 4, 4)), "bq": jnp.ones((*stack, 4)), "attn_norm": jnp.ones((*stack, 4))}
    return {"mlp": {"c_fc": dense}, "ln_1": norm, "attention": named, "wte": jnp.ones((9, 3))}


EQUINOX = {"layers/0/weight", "layers/1/weight_ih", "layers/1/weight_hh"}
HAIKU = {"mlp/~/linear_0/w", "gru/w_i", "gru/w_h", "embed/embeddings"}
BY_HAND = {"mlp/c_fc/w", "attention/wq", "wte"}
LSTM = {f"params/{a}{b}/kernel" for a in "ih" for b in "ifgo"}
IMAGE = jnp.ones((2, 6, 6, 3))
CELLS = {"lstm": nn.OptimizedLSTMCell, "plain lstm": nn.LSTMCell, "gru": nn.GRUCell}

TABLE = {  # structure -> its parameters, and the names of the leaves that are pruned
    "dense": (linen(nn.Dense(4)), {"params/kernel"}),
    "dense general": (linen(nn.DenseGeneral((2, 3))), {"params/kernel"}),
    "convolution": (linen(nn.Conv(4, (3, 3)), IMAGE), {"params/kernel"}),
    "a kernel each pixel": (linen(nn.ConvLocal(4, (3, 3)), IMAGE), {"params/kernel"}),  # its bias is (4, 4, 4)
    "transposed": (linen(nn.ConvTranspose(4, (3, 3)), IMAGE), {"params/kernel"}),
    "embedding": (linen(nn.Embed(9, 4), jnp.ones((2, 3), jnp.int32)), {"params/embedding"}),
    "attention": (
        linen(nn.MultiHeadDotProductAttention(2, normalize_qk=True), X),
        {f"params/{name}/kernel" for name in ("query", "key", "value", "out")},
    ),
    "weight norm": (linen(nn.WeightNorm(nn.Dense(4))), {"params/layer_instance/kernel"}),
    "partitioned": (
        linen(nn.Dense(4, kernel_init=nn.with_partitioning(nn.initializers.ones, (None, None)))),
        {"params/kernel"},
    ),
    "block": (linen(Block()), {f"params/{name}" for name in BLOCK}),
    "scanned": (linen(Stacked()), {f"params/layers/{name}" for name in BLOCK}),
    "mapped": (linen(Heads()), {f"params/heads/{name}" for name in BLOCK}),
    "nnx": (
        lambda: nnx.state(Network(), nnx.Param),
        {"embed/embedding", "layers/linear/kernel"}
        | {f"layers/attention/{name}/kernel" for name in ("query", "key", "value", "out")},
    ),
    "equinox": (equinox, EQUINOX),
    "equinox, stacked": (partial(equinox, 5), EQUINOX),
    "haiku": (haiku, HAIKU),
    "haiku, stacked": (partial(haiku, 5), HAIKU),
    "by hand": (by_hand, BY_HAND),
    "by hand, stacked": (partial(by_hand, 5), BY_HAND),
    "w and b": (lambda: {"w": jnp.ones((5, 3)), "b": jnp.ones(3)}, {"w"}),
    "numbered": (lambda: {"W1": jnp.ones((7, 5, 3)), "b1": jnp.ones((7, 3))}, {"W1"}),
    "low rank": (lambda: {"W": jnp.ones((4, 4)), "a": jnp.ones((4, 1)), "b": jnp.ones((1, 4))}, {"W", "a", "b"}),
    "lists": (lambda: [jnp.ones((5, 3)), jnp.ones(3)], {"0"}),
    "pre-norm": (lambda: {"PreNorm_0": {"Dense_0": {"kernel": jnp.ones((4, 4))}}}, {"PreNorm_0/Dense_0/kernel"}),
    "a matrix": (lambda: jnp.ones((5, 3)), {""}),
    "a vector": (lambda: jnp.ones(5), {""}),
    "a vector and a number": (lambda: {"w": jnp.ones(5), "b": jnp.ones(())}, {"w"}),
    "a vector and one of one": (lambda: {"w": jnp.ones(5), "b": jnp.ones(1)}, {"w"}),
    "vectors": (lambda: {"coef": jnp.ones(5), "intercept": jnp.ones(1), "more": jnp.ones(2)}, {"coef", "more"}),
    "a number beside": (lambda: {"w": jnp.ones((5, 1)), "temperature": jnp.ones(())}, {"w"}),
    "least squares": (lambda: quadratic().init(KEY), {"x"}),
}
for cell, make in CELLS.items():
    gates = {"params/ir/kernel", "params/iz/kernel", "params/in/kernel"} | {f"params/h{g}/kernel" for g in "rzn"}
    TABLE[cell] = (
        linen(nn.RNN(make(4, name="cell"))),
        {name.replace("params/", "params/cell/") for name in (gates if cell == "gru" else LSTM)},
    )


@cache
def structure(case):
    """The parameters, random, and which are pruned."""
    make, wanted = TABLE[case]
    leaves, treedef = jax.tree.flatten(make())
    drawn = (jax.random.normal(jax.random.fold_in(KEY, i), leaf.shape) for i, leaf in enumerate(leaves))
    return jax.tree.unflatten(treedef, list(drawn)), wanted


@pytest.mark.parametrize("case", TABLE)
def test_weights_are_pruned_and_nothing_else(case):
    """K = max(1, round(0.25 d)) of the d entries of those leaves are left; of the others every entry."""
    params, wanted = structure(case)
    shapes = jax.eval_shape(lambda: params)
    found = Sparsifier().leaves(params)
    assert found == Sparsifier().leaves(shapes) and found.keys() == wanted
    after = jax.jit(topk)(params, np.float32(0.75))
    left = 0
    for name, a, b in zip(names(params), jax.tree.leaves(params), jax.tree.leaves(after), strict=True):
        if name in wanted:
            assert found[name] == a.size
            left += int(np.count_nonzero(b))
        else:
            np.testing.assert_array_equal(a, b)
    assert left == kept(0.75, sum(found.values()))


@pytest.mark.parametrize("case", ["scanned", "attention", "a vector", "equinox, stacked"])
def test_messages_are_counted_by_the_same_leaves(case):
    """Rows: of a pruned leaf with k rows that are not zero all numbers at k positions, others' nonzeros at their own.

    A pair of models, as SCAFFOLD sends, costs twice one.
    """
    params, wanted = structure(case)
    code = Sparsifier(structure="rows").code
    values = positions = places = 0
    for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True):
        rows = leaf.size // leaf.shape[-1] if name in wanted else leaf.size
        values, positions, places = values + leaf.size, positions + rows, places + rows
    assert tuple(map(int, code.count(params, None))) == (values, positions)
    assert code.size(params).places == places
    pair = code.count((params, params), None), code.size((params, params))
    assert tuple(map(int, pair[0])) == (2 * values, 2 * positions) and pair[1].places == 2 * places


KERNELS = "params/{}/kernel".format
OURS = {  # what was pruned when the number of axes decided; without the ends these are kept dense
    "linear": (models.linear(4, 3), {"params/kernel"}, set()),
    "lstm": (
        models.lstm(65),
        {KERNELS(f"layer_{layer}/{a}{b}") for layer in (0, 1) for a in "ih" for b in "ifgo"},
        {"params/first/embedding", "params/last/kernel"},
    ),
    "transformer": (
        models.transformer(65),
        {KERNELS(f"Attention_{i}/{name}") for i in (0, 1) for name in ("out", "query_key_value")}
        | {KERNELS(f"Dense_{i}") for i in range(4)}
        | {"params/positions/embedding"},
        {"params/first/embedding", "params/last/kernel"},
    ),
    "resnet18": (
        models.resnet18(),
        {KERNELS(f"Block_{b}/Conv_{c}") for b in range(8) for c in range(3 if b in (2, 4, 6) else 2)},
        {"params/first/kernel", "params/last/kernel"},
    ),
}


def problem_of(init):
    return dataclasses.replace(quadratic(clients=2, dimension=2), init=init)


@pytest.mark.parametrize("name", OURS)
def test_our_networks_are_pruned_as_before(name):
    """The leaves with more than one axis, to the entry; ``--no-prune-ends`` leaves two out."""
    model, inner, ends = OURS[name]
    leaves = jax.tree.leaves(jax.eval_shape(model.init, KEY))
    found = pruned_leaves(Run(), problem_of(model.init))
    assert len(found["leaves"]) == len(inner | ends) and set(found["leaves"]) == inner | ends
    assert found["entries"] == sum(leaf.size for leaf in leaves if leaf.ndim > 1)
    assert found["of"] == sum(leaf.size for leaf in leaves)
    if ends:
        assert set(pruned_leaves(Run(prune_ends=False), problem_of(model.init))["leaves"]) == inner


# --- patterns -----------------------------------------------------------------------------------------------------

PARAMS = {"first": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "Dense_10": {"kernel": jnp.ones((3, 3))}}
PARAMS |= {"last": [jnp.ones((3, 2)), jnp.ones(2)]}
NAMES = ["Dense_10/kernel", "first/bias", "first/kernel", "last/0", "last/1"]


@pytest.mark.parametrize(
    ("prunable", "wanted"),
    [
        ("kernel", ["Dense_10/kernel", "first/kernel"]),
        ("*/kernel", ["Dense_10/kernel", "first/kernel"]),
        ("/first/", ["first/bias", "first/kernel"]),
        ("!first", ["Dense_10/kernel", "last/0"]),
        (["!first", "!last"], ["Dense_10/kernel"]),
        (("first", "!bias"), ["first/kernel"]),
        (("!bias", "first"), ["first/kernel"]),
        (("bias", "last/?"), ["first/bias", "last/0", "last/1"]),
        ("Dense_*", ["Dense_10/kernel"]),
        ("f*l", ["first/kernel"]),
        ("*", NAMES),
        (lambda path, leaf: leaf.size == 6, ["first/kernel", "last/0"]),
        (None, ["Dense_10/kernel", "first/kernel", "last/0"]),
    ],
)
def test_patterns(prunable, wanted):
    prune = Sparsifier(prunable=prunable)
    assert list(prune.leaves(PARAMS)) == wanted
    after = prune(PARAMS, 0.9)
    touched = [n for n, leaf in zip(NAMES, jax.tree.leaves(after), strict=True) if np.count_nonzero(leaf) < leaf.size]
    assert set(wanted[1:]) <= set(touched) <= set(wanted)  # the one entry that is left is in the first
    message = chosen((PARAMS, PARAMS, jnp.ones(())), prune.prunable)
    assert message == 2 * [name in wanted for name in NAMES] + [prunable == "*"]


def test_a_pattern_fits_whole_names():
    assert not any(fits(p, "params/Dense_0/kernel") for p in ("Dense", "ernel", "Kernel", "Dense_0/params", "0/kernel"))
    assert fits("*", "") and not fits("x", "")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("pattern", ["kernl", "!fist", ("kernel", "Dense_1")])
def test_a_pattern_that_fits_nothing_is_refused(pattern, scope):
    prune = Sparsifier(scope=scope, prunable=pattern)
    message = r"the pattern '.*' matches no leaf of the model; its leaves are Dense_10/kernel \(3, 3\)"
    for ask in (prune.leaves, jax.jit(prune).trace):
        with pytest.raises(ValueError, match=message):
            ask(PARAMS) if ask == prune.leaves else ask(PARAMS, np.float32(0))


@pytest.mark.parametrize("wrong", ["", "!", "/", (), [], ("kernel", ""), 5, {"kernel"}, ("kernel", None)])
def test_what_is_no_pattern_is_refused(wrong):
    with pytest.raises(ValueError, match="prunable must be patterns such as 'kernel'"):
        Sparsifier(prunable=wrong)


def test_many_leaves_are_not_all_named():
    params = {f"scale{i:03}": jnp.ones(2) for i in range(100)}
    with pytest.raises(ValueError, match=r"scale029 \(2,\), and 70 more"):
        Sparsifier().leaves(params)


def test_equal_patterns_are_the_same_program():
    """A jitted function with the sparsifier as a static argument, and a whole simulation."""
    traced = chex.assert_max_traces(lambda prune, x, s: prune(x, s), n=2)
    pruned = jax.jit(traced, static_argnums=0)
    for patterns in ("kernel", ["kernel"], ("kernel",), "".join(["ker", "nel"])):
        pruned(Sparsifier(prunable=patterns), PARAMS, np.float32(0.5))
    pruned(Sparsifier(prunable="first"), PARAMS, np.float32(0.5))
    assert Sparsifier(prunable=["!a", "b"]) == Sparsifier(prunable=("!a", "b")) != Sparsifier(prunable=("b", "!a"))
    programs, problem = [], quadratic(clients=2)
    for patterns in ("x", ["x"]):
        hyper = {"stepsize": 0.5, "sparsity": 0.5, "prune": Sparsifier(prunable=patterns)}
        sps.simulate(sps.sparse_proxskip, problem, hyper, KEY, rounds=1, local_steps=1)
        programs.append(run_rounds._cache_size())
    assert programs[0] == programs[1]


# --- the whole model ----------------------------------------------------------------------------------------------


def half_squares(x, a, y):
    return (a @ x - y) ** 2 / 2


@cache
def flat_problem():
    """Least squares whose parameters are one vector of 20."""
    generator = np.random.default_rng(0)
    a = jnp.asarray(generator.normal(size=(3, 30, 20)), jnp.float32)
    y = a @ jnp.asarray(generator.normal(size=20), jnp.float32)
    counts = jnp.full(3, 30, jnp.int32)
    return sps.Problem((a, y), counts, None, jnp.float32(0), init=lambda key: jnp.zeros(20), loss=half_squares)


@pytest.mark.parametrize("name", ["sparse_proxskip", "server_pruning", "fedavg_client_pruning"])
def test_a_model_that_is_one_vector_is_pruned(name):
    """5 of 20 numbers are left: density 1/4."""
    hyper = {"stepsize": 0.05, "sparsity": 0.75}
    _, history = sps.simulate(ALGORITHMS[name], flat_problem(), hyper, KEY, rounds=3, local_steps=2)
    np.testing.assert_allclose(history["density"], 0.25)


# --- nothing to prune ---------------------------------------------------------------------------------------------


def scaled(params, a, y):
    return (a[:, 0] * params["norm"]["scale"][None] - y) ** 2 / 2 + 0 * params["bias"][None]


@cache
def dense_problem():
    """A model of a scale and a bias."""
    init = lambda key: {"norm": {"scale": jnp.ones(())}, "bias": jnp.ones((1, 1))[0, 0]}  # noqa: E731
    return dataclasses.replace(flat_problem(), init=init, loss=scaled)


HYPER = {"stepsize": 0.1, "sparsity": 0.5, "prob": 0.5}
ENTRIES = {
    "simulate": lambda make, p: sps.simulate(make, p, HYPER, KEY, rounds=1),
    "iterate": lambda make, p: sps.iterate(make, p, HYPER, KEY, iterations=1),
    "sweep": lambda make, p: list(sps.sweep(make, p, sps.grid(**HYPER | {"sparsity": [0.0, 0.5]}), rounds=1)),
    "stream": lambda make, p: sps.stream(make, p, HYPER, KEY, rounds=1, cohort=2),
    "a ramp": lambda make, p: sps.simulate(make, p, HYPER | {"sparsity_rounds": 2}, KEY, rounds=1),
}


def of_ones_own(*, stepsize, prob, sparsity):
    """A method without a sparsifier among its hyperparameters."""
    return sps.pruned(sps.fedavg(stepsize=stepsize, prob=prob), topk, sparsity, uplink=True)


@pytest.mark.parametrize("make", [sps.sparse_proxskip, sps.server_pruning, sps.feddst, sps.fedcomloc_com, of_ones_own])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_sparsity_that_finds_nothing_is_refused(entry, make):
    """In one sentence with the leaves there are and what to do."""
    with pytest.raises(ValueError) as error:
        ENTRIES[entry](make, dense_problem())
    assert "no leaf of this model would be pruned: all are" in str(error.value)
    assert "scalars: bias (), norm/scale (); choose leaves, with" in str(error.value)


def test_what_was_asked_for_can_leave_nothing():
    for prunable in (lambda path, leaf: False, ("kernel", "!kernel")):
        prune = Sparsifier(prunable=prunable)
        for ask in (prune.leaves, lambda x, prune=prune: prune(x, 0.5)):
            with pytest.raises(ValueError, match=r"prunable chooses none of them: Dense_10/kernel \(3, 3\)"):
                ask(PARAMS)


def test_a_sparsity_that_is_known_to_be_zero_needs_nothing():
    for x in ({"scale": jnp.ones((2, 3))}, {"norm": {"weight": jnp.ones(4)}}, jnp.ones(())):
        for zero in (0, 0.0, np.float32(0), jnp.float32(0)):
            chex.assert_trees_all_equal(topk(x, zero), x)
        with pytest.raises(ValueError, match="no leaf of this model would be pruned"):
            topk(x, 0.5)


# --- the command line ---------------------------------------------------------------------------------------------

SMALL = ("--rounds", "2", "--clients", "4")


@pytest.mark.slow
def test_command_line(tmp_path, shell):
    """The setting and what was pruned are in config.json, and ``resume`` makes the same options of it."""
    options = [*SMALL, "--algorithm", "sparse_proxskip", "--prune-leaves", "bias", "kernel", "--sparsity", "0.5"]
    done = shell("run", *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pruned"] == {"leaves": ["params/bias", "params/kernel"], "entries": 650, "of": 650}
    assert options_of(config["settings"], tmp_path).prune_leaves == ("bias", "kernel")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--prune-leaves", "kernl"],
            "the pattern 'kernl' matches no leaf of the model; its leaves are params/bias (10,), params/ker",
        ),
        (["--prune-leaves", "bias", "!params"], "chooses none of them: params/bias (10,), params/kernel (10, 64)"),
        (["--prune-leaves", ""], "prunable must be patterns such as 'kernel'"),
        (
            ["--prune-leaves", "kernel", "--algorithm", "gd"],
            "--prune-leaves is not an option of the chosen problem and algorithms (digits, gd)",
        ),
        (["--no-prune-ends", "--prune-leaves", "kernel"], "--no-prune-ends needs a network of several layers"),
    ],
)
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_wrong_patterns_on_the_command_line(name, arguments, message, tmp_path, command):
    done = command(name, *SMALL, *arguments)
    assert done.returncode == 2 and message in " ".join((done.stdout + done.stderr).split())
    assert list(tmp_path.iterdir()) == []


def test_options_reach_the_sparsifier():
    run = command_type()(prune_leaves=("kernel", "!Conv_0"), prune_ends=False)
    check_names(run)
    refuse_strangers(run)
    found = pruned_leaves(run, problem_of(OURS["resnet18"][0].init))["leaves"]
    assert set(found) == {name for name in OURS["resnet18"][1] if "Conv_0" not in name}
    swept = points(sweep_type()(prune_leaves=("kernel",), sparsity=("0.5", "0.9")))
    assert {one.prune_leaves for _, one in swept} == {("kernel",)}
