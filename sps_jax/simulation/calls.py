"""An algorithm whose functions say in one sentence what is wrong with them, for :func:`sps_jax.check_algorithm`."""

import inspect
from collections.abc import Callable
from typing import Any

from sps_jax.algorithms.base import Algorithm
from sps_jax.errors import described

FUNCTIONS = {
    name: [p.name for p in inspect.signature(kind.__call__).parameters.values() if p.name != "self"]
    for name, kind in Algorithm.__annotations__.items()
    if getattr(kind, "_is_protocol", False)
}
"""Function of an algorithm -> the names of the arguments that the engine gives it, by position."""


def watched(algorithm: Algorithm) -> Algorithm:
    """Return ``algorithm`` with functions that raise an ``AssertionError`` of one sentence where they go wrong.

    Raises:
      AssertionError: at once, for a function that does not take what the engine gives it; later, for one that fails,
        returns None, or is ``init`` and does not return a pair.

    Example:
      >>> from sps_jax import fedavg
      >>> method = fedavg(stepsize=0.1, prob=0.5)._replace(move=lambda x: x)
      >>> watched(method)
      Traceback (most recent call last):
      AssertionError: move takes (x), but it is called with 2 arguments by position: move(x, d)
    """
    functions: dict[str, Any] = {name: _watched(name, getattr(algorithm, name)) for name in FUNCTIONS}
    return algorithm._replace(**functions)


def _watched(name: str, function: Any) -> Callable:
    arguments = FUNCTIONS[name]
    call = f"{name}({', '.join(arguments)})"
    if not callable(function):
        raise AssertionError(f"{name} must be a function {call}, not {described(function)}")
    try:
        takes = inspect.signature(function)
    except (TypeError, ValueError):  # of C, which does not say
        takes = None
    try:
        if takes is not None:
            takes.bind(*arguments)
    except TypeError:
        how = f"it is called with {len(arguments)} argument{'s' * (len(arguments) > 1)} by position: {call}"
        raise AssertionError(f"{name} takes {takes}, but {how}") from None

    def checked(*given: Any) -> Any:
        try:
            found = function(*given)
        except AssertionError:
            raise
        except Exception as error:
            why = str(error).partition("\n")[0]
            got = f"; {_keys(arguments, given)}" if isinstance(error, KeyError) else ""
            raise AssertionError(f"{call} fails with {type(error).__name__}: {why}{got}") from error
        if found is None:
            raise AssertionError(f"{call} returns None: is its `return` missing?")
        if name == "init" and not (isinstance(found, tuple) and len(found) == 2):
            raise AssertionError(f"{call} must return the pair (h, server), not {described(found)}")
        return found

    return checked


def _keys(arguments: list[str], given: tuple[Any, ...]) -> str:
    """Name the keys of each argument that is a dict.

    >>> _keys(["x", "h"], ({"w": 1, "b": 2}, ()))
    'x has the keys w, b'
    """
    dicts = [(name, each) for name, each in zip(arguments, given, strict=True) if isinstance(each, dict)]
    return ", ".join(f"{name} has the keys {', '.join(map(str, each))}" for name, each in dicts)
