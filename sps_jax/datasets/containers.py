"""Convert users' containers of numbers to NumPy arrays; all user data pass through here.

``np.asarray`` drops a mask, treats a sparse matrix as one object, and turns missing values of a data frame into NaN.
Here each container is converted with its own meaning, or refused with one sentence. Libraries are recognised by the
names of their modules, so none is imported.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import psutil

from sps_jax.errors import SCALARS, comes_from, described, is_missing

ADVICE = {  # kind of a dtype -> remedy
    "c": "give their real and imaginary parts",
    "M": "subtract a date and divide by np.timedelta64(1, 's')",
    "m": "divide by np.timedelta64(1, 's')",
    "V": "np.lib.recfunctions.structured_to_unstructured converts records to numbers",
}
NAMES = "np.unique(names, return_inverse=True)[1] numbers classes"


def as_array(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as an array of real numbers, of a dtype of NumPy or ``ml_dtypes``.

    Accepts arrays of NumPy and JAX, masked arrays without a masked entry, pandas frames and columns without missing
    values, SciPy sparse matrices, ranges, lists of all of these, and any object with ``__array__`` or ``__dlpack__``.

    Raises:
      ValueError: for anything else, and for a missing entry; the message begins with ``name``.

    >>> as_array("x", [np.arange(2), (5, 7.5)]).tolist()
    [[0.0, 1.0], [5.0, 7.5]]
    """
    if isinstance(values, list | tuple):
        a = _of_list(name, values)
    elif comes_from(values, "pandas") and hasattr(values, "columns"):
        a = _of_frame(name, values)
    elif comes_from(values, "scipy.sparse"):
        a = _of_sparse(name, values)
    else:
        if getattr(getattr(values, "dtype", None), "name", None) == "category":
            raise ValueError(f"{name} holds categories, not real numbers: give their codes, or astype(float) of them")
        a = as_labels(name, values)
    return as_array(name, a.tolist()) if a.dtype == object else _real(name, a)


def as_numbers(name: str, values: Any, held: str) -> np.ndarray:
    """Return :func:`as_array` as finite floats of dtype ``held`` or integers of at most 32 bits; refuse an empty array.

    >>> as_numbers("x", [1, 2.5], "float32").dtype, as_numbers("y", [True, False], "float32").dtype
    (dtype('float32'), dtype('bool'))
    """
    a = as_array(name, values)
    if a.ndim < 1 or not a.size:
        raise ValueError(
            f"{name} has shape {a.shape}: it must be (N, ...), at least one example of at least one number"
        )
    if a.dtype.kind in "bui":
        small = a if a.dtype.itemsize < 4 else a.astype(np.int32)
        if small.dtype == np.int32 and (small != a).any():
            raise ValueError(f"{name} has integers beyond 32 bits, such as {a[small != a][0]}")
        return small
    with np.errstate(over="ignore"):
        floats = a.astype(held)
    if not np.isfinite(floats).all():
        row = tuple(np.argwhere(~np.isfinite(floats))[0].tolist())
        raise ValueError(f"{name} must be finite in {held}; entry {row} is {a[row]}")
    return floats


def as_labels(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as an array of any dtype, including strings and objects, without masked or missing entries.

    Raises:
      ValueError: if an entry is missing or ``values`` is not an array; NaN among floats counts as a label.

    >>> as_labels("y", np.ma.array(["a", "b"], mask=[False, False])).tolist()
    ['a', 'b']
    """
    a = read(name, values)
    if a.dtype == object:
        for row, value in np.ndenumerate(a):
            if is_missing(value):
                raise ValueError(f"{name} has no value{_at(row)}: {value}")
    return a


def _at(row: tuple[int, ...]) -> str:
    return f" at entry {row}" if row else ""


def _of_list(name: str, values: list | tuple) -> np.ndarray:
    """Convert a list: scalars at once; other and ragged lists entry by entry, to name the wrong entry."""
    kinds = leaf_types(values)
    if all(issubclass(kind, SCALARS) for kind in kinds):
        try:
            a = np.asarray(values)
        except OverflowError:
            raise ValueError(f"{name} has integers beyond 64 bits") from None
        except ValueError:
            pass  # ragged
        else:
            if kinds and kinds <= {bool, int} and a.dtype.kind in "fO":
                raise ValueError(f"{name} has integers beyond 64 bits")
            if a.dtype != object:  # object: the entries have no common dtype
                return a
    parts = [as_array(f"{name}[{i}]", value) for i, value in enumerate(values)]
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ValueError(f"{name} is ragged: {name}[0] has shape {parts[0].shape}, {name}[{i}] {part.shape}")
    try:
        return np.stack(parts)
    except TypeError:  # bfloat16 beside integers
        raise ValueError(f"{name} mixes {' and '.join(sorted({part.dtype.name for part in parts}))}") from None


def leaf_types(values: list | tuple) -> set[type]:
    """Return the types of the entries of nested lists."""
    kinds = set(map(type, values))
    if kinds and kinds <= {list, tuple}:
        return set().union(*map(leaf_types, values))
    return kinds


def _of_frame(name: str, frame: Any) -> np.ndarray:
    """Convert a frame by columns, because NumPy makes an object array of integer and boolean columns together."""
    dtypes = set(frame.dtypes)
    if len(dtypes) == 1 and isinstance(dtypes.copy().pop(), np.dtype) and dtypes != {np.dtype(object)}:
        return frame.to_numpy()
    columns = [as_array(f"{name} column {label!r}", frame.iloc[:, j]) for j, label in enumerate(frame.columns)]
    dtype = np.result_type(np.bool_, *{column.dtype for column in columns})
    _refuse_beyond_memory(name, frame.shape, dtype)
    a = np.empty(frame.shape, dtype)
    for j, column in enumerate(columns):
        if column.ndim > 1:
            raise ValueError(f"{name} column {frame.columns[j]!r} holds arrays: pass that column alone as {name}")
        a[:, j] = column
    return a


def _of_sparse(name: str, values: Any) -> np.ndarray:
    _refuse_beyond_memory(name, values.shape, values.dtype)
    return values.toarray()


def read(name: str, values: Any) -> np.ndarray:
    """Return an array of any dtype; refuse masked entries and missing values of pandas dtypes."""
    if isinstance(values, np.ma.MaskedArray):
        _refuse_masked(name, values)
    if comes_from(values, "scipy.sparse"):
        raise ValueError(f"{name} is {described(values)}: its toarray() is an array")
    if comes_from(values, "pandas") and hasattr(values, "isna") and not hasattr(values, "columns"):
        _refuse_missing(name, values)
        values = values.to_numpy()
    a = _by_protocol(name, values)
    if a.dtype == object and not a.ndim:
        raise ValueError(f"{name} is {described(values)}, which is not a number, array, data frame or list of them")
    return a


def _by_protocol(name: str, values: Any) -> np.ndarray:
    """Convert by ``__array__`` or ``__dlpack__``; an error quotes their reason, such as a device or a gradient."""
    _refuse_data_set(name, values)
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)
        return np.asarray(values)
    except MemoryError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(f"{name} is {described(values)} that NumPy cannot read ({reason})") from None


def _refuse_data_set(name: str, values: Any) -> None:
    """Raise a ``ValueError`` for an object whose entries are an example with its label, such as torch's data sets."""
    if hasattr(values, "__array__") or not hasattr(values, "__getitem__"):
        return
    try:
        first = values[0]
    except Exception:  # no entries, or not numbered
        return
    if isinstance(first, tuple | Mapping):
        part = next(iter(first), 0) if isinstance(first, Mapping) else 0
        raise ValueError(
            f"{name} is {described(values)} whose entries are {type(first).__name__}s: give an array of each part, "
            f"such as np.stack([entry[{part!r}] for entry in data])"
        )


def _real(name: str, a: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "biuf" or jnp.issubdtype(a.dtype, np.floating):
        return a.astype(a.dtype.newbyteorder("="), copy=False)  # JAX accepts only the native byte order
    if a.dtype.kind == "V" and jnp.issubdtype(a.dtype, np.integer):  # int4, int2
        return a.astype(np.int8)
    raise ValueError(f"{name} holds {a.dtype}, not real numbers; {ADVICE.get(a.dtype.kind, NAMES)}")


def _refuse_masked(name: str, values: np.ma.MaskedArray) -> None:
    mask = np.ma.getmaskarray(values)
    if mask.dtype.names:  # structured: one mask entry per field
        mask = mask.view(bool).reshape(*mask.shape, len(mask.dtype.names))
    if mask.any():
        where = tuple(np.argwhere(mask)[0][: values.ndim].tolist())
        raise ValueError(f"{name} is masked{_at(where)}: fill it, or leave such examples out")


def _refuse_missing(name: str, column: Any) -> None:
    """Raise a ``ValueError`` for a missing value of a pandas dtype; NumPy dtypes hold NaN instead."""
    if isinstance(column.dtype, np.dtype):
        return
    missing = np.asarray(column.isna())
    if missing.any():
        raise ValueError(f"{name} has no value in row {missing.argmax()}: fill it, or leave such examples out")


def _refuse_beyond_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    need, free = math.prod(map(int, shape)) * dtype.itemsize, psutil.virtual_memory().available
    if need > free:
        raise ValueError(
            f"{name} as a dense array of shape {tuple(shape)} needs {need / 1e9:.3g} GB; {free / 1e9:.3g} GB are free"
        )
