"""Criteria, structures and the growing sparsity: against NumPy twins, bits by hand, and in simulations."""

import json
from functools import cache, partial

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sps_jax.algorithms import ALGORITHMS, RoundInfo, fedavg, proxskip, pruned, ramped, scaffold
from sps_jax.algorithms.ramped import cubic
from sps_jax.cli.option_checks import check_names, refuse_strangers
from sps_jax.cli.options import Run
from sps_jax.cli.sweep_options import points, sweep_type
from sps_jax.compression import CRITERIA, Sparsifier, topk
from sps_jax.compression.bits import FLOATS, KNOWN, SHARED_POSITIONS, message_bits
from sps_jax.compression.criteria import random
from sps_jax.compression.structures import Groups, Tiles, structure
from sps_jax.problems import digits
from sps_jax.results.files import read_jsonl
from sps_jax.simulation.method import prepare
from sps_jax.simulation.simulate import run_rounds, simulate
from sps_jax.simulation.step import iterate
from sps_jax.simulation.sweep import grid, sweep

KEY = jax.random.key(3)
SHAPES = {"a": (5, 7), "c": (2, 1, 3, 4), "d": (6, 2)}
SPELLED = ["entries", "rows", "filters", "blocks:2x3", "blocks:4x4", "groups:4"]


def model(seed=0):
    """Multiples of 1/8, whose sums are exact and of which many are equal."""
    generator = np.random.default_rng(seed)
    params = {name: generator.integers(-20, 21, shape).astype(np.float32) / 8 for name, shape in SHAPES.items()}
    return params | {"bias": np.arange(4, dtype=np.float32)}


# --- a twin in NumPy ----------------------------------------------------------------------------------------------


def blocks(spelled, shape):
    """The blocks of a leaf, flat indices each."""
    index = np.arange(np.prod(shape)).reshape(-1, shape[-1])
    if spelled == "entries":
        return list(index.reshape(-1, 1))
    if spelled == "rows":
        return list(index)
    if spelled == "filters":
        return list(index.T)
    r, c = map(int, spelled.split(":")[1].split("x"))
    corners = [(i, j) for i in range(0, len(index), r) for j in range(0, shape[-1], c)]
    return [index[i : i + r, j : j + c].ravel() for i, j in corners]


def largest(scores, k):
    return np.argsort(-np.asarray(scores), kind="stable")[:k]


def kept_of(sparsity, n):
    return max(1, round(float((np.float32(1) - np.float32(sparsity)) * np.float32(n))))


def expected(params, scores, sparsity, spelled, scope):
    """``params`` with the blocks of largest mean magnitude of ``scores``, dicts of NumPy arrays."""
    masks = {name: np.zeros(params[name].size, bool) for name in SHAPES}
    flat = {name: np.abs(scores[name]).ravel() for name in SHAPES}
    if spelled.startswith("groups:"):
        size = int(spelled[7:])
        for name, s in flat.items():
            for first in range(0, s.size, size):
                masks[name][first + largest(s[first : first + size], kept_of(sparsity, size))] = True
    else:
        found = [(name, block) for name in SHAPES for block in blocks(spelled, SHAPES[name])]
        means = [flat[name][block].sum() / np.float32(block.size) for name, block in found]
        parts = [found] if scope == "global" else [[b for b in found if b[0] == name] for name in SHAPES]
        for part in parts:
            own = [mean for mean, b in zip(means, found, strict=True) if scope == "global" or b[0] == part[0][0]]
            for i in largest(own, kept_of(sparsity, len(part))):
                masks[part[i][0]][part[i][1]] = True
    return params | {name: np.where(m.reshape(SHAPES[name]), params[name], 0) for name, m in masks.items()}


def scores_of(criterion, params, gradient):
    if criterion == "random":
        drawn = random([params[name] for name in SHAPES], None)
        return dict(zip(SHAPES, map(np.asarray, drawn), strict=True))
    return params if criterion == "magnitude" else {name: params[name] * gradient[name] for name in SHAPES}


CASES = [(criterion, spelled, "global") for criterion in CRITERIA for spelled in SPELLED]
CASES += [("magnitude", spelled, "layerwise") for spelled in ("rows", "blocks:2x3", "groups:33")]


@pytest.mark.parametrize(("criterion", "spelled", "scope"), CASES)
def test_against_numpy(criterion, spelled, scope):
    """Every entry, exactly; other leaves, dtypes and kept bits stay."""
    prune = jax.jit(Sparsifier(criterion, spelled, scope))
    for seed, sparsity in enumerate((0.0, 0.4, 0.75, 0.99)):
        params, gradient = model(seed), model(seed + 10)
        got = prune(params, np.float32(sparsity), gradient)
        want = expected(params, scores_of(criterion, params, gradient), sparsity, spelled, scope)
        jax.tree.map(np.testing.assert_array_equal, got, want)
        assert all(leaf.dtype == np.float32 for leaf in got.values())
    assert prune._cache_size() == 1


def test_weights_rank_where_there_is_no_gradient():
    params = model()
    prune = jax.jit(Sparsifier("weight_gradient", "rows"))
    want = expected(params, params, 0.5, "rows", "global")
    jax.tree.map(np.testing.assert_array_equal, prune(params, np.float32(0.5)), want)


def test_erk_densities_of_blocks():
    """Small layers keep more: the densities are those of the entries, the numbers kept those of rows."""
    x = {"a": jnp.ones((40, 30)), "b": jnp.ones((6, 5))}
    y = jax.jit(Sparsifier(structure="rows", scope="erk"))(x, jnp.float32(0.8))
    scale = 0.2 * 1230 / (70 + 11)
    for name, total in (("a", 70 / 1200), ("b", 11 / 30)):
        rows = np.asarray(y[name]).any(1)
        assert rows.sum() == round(min(1, scale * total) * len(rows))
        assert np.asarray(y[name])[rows].all()


def test_a_criterion_of_ones_own_is_a_function():
    def smallest(params, gradient):
        return jax.tree.map(lambda w: 1 / (1 + jnp.abs(w)), params)

    y = jax.jit(Sparsifier(smallest))({"w": jnp.asarray([[3.0, -1.0], [0.5, 2.0]])}, jnp.float32(0.5))
    assert y["w"].tolist() == [[0, -1], [0.5, 0]]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_stays(dtype):
    x = {"w": jnp.asarray(np.arange(12).reshape(3, 4), dtype)}
    for criterion, spelled in (("magnitude", "rows"), ("random", "2:4")):
        y = jax.jit(Sparsifier(criterion, spelled))(x, jnp.asarray(0.5, dtype))["w"]
        assert y.dtype == dtype and 4 <= np.count_nonzero(np.asarray(y, np.float32)) <= 8


def test_nan_is_never_pruned_away_unseen():
    x = np.ones((4, 4), np.float32)
    x[2, 1], x[0] = np.nan, 5
    for spelled in ("rows", "blocks:2x2", "groups:16"):
        assert np.isnan(jax.jit(Sparsifier(structure=spelled))({"w": x}, np.float32(0.99))["w"]).any()


choose = jax.jit(Groups(5).choose)
halves = st.integers(-6, 6).map(lambda i: np.float32(i / 2))


@settings(database=None, max_examples=100)
@given(hnp.arrays(np.float32, 13, elements=halves), st.integers(1, 5))
def test_groups_keep_n_of_each(scores, n):
    mask = np.asarray(choose(scores, np.float32(1 - n / 5)))
    for first in (0, 5, 10):
        own = scores[first : first + 5]
        assert np.flatnonzero(mask[first : first + 5]).tolist() == sorted(largest(np.abs(own), n).tolist())


@settings(database=None, max_examples=8)
@given(
    st.lists(st.integers(1, 6), min_size=0, max_size=3), st.none() | st.integers(1, 7), st.none() | st.integers(1, 7)
)
def test_tiles_part_any_leaf(shape, rows, columns):
    """Each entry is in one tile; the mean of a tile of equals is what they are equal to."""
    tiles, shape = Tiles(rows, columns), tuple(shape)
    ranked = np.asarray(tiles.ranked(jnp.full(shape, -3.0)))
    np.testing.assert_array_equal(ranked, 3)
    parts = [np.asarray(tiles.spread(jnp.arange(ranked.size) == i, shape)) for i in range(ranked.size)]
    np.testing.assert_array_equal(np.sum(parts, axis=0), np.ones(shape))


# --- names --------------------------------------------------------------------------------------------------------


def test_equal_options_make_equal_sparsifiers():
    same = Sparsifier("random", "blocks:4x2", "layerwise")
    assert same == Sparsifier(random, Tiles(4, 2), "layerwise") and hash(same) == hash(Sparsifier(*vars(same).values()))
    assert Sparsifier(scope="erk") != Sparsifier()
    assert Sparsifier(prunable=("kernel", "!first")) == Sparsifier(prunable=["kernel", "!first"])
    assert Sparsifier(prunable="kernel") == Sparsifier(prunable=("kernel",))
    assert structure("2:4") == Groups(4, 2) and structure("groups:16") == Groups(16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "weight-gradient"}, "unknown criterion 'weight-gradient': did you mean 'weight_gradient'?"),
        ({"structure": "row"}, "unknown structure 'row': did you mean 'rows'?"),
        ({"structure": "blocks:4"}, "did you mean 'blocks:RxC'?"),
        ({"structure": "blocks:4x0"}, "'blocks:4x0' must be at least 1"),
        ({"structure": "groups:00"}, "'groups:00' must be at least 1"),
        ({"structure": "4:2"}, "in N:M N at most M"),
        ({"structure": "groups:4", "scope": "erk"}, "scope must be 'global' or 'layerwise', not 'erk'"),
        ({"scope": "layer"}, "unknown scope 'layer': did you mean 'layerwise'?"),
    ],
)
def test_wrong_names(options, message):
    for make in (lambda: Sparsifier(**options), lambda: check_names(Run(**options))):
        with pytest.raises(ValueError) as error:
            make()
        assert message in str(error.value)


def test_n_of_m_and_the_sparsity_agree():
    with pytest.raises(ValueError, match=r"structure 2:4 has sparsity 0.5, not 0.9"):
        Sparsifier(structure="2:4")({"w": jnp.ones((2, 4))}, 0.9)
    values = {"stepsize": 0.1, "prob": 0.5, "prune": Sparsifier(structure="1:3")}
    with pytest.raises(ValueError, match=r"structure 1:3 has sparsity 0.666667, not 0.4"):
        prepare(ALGORITHMS["sparse_proxskip"], values | {"sparsity": 0.4}, np.float32)
    prepare(ALGORITHMS["sparse_proxskip"], values | {"sparsity": 2 / 3}, np.float32)


# --- what a message costs -----------------------------------------------------------------------------------------

KERNEL = np.zeros((4, 6), np.float32)
KERNEL[0, :3], KERNEL[1, 0], KERNEL[3, 5] = 1, 2, 3  # of 24 entries in 4 rows, 6 columns, 4 blocks of 2 x 3 or 6 groups
MESSAGE = {"bias": np.array([1, 0, 5], np.float32), "kernel": KERNEL}  # the bias has 2 nonzeros of 3
BITS = {  # values, positions, places, bits of: indices, bitmap
    "entries": (7, 7, 27, 7 * (32 + 5), 7 * 32 + 27),
    "rows": (18 + 2, 3 + 2, 4 + 3, 20 * 32 + 5 * 3, 20 * 32 + 7),
    "filters": (16 + 2, 4 + 2, 6 + 3, 18 * 32 + 6 * 4, 18 * 32 + 9),
    "blocks:2x3": (12 + 2, 2 + 2, 4 + 3, 14 * 32 + 4 * 3, 14 * 32 + 7),
    "blocks:3x4": (12 + 2 + 2, 2 + 2, 4 + 3, 16 * 32 + 4 * 3, 16 * 32 + 7),  # the last tile is 1 x 2
    "groups:4": (3 + 1 + 1 + 1 + 1 + 1 + 3, 6 * 3, 4, 11 * 32 + 18 * 2, 11 * 32 + 24),
}


@pytest.mark.parametrize("spelled", BITS)
def test_bits_by_hand(spelled):
    code = Sparsifier(structure=spelled).code
    count, size = code.count(MESSAGE, None), code.size(MESSAGE)
    values, positions, places, indices, bitmap = BITS[spelled]
    assert (int(count.values), int(count.positions)) == (values, positions)
    assert (size.entries, size.places, size.groups) == (27, places, 6 if spelled == "groups:4" else 1)
    assert [message_bits(count, size, e) for e in ("indices", "bitmap", "dense")] == [indices, bitmap, 27 * 32]
    assert message_bits(count, size) == min(indices, bitmap, 27 * 32)


@pytest.mark.parametrize("spelled", BITS)
def test_codes_of_any_message(spelled):
    """A pair such as SCAFFOLD's costs as one message of all its leaves; nothing pruned, or all zero, is no error."""
    code = Sparsifier(structure=spelled).code
    one, pair = (code.count(m, None) for m in (MESSAGE, (MESSAGE, MESSAGE)))
    assert pair == (2 * one.values, 2 * one.positions)
    for message in ({"bias": np.ones(3, np.float32)}, {"w": np.zeros((3, 5), np.float32)}):
        assert message_bits(code.count(message, None), code.size(message)) <= 15 * 32
    assert message_bits(code.count({"w": np.zeros((3, 5), np.float32)}, None), code.size(MESSAGE), "indices") == 0


def test_codes_without_structure():
    assert Sparsifier().code is FLOATS
    code = Sparsifier("random", "blocks:2x2").code
    assert code is SHARED_POSITIONS and code.count(MESSAGE, None).positions == KNOWN
    assert message_bits(code.count(MESSAGE, None), code.size(MESSAGE)) == 7 * 32


# --- in simulations -----------------------------------------------------------------------------------------------


@cache
def problem():
    return digits(clients=4, batch_size=8)


def simulated(make, rounds=6, **hyper):
    values = {"stepsize": 0.5} | hyper
    return simulate(make, problem(), values, KEY, rounds=rounds, local_steps=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("criterion", "spelled", "blocks_", "size"),
    [
        ("magnitude", "rows", 10, 64),
        ("weight_gradient", "blocks:5x4", 32, 20),
        ("random", "filters", 64, 10),
        ("magnitude", "groups:8", 640, 1),
    ],
)
def test_in_sparse_proxskip(criterion, spelled, blocks_, size):
    """No more than K blocks go up, the control variates sum to zero, and another sparsity is the same program."""
    run = partial(simulated, ALGORITHMS["sparse_proxskip"], prune=Sparsifier(criterion, spelled))
    programs = None
    for sparsity in (0.5, 0.875):
        _, history = run(sparsity=sparsity)
        programs = run_rounds._cache_size() if programs is None else programs
        assert history["control_sum"].max() < 1e-5 and np.isfinite(history["train_loss"]).all()
        k = round((1 - sparsity) * blocks_)
        assert (history["density"] <= (k * size + 10) / 650 + 1e-6).all() and history["density"][-1] > 0.8 * k / blocks_
        position = 0 if criterion == "random" else 3 if spelled == "groups:8" else 10
        each = np.diff(history["uplink_bits"], prepend=0) / 4
        assert (each <= 32 * (k * size + 10) + position * (k + 10)).all()
    assert run_rounds._cache_size() == programs


def test_messages_are_made_with_the_gradient():
    params, gradient, prune = model(), model(1), Sparsifier("weight_gradient")
    algorithm = pruned(fedavg(stepsize=0.1, prob=0.5), prune, np.float32(0.8), uplink=True)
    sent = jax.jit(lambda x: algorithm.send(x, (), x, lambda x: gradient, None))(params)
    jax.tree.map(
        np.testing.assert_array_equal,
        sent,
        expected(params, scores_of("weight_gradient", params, gradient), 0.8, "entries", "global"),
    )


# --- a growing sparsity -------------------------------------------------------------------------------------------


def grown(sparsity, rounds, t):
    return sparsity * (1 - (1 - min(t / rounds, 1)) ** 3)


@given(st.floats(0, 0.99), st.integers(1, 1000), st.integers(0, 2000))
def test_cubic(sparsity, rounds, t):
    got = cubic(jnp.float32(sparsity), jnp.float32(rounds), jnp.int32(t))
    np.testing.assert_allclose(got, grown(sparsity, rounds, t), atol=1e-6)
    assert got.dtype == np.float32 and (t < rounds or got == np.float32(sparsity))


def shrink(params, sparsity):
    """Stands for a sparsifier: whatever it touched shows with which sparsity."""
    return jax.tree.map(lambda a: (1 - sparsity) * a, params)


def sparse_scaffold(*, stepsize, prob, sparsity, prune=topk, iterate=False, server="none"):
    base = scaffold(stepsize=stepsize, prob=prob)
    return pruned(base, prune, sparsity, iterate=iterate, uplink=True, server=server)


@pytest.mark.parametrize("server", ["naive", "modified"])
def test_each_part_of_a_ramped_method_has_the_sparsity_of_its_round(server):
    make = partial(sparse_scaffold, stepsize=0.5, prob=0.5, prune=shrink, iterate=True, server=server)
    method = ramped(lambda s: make(sparsity=s), jnp.float32(0.8), jnp.float32(2))
    plain, later = (make(sparsity=jnp.float32(grown(0.8, 2, t))) for t in (1, 2))
    ones, info = jnp.ones(3), RoundInfo(None, None, None, jnp.float32(2), cohort=4, clients=4)
    h, state = method.init(ones)
    assert state[1] == 0 and state[1].dtype == np.int32
    server_state, t = state[0], jnp.int32(1)
    state, b, h = (server_state, t), (server_state, t), method.init_client(h, jnp.int32(0), 4)
    same = partial(jax.tree.map, np.testing.assert_array_equal)
    same(method.broadcast(state), (plain.broadcast(server_state), t))
    same(method.model(state), plain.model(server_state))
    same(method.control(h, state), plain.control(h, server_state))
    same(method.with_model(state, 2 * ones), (plain.with_model(server_state, 2 * ones), t))
    x = plain.start(server_state, h)
    same(method.start(b, h), (x, t))
    same(method.direction((x, t), h, b, lambda p: p, None), plain.direction(x, h, server_state, lambda p: p, None))
    same(method.move((x, t), ones), (plain.move(x, ones), t))
    m = plain.send(x, h, server_state, None, info)
    same(method.send((x, t), h, b, None, info), m)
    same(method.serve(state, m, info), (later.serve(server_state, m, info), t + 1))
    same(method.receive((x, t), h, m, b, info), plain.receive(x, h, m, server_state, info))
    assert method.downlink.size(b) == plain.downlink.size(server_state)
    assert method.downlink.count(b, None) == plain.downlink.count(server_state, None)


def test_density_of_each_round_and_compilation():
    """After t rounds the model has K(s_t) weights; another T or s is the same program."""
    run = partial(simulated, ALGORITHMS["server_pruning"])
    programs = None
    for sparsity, rounds in ((0.9, 4), (0.95, 2)):
        state, history = run(sparsity=sparsity, sparsity_rounds=rounds)
        programs = run_rounds._cache_size() if programs is None else programs
        k = [round((1 - grown(sparsity, rounds, t)) * 640) for t in range(1, 7)]
        for name in ("density", "average_density"):
            assert (650 * history[name] <= np.add(k, 10) + 1e-3).all()
            assert history[name][3:] == pytest.approx((k[-1] + 10) / 650)
        assert state.server[1] == 6
        down = np.diff(history["downlink_bits"], prepend=0) / 4
        assert down[3:] == pytest.approx(message_bits(k[-1] + 10, 650))
    assert run_rounds._cache_size() == programs


@pytest.mark.slow
def test_grown_in_one_round_is_a_dense_round_and_then_plain():
    """FedAvg keeps nothing between rounds: with full batches one can be cut in two."""
    run = partial(simulate, problem=digits(clients=4, batch_size=None), key=KEY, local_steps=3)
    base, prune = {"stepsize": 0.5}, ALGORITHMS["fedavg_client_pruning"]
    whole, history = run(prune, hyper=base | {"sparsity": 0.9, "sparsity_rounds": 1}, rounds=4)
    first, _ = run(fedavg, hyper=base, rounds=1)
    rest, plain = run(prune, hyper=base | {"sparsity": 0.9}, rounds=3, params=first.server)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), whole.server[0], rest.server)
    np.testing.assert_allclose(history["density"][1:], plain["density"])
    np.testing.assert_allclose(np.diff(history["uplink_bits"]), np.diff(plain["uplink_bits"], prepend=0), rtol=0.01)


@pytest.mark.slow
def test_a_ramp_by_steps_by_sweep_and_with_a_transform():
    """``iterate``, with a transform that does nothing, and ``sweep`` give what ``simulate`` gives."""
    make, hyper = ALGORITHMS["sparse_proxskip"], {"stepsize": 0.5, "sparsity": 0.9}
    ends = {}
    for rounds in (1, 5):
        state, ends[rounds] = simulated(make, sparsity=0.9, sparsity_rounds=rounds)
    values = hyper | {"sparsity_rounds": 5}
    clip = optax.clip_by_global_norm(1e9)
    stepped, heads = iterate(make, problem(), values, KEY, iterations=18, local_steps=3, transform=clip)
    assert heads.sum() == 6 and stepped.server[1] == 6
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), stepped.server, state.server)
    swept = list(sweep(make, problem(), grid(**hyper, local_steps=3, sparsity_rounds=[1, 5], seed=3), rounds=6))
    for point, history, _ in swept:
        for name in ("density", "train_loss"):
            np.testing.assert_allclose(history[name], ends[point["sparsity_rounds"]][name], rtol=1e-3)


@pytest.mark.slow
def test_scaffold_with_blocks_and_a_ramp():
    """A method whose messages are pairs, of which one half is pruned."""
    _, history = simulated(sparse_scaffold, sparsity=0.8, sparsity_rounds=3, prune=Sparsifier(structure="blocks:5x4"))
    assert history["control_sum"].max() < 1e-4 and history["train_loss"][-1] < history["train_loss"][0]
    each = np.diff(history["uplink_bits"], prepend=0) / 4
    assert each[0] > each[-1] and each[-1] <= 32 * (650 + 6 * 20 + 10) + 2 * (32 + 10)


@pytest.mark.parametrize("rounds", [0, 1.5, -3, np.inf, np.nan, True, None, np.ones(2)])
def test_wrong_rounds(rounds):
    values = {"stepsize": 0.1, "prob": 0.5, "sparsity": 0.9, "sparsity_rounds": rounds}
    with pytest.raises(ValueError, match="sparsity_rounds must be an integer of at least 1"):
        prepare(ALGORITHMS["sparse_proxskip"], values, np.float32)


def test_a_method_without_sparsity_cannot_grow_it():
    with pytest.raises(ValueError, match="unknown hyperparameter of proxskip 'sparsity_rounds'"):
        prepare(proxskip, {"stepsize": 0.1, "prob": 0.5, "sparsity_rounds": 3}, np.float32)
    options = sweep_type()(algorithm=("gd",), sparsity_rounds=3)
    with pytest.raises(ValueError, match="--sparsity-rounds is not an option of the chosen problem and algorithms"):
        refuse_strangers(points(options)[0][1])


# --- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_line(tmp_path, shell):
    options = ["--criterion", "weight_gradient", "--structure", "blocks:5x4", "--sparsity-rounds", "2"]
    small = ["--rounds", "3", "--clients", "4", "--algorithm", "sparse_proxskip"]
    done = shell("run", *small, *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    assert [row["sparsity_rounds"] for row in rows] == [2, 2, 2]
    assert rows[-1]["density"] <= (round(0.1 * 32) * 20 + 10) / 650 + 1e-6
    assert json.loads((tmp_path / "out" / "config.json").read_text())["settings"]["structure"] == "blocks:5x4"


def test_sweeps_have_them_too():
    options = sweep_type()(structure="2:4", criterion="random", sparsity=("0.5",), sparsity_rounds=7)
    assert {(o.structure, o.criterion, o.sparsity_rounds) for _, o in points(options)} == {("2:4", "random", 7)}


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_one_block_of_which_one_is_kept_is_refused(scope):
    """A kernel (1, d) is one row, and K = max(1, round((1 - s) 1)) = 1: at any sparsity nothing would be pruned."""
    prune = Sparsifier(structure="rows", scope=scope)
    for one in (jnp.ones((1, 6)), {"w": jnp.ones(6)}):
        with pytest.raises(ValueError, match="nothing would be pruned"):
            prune(one, 0.9)
        assert jax.tree.leaves(prune(one, 0.0))[0].all()
    assert int((Sparsifier(structure="filters", scope=scope)(jnp.ones((1, 6)), 0.5) != 0).sum()) == 3
