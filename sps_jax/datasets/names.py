"""Convert users' labels of examples, which may be names: classes to arrays, and client ids to lists."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sps_jax.datasets.containers import as_labels, as_numbers, leaf_types, read
from sps_jax.errors import comes_from, described


def as_classes(name: str, values: Any, held: str) -> np.ndarray:
    """Return strings, bytes and categories as an array of objects, all else by :func:`as_numbers`.

    >>> as_classes("y", ["cat", "dog"], "float32").tolist(), as_classes("y", [1, 0], "float32").dtype.kind
    (['cat', 'dog'], 'i')
    """
    if isinstance(values, list | tuple):
        named = bool(values) and all(issubclass(kind, str | bytes) for kind in leaf_types(values))
    elif getattr(getattr(values, "dtype", None), "name", None) == "category":
        named = True
    else:
        readable = hasattr(values, "__array__") or (
            isinstance(values, Sequence) and not isinstance(values, str | bytes)
        )
        other = hasattr(values, "columns") or comes_from(values, "scipy.sparse")
        a = read(name, values) if readable and not other else np.empty(0)
        named = a.ndim > 0 and a.size > 0 and isinstance(a.flat[0], str | bytes)
    return as_labels(name, values).astype(object) if named else as_numbers(name, values, held)


def as_list(name: str, values: Any) -> list:
    """Return ``values`` (N,), such as client ids, as a list of Python objects; None and NaN stay, masked ones raise.

    Raises:
      ValueError: if ``values`` is not a sequence of single values.

    >>> as_list("client_ids", range(3)), as_list("client_ids", np.array(["a", "b"]))
    ([0, 1, 2], ['a', 'b'])
    """
    if isinstance(values, str | bytes | Mapping | set | frozenset) or comes_from(values, "scipy.sparse"):
        raise ValueError(f"{name} must be an array or a list of one value per example, not {described(values)}")
    if hasattr(values, "__array__"):
        a = read(name, values)
        if a.ndim != 1:
            raise ValueError(f"{name} must be one hashable value per example, (N,), not {described(values)}")
        return a.tolist()
    try:
        several = list(values)
    except TypeError:
        raise ValueError(f"{name} must be one hashable value per example, not {described(values)}") from None
    strange = [kind for kind in set(map(type, several)) if hasattr(kind, "__array__")]
    return [_item(f"{name}[{i}]", value) for i, value in enumerate(several)] if strange else several


def _item(name: str, value: Any) -> Any:
    """Return a library's scalar as a Python number, because equal scalar tensors have different hashes."""
    if isinstance(value, np.generic) or value is np.ma.masked or not hasattr(value, "__array__"):
        return value
    a = read(name, value)
    if a.ndim:
        raise ValueError(f"{name} is {described(value)}, not one hashable value")
    return a.item()
