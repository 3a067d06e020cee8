"""Checks of what users give a simulation: hyperparameters, each a number in its range or static, and a start."""

import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from types import NoneType
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.compression.leaves import listed
from sps_jax.errors import described, real, whole
from sps_jax.problem import Problem
from sps_jax.tree import Tree

RAMP = "sparsity_rounds"
"""A hyperparameter of every method that takes a ``sparsity``, see :func:`sps_jax.algorithms.ramped.ramped`."""
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "prob": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "sparsity": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "alpha": (lambda v: 0 < v < np.inf, "positive and finite"),
    "drop": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "owners": (lambda v: 2 <= v < np.inf, "finite and at least 2"),
    "quantize_bits": (lambda v: v in range(1, 17), "a whole number from 1 to 16"),
    "readjust_every": (lambda v: 1 <= v < np.inf, "finite and at least 1"),
    "tau_min": (lambda v: 1 <= v < np.inf, "finite and at least 1"),
    "tau_max": (lambda v: 1 <= v < np.inf, "finite and at least 1"),
    "stepsize": (lambda v: 0 < v < np.inf, "positive and finite"),
}
"""The allowed range of a hyperparameter, by its name."""
ANY: tuple[Callable[[float], bool], str] = (lambda v: 0 <= v < np.inf, "finite and not negative")
"""The allowed range of every other hyperparameter."""


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
    kinds = set(get_args(parameter.annotation) or (parameter.annotation,))
    number = real(value)
    if number is not None:
        count = whole(number) if kinds <= {int, NoneType} else None
        return number if count is None else count
    if kinds <= {int, float, jax.Array, NoneType} and not (value is None and NoneType in kinds):
        schedule = "; a schedule of the step size is transform=optax.scale_by_schedule(...)" if callable(value) else ""
        raise ValueError(f"{name} must be a single number, not {described(value)}{schedule}")
    try:
        hash(value)
    except TypeError:
        raise ValueError(f"{name} must be a single number, or hashable, not {described(value)}") from None
    return value


def check_range(name: str, value: Any, dtype: Any, coin: bool) -> None:
    """Raise a ``ValueError`` if ``value``, or ``value`` rounded to ``dtype``, is out of range."""
    if isinstance(value, jax.core.Tracer):
        return
    allowed, words = RANGES.get(name, ANY)
    if not allowed(float(value)):
        raise ValueError(f"{name} must be {words}, not {float(value):g}")
    info = jnp.finfo(dtype)
    least = float(info.eps if coin else info.tiny)  # denormals flush to zero; a coin's uniforms are multiples of eps
    with np.errstate(over="ignore"):
        held = float(np.asarray(value, info.dtype)) if float(value) >= least else 0.0
    if not allowed(held):
        raise ValueError(f"{name} must be {words}, but {value!r} is {held:g} in {info.dtype}")


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
    trees: Any = [jax.tree.map(lambda a: (a.shape, a.dtype), tree) for tree in (wanted, given)]
    if trees[0] != trees[1]:
        raise ValueError(f"params must be like the problem's, {listed(wanted)}, not {listed(given)}")
