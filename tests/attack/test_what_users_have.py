"""Whatever users keep numbers in, wherever they give it: the plain arrays' problem bit for bit, or one sentence."""

import array
import importlib.util
from collections import deque
from datetime import date
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pyarrow
import pytest
import scipy.sparse

import sps_jax as sps
from sps_jax.datasets import partition

# bits, which every dtype holds exactly and booleans too
X = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
Y = np.array([1, 0, 1, 1, 0, 0])
IDS = np.array([1, 1, 0, 1, 0, 0])


class Tensor:
    """As torch's: read through ``__array__``, which raises where there is a gradient or another device."""

    def __init__(self, a, error=None):
        self.a, self.error, self.shape = a, error, np.shape(a)

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return np.asarray(self.a, dtype)

    def item(self):
        return self.a.item()


class Exchanged:
    """Known by ``__dlpack__`` alone."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


def pandas_of(dtype):
    """A frame or a column, with an index that is not 0, 1, 2, ..."""

    def make(a):
        kind = pandas.DataFrame if a.ndim == 2 else pandas.Series
        return kind(a, index=np.arange(len(a))[::-1] + 7).astype(dtype)

    return make


def frame_of_several_kinds(a):
    if a.ndim == 1:
        return pandas.Series([bool(v) if i % 2 else int(v) for i, v in enumerate(a)], dtype=object)
    columns = [a[:, 0].astype(bool), pandas.array(a[:, 1], dtype="Int64"), a[:, 2].astype(np.float32)]
    return pandas.DataFrame(dict(enumerate(columns))).set_axis([*"abb"], axis=1)  # two columns of one name


def fortran(a):
    return np.asfortranarray(a.astype(float))


def readonly(a):
    a = a.astype(np.float32)
    a.flags.writeable = False
    return a


def strided(a):
    return np.repeat(a, 2, axis=0).astype(np.int16)[::2]


def masked_lists(a):
    return [np.ma.array(row) for row in a]


def objects(a):
    return a.astype(object)


def rows_of_objects(a):
    """As pictures lie in a data frame: each row an array."""
    if a.ndim == 1:
        return pandas.Series(list(a), dtype=object)
    rows = np.empty(len(a), object)
    rows[:] = list(a)
    return pandas.Series(rows)


DTYPES = ["f8", "f4", "f2", ">f8", ">i2", "i8", "u8", "i1", "?", np.longdouble, jnp.bfloat16]
PANDAS = ["int64", "Int8", "Float64", "boolean", "int64[pyarrow]", "double[pyarrow]", "bool[pyarrow]", "object"]
SAME = {f"NumPy {np.dtype(dtype).str}": lambda a, dtype=dtype: a.astype(dtype) for dtype in DTYPES}
SAME |= {
    f"JAX {dtype}": lambda a, dtype=dtype: jnp.asarray(a, dtype) for dtype in ("float32", "bfloat16", "int4", "bool")
}
SAME |= {f"pandas {dtype}": pandas_of(dtype) for dtype in PANDAS}
SAME |= {
    "pandas sparse": pandas_of(pandas.SparseDtype("int64", 0)),
    "pandas several kinds": frame_of_several_kinds,
    "pandas rows": rows_of_objects,
    "pyarrow": lambda a: (
        pyarrow.table({str(j): column for j, column in enumerate(a.T)}) if a.ndim > 1 else pyarrow.array(a)
    ),
    "fortran": fortran,
    "readonly": readonly,
    "strided": strided,
    "memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
    "masked nowhere": lambda a: np.ma.array(a, mask=np.zeros(a.shape, bool)),
    "without a mask": np.ma.array,
    "lists": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())) if a.ndim > 1 else tuple(a.tolist()),
    "list of arrays": list,
    "list of JAX arrays": lambda a: list(jnp.asarray(a)),
    "list of masked arrays": masked_lists,
    "list of tensors": lambda a: [Tensor(row) for row in a],
    "list of columns": lambda a: [pandas.Series(row) for row in a] if a.ndim > 1 else a.tolist(),
    "deque": lambda a: deque(a.tolist()),
    "objects": objects,
    "tensor": Tensor,
    "DLPack": Exchanged,
}
for package, make in {
    "torch": lambda m, a: m.tensor(a),
    "polars": lambda m, a: m.DataFrame(a) if a.ndim > 1 else m.Series(a),
    "xarray": lambda m, a: m.DataArray(a),
}.items():
    if importlib.util.find_spec(package):
        SAME[package] = lambda a, package=package, make=make: make(importlib.import_module(package), a)

FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
SPARSE = {f"{f}_{kind}": getattr(scipy.sparse, f"{f}_{kind}") for f in FORMATS for kind in ("matrix", "array")}
FLAT = {
    "array": lambda a: array.array("d", a),
    "pandas array": lambda a: pandas.array(a, dtype="Int64"),
    "pandas index": pandas.Index,
    "0-d scalars": lambda a: [np.array(v) for v in a],
}
NAMES = {  # of a client or a class
    "categories": pandas_of("category"),
    "Categorical": pandas.Categorical,
    "strings": lambda a: a.astype(str),
    "pandas strings": pandas_of("string"),
    "pyarrow strings": lambda a: pandas_of("string[pyarrow]")(a),
    "bytes": lambda a: a.astype("S"),
}
LABELS = {  # of a client, but no real numbers nor names
    "complex": lambda a: a.astype(complex),
    "dates": lambda a: a.astype("datetime64[D]"),
    "times of a zone": lambda a: pandas.Series(pandas.to_datetime(a, utc=True)),
    "spans": lambda a: a.astype("timedelta64[s]"),
    "date objects": lambda a: [date(2026, 1, 1 + v) for v in a],
    "decimals": lambda a: list(map(Decimal, a.tolist())),
    "records": lambda a: np.rec.fromarrays([a, a], names="p,q"),
}


def problem_of(argument, make):
    """The problem with ``make`` of what is given for ``argument``."""
    given = {"x": X, "y": Y, "client_ids": IDS}
    if argument in given:
        return sps.from_arrays(*(given | {argument: make(given[argument])}).values(), loss="softmax")
    x, y = (make(X), Y) if argument == "test x" else (X, make(Y))
    return sps.from_arrays(x, y, IDS, loss="softmax", test=(x, y))


def assert_same(found, wanted):
    assert found.counts.tolist() == wanted.counts.tolist()
    leaves = [(problem.data, problem.test) for problem in (found, wanted)]
    assert jax.tree.structure(leaves[0]) == jax.tree.structure(leaves[1])
    for a, b in zip(*map(jax.tree.leaves, leaves), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_one_sentence(error, argument):
    said = str(error.value)
    assert said.startswith(argument) and "\n" not in said and len(said) < 250, said


@pytest.fixture(scope="module")
def plain():
    return {argument: problem_of(argument, lambda a: a) for argument in ("x", "y", "client_ids", "test x", "test y")}


@pytest.mark.parametrize("argument", ["x", "y", "client_ids", "test x", "test y"])
@pytest.mark.parametrize("container", SAME)
def test_the_same_problem(container, argument, plain):
    if argument == "client_ids" and container == "DLPack":  # no iteration
        with pytest.raises(ValueError) as error:
            problem_of(argument, SAME[container])
        assert_one_sentence(error, argument)
    else:
        assert_same(problem_of(argument, SAME[container]), plain[argument])


@pytest.mark.parametrize("container", FLAT)
@pytest.mark.parametrize("argument", ["y", "client_ids", "test y"])
def test_the_same_problem_of_what_has_one_axis(container, argument, plain):
    assert_same(problem_of(argument, FLAT[container]), plain[argument])


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("container", [*SPARSE, "matrix"])
@pytest.mark.parametrize("argument", ["x", "test x"])
def test_the_same_problem_of_what_has_two_axes(container, argument, plain):
    assert_same(problem_of(argument, (SPARSE | {"matrix": lambda a: np.asmatrix(a)})[container]), plain[argument])


@pytest.mark.parametrize("container", NAMES)
def test_names_are_clients_or_classes(container, plain):
    """Sorted, they are 0, 1 here; the problem remembers what was sorted, unless it was 0, 1 itself."""
    make = NAMES[container]
    assert_same(problem_of("client_ids", make), plain["client_ids"])
    found = sps.from_arrays(X, make(Y), IDS, loss="softmax", test=(X, make(Y)))
    assert_same(found, plain["test y"])
    sorted_names = tuple(sorted(set(make(Y).tolist())))
    assert found.classes == (None if sorted_names == (0, 1) else sorted_names)


@pytest.mark.parametrize("container", LABELS)
def test_labels_name_clients_but_are_no_numbers(container, plain):
    """A client's name may be anything; numbers are refused with what would make some of it."""
    assert_same(problem_of("client_ids", LABELS[container]), plain["client_ids"])
    with pytest.raises(ValueError) as error:
        problem_of("y", LABELS[container])
    assert_one_sentence(error, "y")


def lacking(dtype):
    def make(a):
        column = pandas.Series(a).astype(dtype)
        column[2] = None
        return column

    return make


def deleted(a):
    a = jnp.asarray(a)
    a.delete()
    return a


KEYS = jax.random.split(jax.random.key(0), 6)
GRADIENT = RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
DEVICE = TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu() first.")
NOTHING = "no value in row 2: fill it, or leave such examples out"
REFUSED = {  # with words for numbers, and for ids
    "None": (lambda a: None, "is None, which is not a number", "one hashable value per example, not None"),
    "text": (lambda a: "010101", "holds <U6, not real numbers", "not '010101'"),
    "no axis": (lambda a: np.array(1), r"has shape \(\)", "not an array"),
    "a number": (lambda a: 1, r"has shape \(\)", "not 1"),
    "dict": (lambda a: dict(enumerate(a)), "is a dict, which is no", "not a dict"),
    "set": (lambda a: set(a), "is a set, which is no", "not a set"),
    "object": (lambda a: object(), "is an object, which is no", "not an object"),
    "module": (lambda a: np, "is a module, which is no", "not a module"),
    "masked": (lambda a: np.ma.array(a, mask=a * [0, 0, 1, 1, 0, 0]), *2 * [r"is masked at entry \(2,\)"]),
    "masked records": (
        lambda a: np.ma.array([(v, v) for v in a], "i4,i4", mask=[(0, i == 3) for i in range(6)]),
        *2 * [r"is masked at entry \(3,\)"],
    ),
    "masked in a list": (lambda a: [*a[:-1], np.ma.masked], r"\[5\] is masked: fill it", "no client for example 5: --"),
    "None in a list": (lambda a: [*a[:-1].tolist(), None], r"\[5\] is None", "no client for example 5: None"),
    "NA in a list": (lambda a: [*a[:-1], pandas.NA], r"\[5\] is <NA>", "no client for example 5: <NA>"),
    "NaN": (lambda a: np.where(a == 1, a, np.nan), r"entry \(1,\) is nan", "no client for example 1: nan"),
    "None among objects": (
        lambda a: np.array([*a[:-1], None], object),
        r"no value at entry \(5,\): None",
        "no client for example 5: None",
    ),
    "NA, Int64": (lacking("Int64"), NOTHING, NOTHING),
    "NA, boolean": (lacking("boolean"), NOTHING, NOTHING),
    "NA, Float64": (lacking("Float64"), NOTHING, NOTHING),
    "NA, string": (lacking("string"), NOTHING, NOTHING),
    "NA, category": (lacking("category"), NOTHING, NOTHING),
    "NA, pyarrow": (lacking("int64[pyarrow]"), NOTHING, NOTHING),
    "null, pyarrow": (
        lambda a: pyarrow.array([*a[:-1].tolist(), None]),
        r"entry \(5,\) is nan",
        "no client for example 5: nan",
    ),
    "keys": (lambda a: KEYS, *2 * ["NumPy cannot read .JAX array with PRNGKey"]),
    "list of keys": (lambda a: list(KEYS), *2 * [r"\[0\] is a PRNGKeyArray that NumPy cannot read"]),
    "gradient": (lambda a: Tensor(a, GRADIENT), *2 * ["a Tensor of shape .6,. that NumPy cannot read .Can't call"]),
    "device": (lambda a: Tensor(a, DEVICE), *2 * ["NumPy cannot read .can't convert cuda:0 device type tensor"]),
    "gradient in a list": (lambda a: [a[0], Tensor(a[0], GRADIENT)], *2 * [r"\[1\] is a Tensor that"]),
    "deleted": (deleted, *2 * ["NumPy cannot read .Array has been deleted"]),
    "ragged": (
        lambda a: [[1, 0]] * 5 + [[1]],
        r"ragged: (test )?y\[0\] has shape \(2,\), (test )?y\[5\] \(1,\)",
        "one hashable value per example .unhashable type: 'list'",
    ),
    "rows of tensors": (
        lambda a: [Tensor(np.ones(2)), Tensor(np.ones(3))],
        r"\[1\] \(3,\)",
        r"\[0\] is a Tensor of shape \(2,\), not one hashable value",
    ),
    "whole numbers, large": (lambda a: [2**63, -1], "integers beyond 64 bits", "6 examples and client_ids 2"),
    "whole numbers, huge": (lambda a: [10**400, 1.5], r"\[0\] is 1000", "6 examples and client_ids 2"),
}


@pytest.mark.parametrize("container", REFUSED)
@pytest.mark.parametrize("argument", ["y", "client_ids", "test y"])
def test_one_sentence(container, argument):
    make, numbers, names = REFUSED[container]
    given = {"y": (X, make(Y), IDS), "client_ids": (X, Y, make(Y)), "test y": (X, Y, IDS)}[argument]
    with pytest.raises(ValueError, match=names if argument == "client_ids" else numbers) as error:
        sps.from_arrays(*given, loss="softmax", test=(X, make(Y)) if argument == "test y" else None)
    assert argument in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize("container", [*SAME, *FLAT, *NAMES, *LABELS])
def test_labels_of_a_partition(container):
    make = (SAME | FLAT | NAMES | LABELS)[container]
    if container in ("list of tensors", "records", "list of JAX arrays", "pyarrow"):
        return
    try:
        parts = partition.natural(make(IDS))
    except ValueError as error:
        assert str(error).startswith("groups"), error
        return
    assert [part.tolist() for part in parts] == [[0, 1, 3], [2, 4, 5]]


@pytest.mark.parametrize(
    "container", ["masked", "NA, Int64", "NA, boolean", "NA, string", "None among objects", "dict"]
)
@pytest.mark.parametrize("deal", [partition.natural, lambda labels: partition.dirichlet(labels, 2, 1.0, 0)])
def test_labels_of_a_partition_that_are_missing(container, deal):
    with pytest.raises(ValueError, match=r"groups|labels"):
        deal(REFUSED[container][0](IDS))
