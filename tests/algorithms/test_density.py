"""The shipped model has the density that the sparsity promises, in every round, whatever chooses the weights.

What is expected is counted here: a structure has so many blocks in a leaf, of which a scope keeps K = max(1, round((1 -
s_t) blocks)), s_t = s (1 - (1 - t/T)^3) after t rounds of a growing sparsity; leaves that are not pruned stay whole.
"""

import inspect
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from problems import PRUNED, hyper

from sps_jax import tree
from sps_jax.algorithms import ALGORITHMS
from sps_jax.compression import Sparsifier
from sps_jax.problem import Problem
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start

KEY = jax.random.key(2)
SHAPES = {"first": (6, 8), "last": (8, 4), "bias": (4,)}
PRUNABLE = ("first", "last")
CLIENTS, ROUNDS, K = 3, 5, 2
SCHEDULES = {"constant": [None], "growing": [1, 3, 10]}
"""In how many rounds the sparsity grows, None for at once; those of a kind are one program."""
STRUCTURES = ["entries", "rows", "filters", "blocks:2x2", "groups:4", "2:4"]
SCOPES = ["global", "layerwise", "erk"]
EXACT = [*PRUNED, "feddst"]
"""Methods whose model always has exactly K blocks."""
SPARSE = [n for n, make in ALGORITHMS.items() if {"sparsity", "prune"} <= inspect.signature(make).parameters.keys()]
DENSE = ["fedcomloc_local", "ef21", "ef21_sgdm", "scafcom"]
"""Those whose model is dense: what is sparse is the point of a gradient, or a message that changes the model."""


def init(key):
    keys = jax.random.split(key, len(SHAPES))
    return {name: jax.random.normal(k, s) / 2 for (name, s), k in zip(SHAPES.items(), keys, strict=True)}


OFFSET = {name: np.random.default_rng(1).normal(size=SHAPES[name]).astype(np.float32) for name in PRUNABLE}
"""What is added to the weights, so that a unit of which all are pruned passes signals and gradients on."""


def loss(params, a, y):
    first, last = (params[name] + OFFSET[name] for name in PRUNABLE)
    return jnp.sum((jnp.tanh(a @ first) @ last + params["bias"][None] - y) ** 2, axis=1)


@cache
def problem():
    """Two layers on random data, float32, no gradient of which is zero anywhere, whatever is pruned."""
    generator = np.random.default_rng(0)
    a, y = (jnp.asarray(generator.normal(size=(CLIENTS, 8, d)), jnp.float32) for d in (6, 4))
    return Problem((a, y), jnp.full(CLIENTS, 8, jnp.int32), None, jnp.float32(0.01), init=init, loss=loss)


# --- what is promised --------------------------------------------------------------------------------------------


def grown(sparsity, rounds, t):
    return sparsity * (1 - (1 - min(t / rounds, 1)) ** 3) if rounds else sparsity


def keeps(sparsity, blocks):
    return max(1, round((1 - sparsity) * blocks))


def tiles(structure, shape):
    """How many blocks a matrix of this shape has, and the numbers in each; all are of one size here."""
    r, c = {"entries": (1, 1), "rows": (1, shape[1]), "filters": (shape[0], 1), "blocks:2x2": (2, 2)}[structure]
    return math.prod(shape) // (r * c), r * c


def erk(sparsity, shapes):
    """Densities of the leaves, proportional to (rows + columns) / (rows x columns), at most one."""
    sizes, raw = np.array([r * c for r, c in shapes]), np.array([(r + c) / (r * c) for r, c in shapes])
    full = np.zeros(len(shapes), bool)
    for _ in shapes:
        left = (1 - sparsity) * sizes.sum() - sizes[full].sum()
        density = np.where(full, 1, raw * left / max((sizes * raw)[~full].sum(), 1e-9))
        full |= density >= 1 - 1e-6
    return np.where(full, 1, density)


def expected(structure, scope, sparsity):
    """Nonzeros of the model."""
    shapes = [SHAPES[name] for name in PRUNABLE]
    if structure in ("groups:4", "2:4"):
        pruned = sum(math.prod(shape) // 4 * keeps(sparsity, 4) for shape in shapes)
    elif scope == "global" and structure in ("rows", "filters"):
        pruned = None  # blocks of different sizes: how many numbers depends on which
    elif scope == "global":
        each = [tiles(structure, shape) for shape in shapes]
        pruned = keeps(sparsity, sum(blocks for blocks, _ in each)) * each[0][1]
    else:
        densities = erk(sparsity, shapes) if scope == "erk" else [1 - sparsity] * len(shapes)
        each = [(1 - d, *tiles(structure, shape)) for d, shape in zip(densities, shapes, strict=True)]
        pruned = sum(keeps(s, blocks) * size for s, blocks, size in each)
    return pruned if pruned is None else pruned + math.prod(SHAPES["bias"])


def bounds(structure, scope, sparsity):
    """Least and most nonzeros of the model; they are equal but where a global ranking has blocks of two sizes."""
    exactly = expected(structure, scope, sparsity)
    if exactly is not None:
        return exactly, exactly
    sizes = sorted(
        size for name in PRUNABLE for blocks, size in [tiles(structure, SHAPES[name])] for _ in range(blocks)
    )
    k, bias = keeps(sparsity, len(sizes)), math.prod(SHAPES["bias"])
    return sum(sizes[:k]) + bias, sum(sizes[-k:]) + bias


# --- what is shipped ---------------------------------------------------------------------------------------------


@jax.jit
def simulated(chosen, problem):
    """Nonzeros of the shipped model at the start and after each round."""
    method, schedule = chosen.algorithm(), chosen.schedule

    def body(state, _):
        state, _ = one_round(method, problem, schedule, state, KEY)
        return state, tree.nonzeros(method.model(state.server))

    first = start(method, problem, KEY)
    _, seen = lax.scan(body, first, length=ROUNDS)
    return jnp.concatenate([tree.nonzeros(method.model(first.server))[None], seen])


@pytest.fixture(autouse=True)
def forget_simulated():
    """Each test's own programs: hundreds of them are more memory mappings than a process may have."""
    yield
    simulated.clear_cache()


def nonzeros(name, structure, scope, sparsity, rounds, **options):
    given = {"sparsity": sparsity, "prune": Sparsifier("magnitude", structure, scope), "readjust_every": 3} | options
    values = hyper(name, stepsize=0.02, **given) | ({} if rounds is None else {"sparsity_rounds": rounds})
    return simulated(prepare(ALGORITHMS[name], values, np.float32, local_steps=K), problem()).tolist()


def promised(name, structure, scope, sparsity, rounds):
    """(least, most) at the start and after each round."""
    at = [bounds(structure, scope, grown(sparsity, rounds, t)) for t in range(ROUNDS + 1)]
    whole, bias = sum(map(math.prod, SHAPES.values())), math.prod(SHAPES["bias"])
    if name in EXACT:
        return at
    if name in ("fedcomloc_global", "mask_proxskip"):  # what the server has compressed or masked: nothing of the start
        return [(whole, whole), *at[1:]]
    if name in DENSE:
        return [(whole, whole)] * (ROUNDS + 1)
    averages = [(least, min(whole, CLIENTS * (most - bias) + bias)) for least, most in at]
    return [(whole, whole), *averages[:-1]]  # of messages that were sent in the round before


CASES = [(structure, scope) for structure in STRUCTURES for scope in SCOPES if scope != "erk" or ":4" not in structure]
CASES = [(name, *case, kind) for name in SPARSE for case in CASES for kind in SCHEDULES]
FAST = [(name, "entries", "global", "growing") for name in SPARSE]
FAST += [("feddst", "entries", "erk", "growing"), ("feddst", "entries", "global", "constant")]
PARAMS = [pytest.param(*c, marks=[pytest.mark.slow] * (c not in FAST), id="-".join(c)) for c in CASES]


@pytest.mark.parametrize(("name", "structure", "scope", "kind"), PARAMS)
def test_every_round_has_the_density_of_its_sparsity(name, structure, scope, kind):
    """After round t what s_t keeps, exactly, and at the start."""
    for sparsity in (0.5,) if structure == "2:4" else (0.5, 0.8):
        for rounds in SCHEDULES[kind]:
            got = nonzeros(name, structure, scope, sparsity, rounds)
            due = promised(name, structure, scope, sparsity, rounds)
            kept = [least <= n <= most for n, (least, most) in zip(got, due, strict=True)]
            assert all(kept), (sparsity, rounds, got, due)


def test_every_method_with_a_sparsity_promises_something():
    assert {*EXACT, *DENSE, "fedcomloc_com", "fedcomloc_global", "mask_proxskip"} == set(SPARSE)


@pytest.mark.parametrize("rounds", [None, 3])
def test_a_structure_that_says_another_sparsity_is_refused(rounds):
    """2:4 is a half; a growing sparsity has to end there."""
    with pytest.raises(ValueError, match=r"structure 2:4 has sparsity 0\.5, not 0\.8"):
        nonzeros("feddst", "2:4", "global", 0.8, rounds)


def test_groups_have_no_erk_densities():
    with pytest.raises(ValueError, match="groups of 4 have the same sparsity in every layer"):
        Sparsifier("magnitude", "groups:4", "erk")


@pytest.mark.parametrize("name", ["fedcomloc_com", "fedcomloc_global"])
def test_a_quantiser_only_adds_zeros(name):
    """Q_r rounds small numbers to zero: at most what TopK alone would leave."""
    got = nonzeros(name, "entries", "global", 0.8, 3, quantize_bits=2)
    due = promised(name, "entries", "global", 0.8, 3)
    assert all(n <= most for n, (_, most) in zip(got, due, strict=True)) and got[-1] < got[1] < got[0]
