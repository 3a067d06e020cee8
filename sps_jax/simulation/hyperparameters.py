"""Checks of what users give a simulation: hyperparameters, each a number in its range or static, and a start."""

import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.algorithms.ranges import Range
from sps_jax.compression.leaves import listed
from sps_jax.errors import described, real, whole
from sps_jax.problem import Problem
from sps_jax.tree import Tree

RAMP = "sparsity_rounds"
"""A hyperparameter of every method that takes a ``sparsity``, see :func:`sps_jax.algorithms.ramped.ramped`."""
RANGES = {"prob": Range(0, 1, "(]"), "sparsity": Range(0, 1, "[)"), "stepsize": Range(0, np.inf, "(]")}
"""The ranges of the hyperparameters that mean the same in every method, where a factory declares none."""


def parameters(make: Callable) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function by name, with annotations that are text evaluated where that is possible."""
    try:
        return dict(inspect.signature(make, eval_str=True).parameters)
    except Exception:  # a name that exists for type checkers alone
        return dict(inspect.signature(make).parameters)


def kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation allows.

    >>> sorted(kind.__name__ for kind in kinds(Annotated[int | None, Range(1, 16)]))
    ['NoneType', 'int']
    """
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    return set(get_args(annotation) or (annotation,))


def declared(name: str, parameter: inspect.Parameter) -> Range:
    """Return the range that a factory declares for a hyperparameter, else that of its name."""
    said = get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()
    return next((each for each in said if isinstance(each, Range)), RANGES.get(name, Range(0)))


def check_maker(make: Any) -> None:
    """Raise a ``ValueError`` unless ``make`` is a factory of algorithms: not its name, nor what it returns."""
    if not callable(make):
        how = f"sps.ALGORITHMS[{make!r}]" if isinstance(make, str) else "the factory, with its hyperparameters apart"
        raise ValueError(f"the algorithm must be a factory such as sps.fedavg, not {described(make)}: give {how}")


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a Python real number, or already traced."""
    return isinstance(value, jax.core.Tracer) or (isinstance(value, Real) and not isinstance(value, bool))


def number_or_static(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """Return ``value``, converted to a Python number if it is a single number of any library.

    Raises:
      ValueError: if the parameter is annotated as a number and ``value`` is not one, or ``value`` is neither a number
        nor hashable.
    """
    if isinstance(value, jax.core.Tracer) or value is parameter.default:
        return value
    allowed, number = kinds(parameter.annotation), real(value)
    if number is not None:
        count = whole(number) if allowed <= {int, NoneType} else None
        return number if count is None else count
    if allowed <= {int, float, jax.Array, NoneType} and not (value is None and NoneType in allowed):
        raise ValueError(f"{name} must be a single number, not {described(value)}")
    try:
        hash(value)
    except TypeError:
        raise ValueError(f"{name} must be a single number, or hashable, not {described(value)}") from None
    return value


def check_range(name: str, value: Any, parameter: inspect.Parameter, dtype: Any, coin: bool = False) -> None:
    """Raise a ``ValueError`` if ``value``, or ``value`` rounded to ``dtype``, is out of range."""
    if isinstance(value, jax.core.Tracer):
        return
    allowed = declared(name, parameter)
    if float(value) not in allowed:
        raise ValueError(f"{name} must be {allowed}, not {float(value):g}")
    if kinds(parameter.annotation) <= {int, NoneType} and whole(value) is None:
        raise ValueError(f"{name} must be a whole number, not {float(value):g}")
    info = jnp.finfo(dtype)
    least = float(info.eps if coin else info.tiny)  # denormals flush to zero; a coin's uniforms are multiples of eps
    with np.errstate(over="ignore"):
        held = float(np.asarray(value, info.dtype)) if abs(float(value)) >= least else 0.0
    if held not in allowed:
        raise ValueError(f"{name} must be {allowed}, but {value!r} is {held:g} in {info.dtype}")


def is_schedule(name: str, value: Any, parameter: inspect.Parameter) -> bool:
    """Return whether ``value`` is a function in place of a number that may be traced."""
    number = name in RANGES or bool(kinds(parameter.annotation) & {float, jax.Array})
    return number and callable(value) and value is not parameter.default and real(value) is None


def first_value(name: str, schedule: Any, parameter: inspect.Parameter, dtype: Any) -> float:
    """Return the value of a schedule in round 0.

    Raises:
      ValueError: if it is no function of the round's number, or the value is out of range.
    """
    what = f"{name} must be a number, or a function of the round's number that returns one"
    try:
        hash(schedule)
        first = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{what}; this function fails: {type(error).__name__}: {why}") from error
    if getattr(first, "shape", None) != () or not jnp.issubdtype(first.dtype, jnp.number):
        raise ValueError(f"{what}; this one returns {described(first)}")
    check_scheduled({name: schedule}, {name: parameter}, 1, dtype)
    return float(schedule(jnp.int32(0)))


def check_scheduled(
    schedules: Mapping[str, Callable], takes: Mapping[str, inspect.Parameter], rounds: int, dtype: Any
) -> None:
    """Raise a ``ValueError`` if a schedule leaves the range of its hyperparameter within ``rounds`` rounds."""
    for name, schedule in schedules.items():
        values = np.asarray(
            jax.vmap(lambda t, f=schedule: jnp.asarray(f(t), dtype))(jnp.arange(rounds, dtype=jnp.int32))
        )
        allowed = declared(name, takes[name])
        odd = next((t for t, value in enumerate(values.tolist()) if value not in allowed), None)
        if odd is not None:
            raise ValueError(f"{name} must be {allowed}, but its schedule gives {values[odd]:g} in round {odd + 1}")


def rounds_of_ramp(value: Any) -> Any:
    """Convert T, the length of the sparsity ramp, to an integer, or raise a ``ValueError``."""
    if isinstance(value, jax.core.Tracer):
        return value
    rounds = whole(value)
    if rounds is None or rounds < 1:
        raise ValueError(f"{RAMP} must be an integer of at least 1, not {described(value)}")
    return rounds


def check_sparsifier(hyper: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` if the sparsity contradicts the sparsifier's structure, such as n:m groups."""
    sparsity, agree = hyper.get("sparsity"), getattr(hyper.get("prune"), "agree", None)
    if agree is not None and sparsity is not None and not isinstance(sparsity, jax.core.Tracer):
        agree(float(sparsity))


def check_params(problem: Problem, params: Tree | None) -> None:
    """Raise a ``ValueError`` unless ``params``, a user's starting point, are like the problem's; None is."""
    if params is None:
        return
    wanted, given = jax.eval_shape(problem.init, jax.random.key(0)), jax.eval_shape(lambda a: a, params)
    shapes: Any = [jax.tree.map(lambda a: a.shape, tree) for tree in (wanted, given)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"params must be like the problem's, {listed(wanted)}, not {listed(given)}")
    for like, leaf in zip(jax.tree.leaves(wanted), jax.tree.leaves(given), strict=True):
        if leaf.dtype not in (like.dtype, problem.ridge.dtype):
            raise ValueError(f"params must be {problem.ridge.dtype}, as the problem's are, not {leaf.dtype}")


def dtype_of(problem: Any) -> Any:
    """Return the dtype of a problem's parameters; raise a ``ValueError`` for what is no problem, such as its name."""
    if not isinstance(problem, Problem):
        made = "one that sps.from_arrays or a function of sps.problems makes"
        raise ValueError(f"the problem must be an sps.Problem, {made}, not {described(problem)}")
    return problem.ridge.dtype
