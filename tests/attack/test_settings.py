"""Whatever users take for one number, as a hyperparameter, a count, a cohort or a point of a sweep."""

import re
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

import sps_jax as sps
from sps_jax.problems import quadratic
from sps_jax.simulation.history import asked_rounds

KEY = jax.random.key(0)
X, Y, IDS = np.eye(6), np.array([0, 1] * 3), np.array([0] * 3 + [1] * 3)
ONE = {  # the same number of Python, NumPy, JAX, pandas
    "int": int,
    "float": float,
    "int8": np.int8,
    "float32": np.float32,
    "0-d": np.array,
    "0-d object": lambda v: np.array(v, object),
    "0-d JAX": jnp.asarray,
    "bfloat16": lambda v: jnp.bfloat16(v),
    "unmasked": np.ma.array,
    "of a column": lambda v: pandas.Series([v], dtype="Int64")[0],
    "fraction": Fraction,
}
NONE = {
    "text": "2",
    "words": "x",
    "NA": pandas.NA,
    "NaT": pandas.NaT,
    "NaN": np.nan,
    "infinity": np.inf,
    "masked": np.ma.masked,
    "masked array": np.ma.array(2, mask=True),
    "list": [2],
    "array": np.array([2]),
    "JAX array": jnp.array([2]),
    "column": pandas.Series([2]),
    "frame": pandas.DataFrame({"a": [2]}),
    "complex": 2j,
    "true": True,
    "decimal": Decimal(2),
    "dict": {2: 2},
    "set": {2},
    "key": KEY,
}


@pytest.fixture(scope="module")
def small():
    return quadratic(clients=3, dimension=2)


def prepared(problem, **changed):
    hyper = {"stepsize": 0.5, "sparsity": 0.5} | changed
    options = {name: hyper.pop(name) for name in ("local_steps", "cohort") if name in hyper} or {"local_steps": 2}
    return sps.prepare(sps.fedcomloc_com, hyper, problem.ridge.dtype, **({"local_steps": 2} | options))


def made(**changed):
    return sps.from_arrays(X, Y, IDS, **changed)


USED = {  # a setting: what is made with it, and what of that tells how it was understood
    "stepsize": lambda p, v: prepared(p, stepsize=v).hyper,
    "quantize_bits": lambda p, v: prepared(p, quantize_bits=v).options,
    "sparsity_rounds": lambda p, v: prepared(p, sparsity_rounds=v).hyper,
    "local_steps": lambda p, v: prepared(p, local_steps=v).schedule,
    "cohort": lambda p, v: prepared(p, cohort=v).cohort,
    "rounds": lambda p, v: asked_rounds(v, 1),
    "evaluate_every": lambda p, v: asked_rounds(4, v),
    "seed": lambda p, v: next(sps.sweep(sps.proxskip, p, [point(seed=v)], rounds=2)).history,
    "batch_size": lambda p, v: made(batch_size=v).batch_size,
    "ridge": lambda p, v: made(ridge=v).ridge,
    "outputs": lambda p, v: made(outputs=v).init(KEY),
}


def point(**changed):
    return {"stepsize": 0.5, "local_steps": 2} | changed


@pytest.mark.parametrize("kind", ONE)
@pytest.mark.parametrize("setting", USED)
def test_one_number_is_the_same_of_anyone(setting, kind, small):
    found, want = USED[setting](small, ONE[kind](2)), USED[setting](small, 2)
    assert jax.tree.structure(found) == jax.tree.structure(want)
    assert jax.tree.map(lambda a: (a.dtype.name, a.tolist()) if hasattr(a, "dtype") else (type(a), a), found) == (
        jax.tree.map(lambda a: (a.dtype.name, a.tolist()) if hasattr(a, "dtype") else (type(a), a), want)
    )
    hash(found) if setting in ("cohort", "quantize_bits") else None  # static, where a program is looked up by it


@pytest.mark.parametrize("kind", NONE)
@pytest.mark.parametrize("setting", USED)
def test_what_is_not_one_number_is_refused_in_a_sentence(setting, kind, small):
    with pytest.raises(ValueError) as error:
        USED[setting](small, NONE[kind])
    said = str(error.value)
    assert re.search(rf"\b{setting}\b", said) and "\n" not in said and len(said) < 150


def test_a_method_of_ones_own_may_take_anything_that_can_be_told_apart(small):
    def mine(*, stepsize, mode="fast"):
        return sps.gd(stepsize=stepsize)

    assert ("mode", "slow") in sps.prepare(mine, {"stepsize": 1, "mode": "slow"}, jnp.float32).options
    with pytest.raises(ValueError, match="mode must be a single number, or hashable, not a list"):
        sps.prepare(mine, {"stepsize": 1, "mode": ["slow"]}, jnp.float32)


@pytest.mark.parametrize("hyper", [None, [0.1], 0.1, "stepsize"])
def test_hyperparameters_have_names(hyper, small):
    with pytest.raises(ValueError, match="hyperparameters must be a dict of names and values, not "):
        sps.simulate(sps.gd, small, hyper, KEY, rounds=1)


# --- points of a sweep ------------------------------------------------------------------------------------------------

SEVERAL = {
    "array": np.array,
    "column": pandas.Series,
    "nullable": lambda v: pandas.array(v, dtype="Float64"),
    "JAX": jnp.array,
    "unmasked": np.ma.array,
    "generator": iter,
    "tuple": tuple,
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_grid_of_any_values(kind, small):
    want = list(sps.sweep(sps.proxskip, small, sps.grid(**point(stepsize=[0.25, 0.5])), rounds=2))
    found = list(sps.sweep(sps.proxskip, small, sps.grid(**point(stepsize=SEVERAL[kind]([0.25, 0.5]))), rounds=2))
    for a, b in zip(found, want, strict=True):
        assert {name: float(value) for name, value in a.point.items()} == b.point
        assert a.history["train_loss"].tolist() == b.history["train_loss"].tolist()


@pytest.mark.parametrize(
    "values", [{0.1: 1, 0.2: 2}, {0.1, 0.2}, frozenset({0.1}), pandas.DataFrame({"stepsize": [0.1]})]
)
def test_a_grid_of_what_has_no_order_or_is_iterated_by_its_names(values):
    with pytest.raises(ValueError, match="stepsize must be a value, or several in a list, not a"):
        sps.grid(stepsize=values)


@pytest.mark.parametrize("values", [np.ma.array([0.1, 0.2], mask=[0, 1]), pandas.array([0.1, None], dtype="Float64")])
def test_a_missing_value_of_a_grid(values, small):
    with pytest.raises(ValueError, match=r"stepsize must be a single number, not (masked|<NA>)"):
        sps.sweep(sps.proxskip, small, sps.grid(**point(stepsize=values)), rounds=1)


FRAME = pandas.DataFrame([point(seed=1), point(stepsize=0.25, seed=2)])
POINTS = {
    "generator": lambda: (row for row in FRAME.to_dict("records")),
    "rows of a frame": lambda: [row for _, row in FRAME.iterrows()],  # seeds and local steps are floats in these
    "tuple": lambda: tuple(FRAME.to_dict("records")),
}


@pytest.mark.parametrize("kind", POINTS)
def test_points_of_any_container(kind, small):
    want = [o.history["train_loss"] for o in sps.sweep(sps.proxskip, small, FRAME.to_dict("records"), rounds=2)]
    found = [o.history["train_loss"] for o in sps.sweep(sps.proxskip, small, POINTS[kind](), rounds=2)]
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("points", [FRAME, point(), None, [1], ["stepsize"], "ab", FRAME.to_numpy(), FRAME["seed"]])
def test_points_are_mappings(points, small):
    with pytest.raises(ValueError, match=r"^points must be a list of dicts, as from grid[^\n]*$"):
        sps.sweep(sps.proxskip, small, points, rounds=1)
