"""Checks of user input, single numbers and names from a table, and the error messages that reject it."""

import difflib
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

SCALARS = (bool, int, float, complex, str, bytes, np.generic)

LISTED = 60
"""The most names that an error message lists."""
SYNONYMS = {"lr": "stepsize", "learning_rate": "stepsize", "step_size": "stepsize", "gamma": "stepsize"}
SYNONYMS |= {"p": "prob", "epochs": "local_steps", "steps": "local_steps", "num_clients": "clients", "bs": "batch_size"}
"""Other names of options and hyperparameters -> their names here."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> ValueError:
    """Return the ``ValueError`` for a ``name`` that is not a known ``kind``; the caller raises it.

    >>> print(unknown("algorithm", "fedvag", ["fedavg", "gd"]))
    unknown algorithm 'fedvag': did you mean 'fedavg'? Allowed: fedavg, gd
    """
    allowed = list(allowed)
    near = [SYNONYMS[name]] if SYNONYMS.get(name) in allowed else difflib.get_close_matches(str(name), allowed, 1, 0.5)
    guess = f" did you mean {near[0]!r}?" if near else ""
    more = f" and {len(allowed) - LISTED} more" if len(allowed) > LISTED else ""
    return ValueError(f"unknown {kind} {name!r}:{guess} Allowed: {', '.join(allowed[:LISTED])}{more}")


def refuse_unknown(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raise :func:`unknown` if ``name`` is not one of those ``allowed``."""
    if name not in allowed:
        raise unknown(kind, name, allowed)


def real(value: Any) -> int | float | None:
    """Convert ``value`` to a Python ``int`` or ``float``; None if it is not a single real number.

    Booleans, masked values and text are not numbers.

    >>> real(np.float32(0.5)), real(np.array(3)), real(np.ma.masked), real("0.5"), real([0.5])
    (0.5, 3, None, None, None)
    """
    if isinstance(value, bool | np.bool_) or (isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value)):
        return None
    if isinstance(value, Real):
        return value.item() if isinstance(value, np.generic) else value if isinstance(value, int) else float(value)
    if getattr(value, "shape", None) != () or not hasattr(value, "__array__"):
        return None
    try:
        item = np.asarray(value).item()
    except Exception:  # a key, or a tensor with a gradient
        return None
    return real(item) if isinstance(item, Real) else None


def whole(value: Any) -> int | None:
    """Convert ``value`` to an ``int``; None if it is not a single whole number.

    >>> whole(np.int64(3)), whole(3.0), whole(2.5), whole(math.nan), whole(True)
    (3, 3, None, None, None)
    """
    number = real(value)
    if number is None or not (isinstance(number, int) or (math.isfinite(number) and number == int(number))):
        return None
    return int(number)


def single_number(name: str, value: Any) -> int | float:
    """Convert ``value`` by :func:`real`, or raise a ``ValueError`` that names the argument.

    >>> single_number("ridge", np.array(0.5))
    0.5
    """
    number = real(value)
    if number is None:
        raise ValueError(f"{name} must be a single number, not {described(value)}")
    return number


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Convert ``value`` by :func:`whole`; raise a ``ValueError`` that names the argument if it fails or is < ``least``.

    >>> whole_number("rounds", 5.0)
    5
    """
    number = whole(value)
    if number is None:
        raise ValueError(f"{name} must be a whole number, not {described(value)}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def is_missing(value: Any) -> bool:
    """Return whether ``value`` is a missing value: None, a NaN, pandas' NA or NaT, or NumPy's ``masked``.

    >>> [is_missing(value) for value in (None, float("nan"), np.ma.masked, 0)]
    [True, True, True, False]
    """
    if _is_nothing(value):
        return True
    try:
        return bool(value != value)
    except Exception:  # an array, or an object that cannot be compared
        return False


def _is_nothing(value: Any) -> bool:
    return value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType")


def comes_from(value: Any, package: str) -> bool:
    """Return whether the type of ``value``, or a base of it, is defined in ``package``.

    >>> comes_from(np.zeros(2), "numpy"), comes_from(2, "numpy")
    (True, False)
    """
    return any(f"{base.__module__}.".startswith(f"{package}.") for base in type(value).__mro__)


def described(value: Any) -> str:
    """Describe ``value`` for an error message: briefly and on one line, however large it is.

    >>> described(np.zeros((2, 3))), described("0.1"), described({"a": 1})
    ('an array of shape (2, 3)', "'0.1'", 'a dict')
    """
    if _is_nothing(value) or isinstance(value, SCALARS):
        plain = repr(value.item() if isinstance(value, np.number) else value)
        return plain if len(plain) <= 40 else f"{plain[:37]}..."
    name, shape = type(value).__name__, getattr(value, "shape", ())
    kind = {"ndarray": "array", "ArrayImpl": "array"}.get(name, name)
    size = f" of shape {tuple(shape)}" if shape and isinstance(shape, tuple) else ""
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}{size}"
