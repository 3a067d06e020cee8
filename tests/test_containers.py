"""What one reader says of containers that NumPy reads wrongly or not at all."""

import numpy as np
import pandas
import psutil
import pytest
import scipy.sparse

import sps_jax as sps
from sps_jax.datasets.containers import as_array, as_labels, as_numbers
from sps_jax.datasets.names import as_list
from sps_jax.errors import real, single_number, whole, whole_number

FRAME = pandas.DataFrame({"age": [31, 7, 64], "tall": [True, False, True], "b": [0.5, 1.5, 2.5]}, index=[9, 9, 9])


def test_a_frame_is_read_column_by_column():
    """To NumPy it is one of objects, as soon as whole numbers and booleans meet."""
    assert FRAME[["age", "tall"]].to_numpy().dtype == object
    np.testing.assert_array_equal(as_array("x", FRAME[["age", "tall"]]), [[31, 1], [7, 0], [64, 1]])
    a = as_array("x", FRAME)
    assert a.dtype == np.float64 and a.tolist() == [[31, 1, 0.5], [7, 0, 1.5], [64, 1, 2.5]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pandas.array([1, None, 2], dtype="Int64"), "x column 'b' has no value in row 1: fill it"),
        (pandas.array([None, 1, 2], dtype="double[pyarrow]"), "x column 'b' has no value in row 0: fill it"),
        (["p", "q", "r"], "x column 'b' holds <U1, not real numbers; np.unique"),
        (pandas.Categorical([3, 3, 4]), "x column 'b' holds categories, not real numbers: give their codes"),
        (pandas.date_range("2026", periods=3), "x column 'b' holds datetime64"),
        (pandas.to_timedelta([1, 2, 3], "s"), "x column 'b' holds timedelta64"),
        ([np.zeros(2)] * 3, "x column 'b' holds arrays: pass that column alone as x"),
        ([np.zeros(2), np.zeros(3), 0], r"x column 'b' is ragged: x column 'b'\[0\] has shape"),
    ],
)
def test_the_wrong_column_is_named(column, message):
    frame = FRAME.reset_index(drop=True)
    frame["b"] = column
    with pytest.raises(ValueError, match=message):
        as_array("x", frame)


@pytest.mark.parametrize(
    "make", [scipy.sparse.csr_array, scipy.sparse.lil_matrix, pandas.DataFrame.sparse.from_spmatrix]
)
def test_what_is_sparse_and_would_not_fit_is_refused(make, monkeypatch):
    """100 x 200 float64 are 160,000 bytes: 0.00016 GB."""
    given = make(scipy.sparse.eye(100, 200, format="csr"))
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=160_000))
    np.testing.assert_array_equal(as_array("x", given), np.eye(100, 200))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=159_999))
    with pytest.raises(
        ValueError, match=r"x as a dense array of shape \(100, 200\) needs 0.00016 GB; 0.00016 GB are free"
    ):
        as_array("x", given)


def test_integers_keep_what_jax_can_hold():
    assert as_numbers("x", np.array([1, 2], ">i2"), "float32").dtype == np.dtype("=i2")
    assert as_numbers("x", np.array([2**31 - 1], np.uint64), "float32").dtype == np.int32
    with pytest.raises(ValueError, match="integers beyond 32 bits, such as -9223372036854775808"):
        as_numbers("x", np.array([1, -(2**63)]), "float32")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[[1.0], [1.0, 2.0]]], r"x\[0\] is ragged: x\[0\]\[0\] has shape \(1,\), x\[0\]\[1\] \(2,\)"),
        ([[1], 2], r"x is ragged: x\[0\] has shape \(1,\), x\[1\] \(\)"),
        ([np.ma.array([1, 2], mask=[0, 1])], r"x\[0\] is masked at entry \(1,\)"),
        (np.ma.masked_greater([[1, 2], [3, 4]], 2), r"x is masked at entry \(1, 0\)"),
        ((v for v in [1]), "x is a generator, which is not a number, array, data frame or list of them"),
        ({"a": [1]}, "x is a dict, which is not a number"),
    ],
)
def test_what_is_no_array(values, message):
    with pytest.raises(ValueError, match=message):
        as_array("x", values)


def test_ids_are_pythons_objects():
    assert as_list("ids", (v for v in "ab")) == ["a", "b"]
    assert as_list("ids", pandas.Categorical(["b", "a"])) == ["b", "a"]
    assert as_list("ids", [(1, 2), frozenset({3}), None]) == [(1, 2), frozenset({3}), None]
    assert as_list("ids", [np.array(3), np.int64(4)]) == [3, 4]
    with pytest.raises(
        ValueError, match=r"ids must be one hashable value per example, \(N,\), not a DataFrame of shape"
    ):
        as_list("ids", FRAME)  # a list of it are the names of its columns


def test_labels_keep_their_dtype():
    assert as_labels("y", np.float32([1, np.nan])).dtype == np.float32
    with pytest.raises(ValueError, match=r"y has no value at entry \(1,\): None"):
        as_labels("y", pandas.Series(["a", None], dtype=object))


def test_test_takes_a_pair():
    x, y = np.eye(2), np.array([0, 1])
    for test in ((x, y, y), [x], ()):
        with pytest.raises(ValueError, match=rf"test must be \(x, y\), or a fraction .* of {len(test)}"):
            sps.from_arrays(x, y, y, test=test)
    for name in ("test", "validation"):
        for wrong in ({"x": x}, x, FRAME, "0.5", np.ma.masked, pandas.NA, True):
            with pytest.raises(ValueError, match=rf"^{name} must be a fraction in \(0, 1\), not [^\n]*$"):
                sps.from_arrays(x, y, y, **{name: wrong})
    assert sps.from_arrays(np.eye(4), np.ones(4, int), np.zeros(4), test=np.array(0.5)).counts.tolist() == [2]


# --- one number -------------------------------------------------------------------------------------------------------

NUMBERS = [2, 2.0, np.int64(2), np.uint8(2), np.float16(2), np.array(2), np.array(2, object), np.ma.array(2)]
NO_NUMBERS = [None, "2", True, np.True_, 2j, [2], np.array([2]), np.array("2"), np.ma.masked, pandas.NA, pandas.NaT]
NO_NUMBERS += [np.ma.array(2, mask=True), pandas.Series([2]), {2}, np.datetime64(2, "s"), object()]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_one_number_is_read(value):
    assert real(value) == whole(value) == single_number("a", value) == whole_number("a", value) == 2
    assert type(whole(value)) is int and type(real(value)) in (int, float)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_not_one_number_is_refused(value):
    assert real(value) is None and whole(value) is None
    for function, kind in ((single_number, "single"), (whole_number, "whole")):
        with pytest.raises(ValueError, match=rf"^a must be a {kind} number, not [^\n]{{1,60}}$"):
            function("a", value)


@pytest.mark.parametrize("value", [2.5, np.nan, np.inf, -np.inf, np.float32(0.5)])
def test_what_is_not_whole_is_refused(value):
    with pytest.raises(ValueError, match="a must be a whole number, not "):
        whole_number("a", value)
