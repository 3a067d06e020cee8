"""Functions of the public API at any arguments, against slow twins in NumPy and Python."""

import math
from functools import cache

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sps_jax as sps
from sps_jax.compression.bits import KNOWN, MessageCount, MessageSpec, message_bits, total_bits
from sps_jax.datasets import partition
from sps_jax.problems.supervised import linear_problem

some = settings(deadline=None, database=None, max_examples=40)
many = settings(deadline=None, database=None, max_examples=150)

# --- TopK of any model ----------------------------------------------------------------------------------------------

MODELS = {  # few shapes, each one program: a single weight, ties across leaves, many axes beside leaves that stay
    "one": {"w": (1, 1)},
    "two": {"a": (3, 2), "b": (2, 4)},
    "deep": {"bias": (3,), "kernel": (2, 1, 3, 2), "norm": (), "out": (5, 1)},
}
NASTY = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 3.4e38]
numbers = st.floats(width=32, allow_subnormal=True) | st.sampled_from([float(np.float32(v)) for v in NASTY])


@cache
def pruning(scope):
    return jax.jit(sps.Sparsifier(scope=scope))


def by_sorting(leaves, k):
    """Which entries of the leaves, as one vector, are the first k by magnitude: NaN, then infinity, ties in order."""
    flat = [abs(float(v)) for leaf in leaves for v in leaf.ravel()]
    order = sorted(range(len(flat)), key=lambda i: (not math.isnan(flat[i]), -flat[i] if flat[i] == flat[i] else 0, i))
    mask = np.zeros(len(flat), bool)
    mask[order[:k]] = True
    return np.split(mask, np.cumsum([leaf.size for leaf in leaves])[:-1])


@pytest.mark.parametrize("scope", ["global", pytest.param("layerwise", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MODELS)
@some
@given(data=st.data(), sparsity=st.floats(0, 1, exclude_max=True, width=32))
def test_topk_of_any_floats(name, scope, data, sparsity):
    x = {leaf: data.draw(hnp.arrays(np.float32, shape, elements=numbers)) for leaf, shape in MODELS[name].items()}
    for leaf in x.values():
        leaf[np.isnan(leaf)] = np.nan  # of one payload
    y = pruning(scope)(x, np.float32(sparsity))
    pruned = [leaf for leaf, shape in MODELS[name].items() if len(shape) > 1]
    for group in [pruned] if scope == "global" else [[leaf] for leaf in pruned]:
        entries = sum(x[leaf].size for leaf in group)
        k = max(1, int(np.round((np.float32(1) - np.float32(sparsity)) * np.float32(entries))))
        for leaf, mask in zip(group, by_sorting([x[leaf] for leaf in group], k), strict=True):
            want = np.where(mask.reshape(x[leaf].shape), x[leaf], np.float32(0))
            np.testing.assert_array_equal(np.asarray(y[leaf]).view(np.uint32), want.view(np.uint32))
    for leaf in x.keys() - set(pruned):
        np.testing.assert_array_equal(y[leaf], x[leaf])


# --- partitions of any labels -----------------------------------------------------------------------------------------

words = st.lists(st.text(max_size=3), min_size=1, max_size=30).map(np.array)
kinds = [np.bool_, np.int8, np.uint64, np.float32, np.float64, np.dtype("datetime64[s]")]
labels = words | st.sampled_from(kinds).flatmap(lambda kind: hnp.arrays(kind, st.integers(1, 30)))


def alike(a, b):
    return a == b or (a != a and b != b)  # one NaN is another


def sizes_differ_by_one(parts):
    return max(map(len, parts)) - min(map(len, parts)) <= 1


def is_a_deal(parts, rows):
    """Every row once, every client's in order, no client empty."""
    assert sorted(row for part in parts for row in part.tolist()) == list(range(rows))
    assert all(len(part) and (np.diff(part) > 0).all() and part.dtype == np.int64 for part in parts)


@many
@given(labels)
def test_natural_clients_of_any_labels(values):
    groups = []
    for row, value in enumerate(values):
        for first, rows in groups:
            if alike(first, value):
                rows.append(row)
                break
        else:
            groups.append((value, [row]))
    parts = partition.natural(values)
    is_a_deal(parts, len(values))
    assert [part.tolist() for part in parts] == [rows for _, rows in groups]


@many
@given(st.data(), labels)
def test_any_partition_of_any_labels_is_a_deal(data, values):
    clients, seed = data.draw(st.integers(1, len(values))), data.draw(st.integers(0, 2**40))
    alpha = data.draw(st.floats(0, exclude_min=True, allow_infinity=False))
    is_a_deal(partition.dirichlet(values, clients, alpha, seed), len(values))
    dealt = partition.by_label(values, clients)
    is_a_deal(dealt, len(values))
    assert sizes_differ_by_one(dealt)
    natural = partition.natural(values)
    merged = partition.by_size(values, min(clients, len(natural)))
    is_a_deal(merged, len(values))
    owner = {row: client for client, part in enumerate(merged) for row in part.tolist()}
    assert all(len({owner[row] for row in part.tolist()}) == 1 for part in natural)


# --- bits of any message ----------------------------------------------------------------------------------------------


@st.composite
def messages(draw):
    """A size, and counts of such messages; positions are told in groups with equally many each, or known."""
    groups, places = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    entries = draw(st.integers(groups * places, 400))
    size = MessageSpec(entries, places, draw(st.integers(1, 64)), draw(st.integers(0, 64)), groups)
    told = st.integers(0, places).map(lambda each: each * groups) | st.just(KNOWN)
    return size, [MessageCount(draw(st.integers(0, entries)), draw(told)) for _ in range(draw(st.integers(0, 5)))]


def bits_by_hand(count, size):
    """Each encoding from its definition: a code for one of ``places`` positions is as long as its largest number."""
    values, positions = count
    known, each = positions == KNOWN, positions // size.groups
    sent = size.header_bits + size.value_bits * values
    longest = len(bin(size.places - 1)) - 2 if size.places > 1 else 0
    found = {
        "dense": size.header_bits + size.value_bits * size.entries,
        "indices": sent if known else sent + positions * longest,
        "bitmap": sent if known else sent + sum(size.places for _ in range(size.groups)),
    }
    cheapest = min(found.values())
    choices = 0 if known else size.groups * math.log2(math.comb(size.places, each))
    return found | {"entropy": sent + choices, "cheapest": cheapest}


@many
@given(messages())
def test_bits_of_any_size_and_count(message):
    size, counts = message
    by_hand = [bits_by_hand(count, size) for count in counts]
    for encoding in sps.ENCODINGS:
        want = [one[encoding] for one in by_hand]
        got = [message_bits(count, size, encoding) for count in counts]
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-6)
        columns = MessageCount(*(np.array([count[i] for count in counts], np.int32) for i in (0, 1)))
        np.testing.assert_allclose(total_bits(columns, size, encoding), sum(want), rtol=1e-9, atol=1e-6)
        if encoding != "entropy":
            assert got == want


@some
@given(messages(), st.integers(1, 100), st.sampled_from(["values", "positions", "below"]))
def test_counts_that_a_message_cannot_have(message, more, which):
    size, _ = message
    count = {
        "values": MessageCount(size.entries + more, 0),
        "positions": MessageCount(0, size.places * size.groups + more),
        "below": MessageCount(0, KNOWN - more),
    }[which]
    with pytest.raises(ValueError, match="cannot have"):
        message_bits(count, size)


# --- problems of any shape --------------------------------------------------------------------------------------------

SHAPES = [  # clients' sizes, features, outputs
    ((1,), 1, 1),
    ((3, 1, 2), 4, 3),
    pytest.param((5, 5), 2, 2, marks=pytest.mark.slow),
    pytest.param((1, 9), 1, 7, marks=pytest.mark.slow),
]


def losses(loss, outputs, y):
    """The loss of each example, from its definition."""
    if loss == "softmax":
        return [math.log(sum(math.exp(v - row[label]) for v in row)) for row, label in zip(outputs, y, strict=True)]
    if loss == "logistic":
        return [math.log1p(math.exp(-row[0] if label else row[0])) for row, label in zip(outputs, y, strict=True)]
    return [(row[0] - label) ** 2 / 2 for row, label in zip(outputs, y, strict=True)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["softmax", "squares", pytest.param("logistic", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("sizes", "features", "outputs"), SHAPES)
def test_problems_of_any_shape(sizes, features, outputs, loss):
    """f, its gradient by differences and L_i, for several data of one shape."""
    outputs = outputs if loss == "softmax" else 1
    programs = {}
    for seed in range(3):
        generator = np.random.default_rng(seed)
        rows, ridge = sum(sizes), 0.1 * seed
        x = generator.normal(size=(rows, features))
        y = {"softmax": generator.integers(0, outputs, rows), "logistic": generator.integers(0, 2, rows)}.get(
            loss, generator.normal(size=rows)
        )
        parts = np.split(generator.permutation(rows), np.cumsum(sizes)[:-1])
        problem = linear_problem(
            loss, (x, y), None, parts, outputs=outputs, bias=loss != "squares", ridge=ridge, precision="float64"
        )
        params = problem.init(jax.random.key(seed))
        leaves, structure = jax.tree.flatten(params)
        leaves = [generator.normal(size=leaf.shape) for leaf in leaves]
        kernel = next(leaf for leaf in leaves if leaf.ndim == 2)  # (outputs, features)
        bias = next((leaf for leaf in leaves if leaf.ndim == 1), 0)

        def f(kernel, bias, ridge=ridge, x=x, y=y, parts=parts):
            size = ridge / 2 * (np.sum(kernel**2) + np.sum(np.square(bias)))
            each = [losses(loss, x[part] @ kernel.T + bias, y[part]) for part in parts]
            return np.mean([sum(own) / len(own) for own in each]) + size

        run = programs.setdefault(loss, jax.jit(jax.value_and_grad(lambda p, problem: problem.objective(p))))
        value, slope = run(structure.unflatten(map(jnp.asarray, leaves)), problem)
        np.testing.assert_allclose(value, f(kernel, bias), rtol=1e-10)
        slope = next(leaf for leaf in jax.tree.leaves(slope) if leaf.ndim == 2)
        for at in np.ndindex(kernel.shape):
            step = 1e-5 * (np.arange(kernel.size).reshape(kernel.shape) == np.ravel_multi_index(at, kernel.shape))
            difference = (f(kernel + step, bias) - f(kernel - step, bias)) / 2e-5
            np.testing.assert_allclose(slope[at], difference, rtol=1e-5, atol=1e-7)
        curvature = {"softmax": 1 / 2, "logistic": 1 / 4, "squares": 1}[loss]
        for part, largest in zip(parts, np.asarray(problem.smoothness), strict=True):
            a = x[part] if loss == "squares" else np.hstack([x[part], np.ones((len(part), 1))])
            want = curvature * np.linalg.norm(a, 2) ** 2 / len(part) + ridge
            np.testing.assert_allclose(largest, want, rtol=1e-9)
