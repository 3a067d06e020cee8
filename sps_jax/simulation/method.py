"""The choices of a simulation, checked, and parted into what is static and what is traced."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from functools import wraps
from numbers import Real
from types import NoneType
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sps_jax.algorithms.base import Algorithm
from sps_jax.algorithms.ramped import ramped
from sps_jax.algorithms.transformed import check_transform, transformed
from sps_jax.errors import described, real, unknown, whole
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.schedule import Schedule

RAMP = "sparsity_rounds"
"""A hyperparameter of all methods that take a ``sparsity``, see :func:`sps_jax.algorithms.ramped.ramped`."""


class Setup(NamedTuple):
    """The static part of a simulation: hashable, equal for equal choices, so that a compiled program is found again.

    Attributes:
      make: the algorithm's factory.
      options: its static keyword arguments, sorted pairs.
      transform: an optax transform of the local direction, or None.
      transform_on: see :func:`sps_jax.algorithms.transformed`.
      cohort: who takes part in a round, None for all clients.
      matmul_precision: of products and convolutions of float32 numbers, see :func:`prepare`.
    """

    make: Callable[..., Algorithm]
    options: tuple[tuple[str, Hashable], ...] = ()
    transform: optax.GradientTransformation | None = None
    transform_on: str = "direction"
    cohort: Cohort | None = None
    matmul_precision: str = "float32"

    def build(self, hyper: Mapping[str, jax.Array]) -> Algorithm:
        """The algorithm with these hyperparameters; where ``sparsity_rounds`` is among them, its sparsity grows."""
        if RAMP not in hyper:
            return self._build(hyper)
        own = {name: value for name, value in hyper.items() if name != RAMP}
        return ramped(lambda s: self._build(own | {"sparsity": s}), hyper["sparsity"], hyper[RAMP])

    def _build(self, hyper: Mapping[str, jax.Array]) -> Algorithm:
        algorithm = self.make(**hyper, **dict(self.options))
        return algorithm if self.transform is None else transformed(algorithm, self.transform, self.transform_on)


def in_its_precision(function: Callable) -> Callable:
    """``function``, of a :class:`Setup` first, traced with that one's precision of products.

    GPUs and TPUs compute products of float32 numbers in TF32 and bfloat16 unless a program says otherwise.
    """

    @wraps(function)
    def traced(setup: Setup, *args: Any) -> Any:
        with jax.default_matmul_precision(setup.matmul_precision):
            return function(setup, *args)

    return traced


Choices = tuple[Setup, dict[str, jax.Array], Schedule]
"""What :func:`prepare` returns."""


def prepare(
    make: Callable[..., Algorithm],
    hyper: Mapping[str, Any],
    dtype: Any,
    *,
    local_steps: int | None = None,
    transform: optax.GradientTransformation | None = None,
    transform_on: str = "direction",
    cohort: int | Cohort | None = None,
    matmul_precision: str | None = None,
) -> Choices:
    """Check the choices of a simulation and part what is static from what is traced.

    Args:
      make: a factory of the table ``ALGORITHMS``, or one's own.
      hyper: its keyword arguments. Real numbers are traced, as scalars of ``dtype``, but for parameters annotated as
        ``int``; the rest is static. With ``sparsity_rounds``, T, the sparsity grows from zero in the first T rounds.
      dtype: of the parameters.
      local_steps: k, for the deterministic schedule; it stands for ``prob = 1/k``.
      transform, transform_on: an optax transform, see :func:`sps_jax.algorithms.transformed`.
      cohort: how many clients take part in a round, or a :class:`sps_jax.Cohort`; None for all.
      matmul_precision: what products and convolutions of float32 numbers are computed in, a name of
        ``MATMUL_PRECISIONS``; None for what ``jax.config.jax_default_matmul_precision`` says, else float32.

    Raises:
      ValueError: for a name that ``make`` does not take, a missing one, a number out of its range or something else
        in its place, a sparsity that contradicts the sparsifier, or what is no transform.

    Example:
      >>> import sps_jax as sps
      >>> hyper = {"stepsize": 0.5, "sparsity": 0.9}
      >>> setup, traced, schedule = prepare(sps.sparse_proxskip, hyper, jnp.float32, local_steps=10)
      >>> sorted(traced), [name for name, _ in setup.options], int(schedule.local_steps)
      (['prob', 'sparsity', 'stepsize'], ['prune'], 10)
    """
    takes = inspect.signature(make).parameters
    if not hasattr(hyper, "keys"):
        raise ValueError(f"hyperparameters must be a dict of names and values, not {described(hyper)}")
    hyper = dict(hyper)
    if transform is not None:
        check_transform(transform, transform_on)
    ramp = {RAMP: hyper.pop(RAMP)} if RAMP in hyper and "sparsity" in takes else {}
    if local_steps is not None:
        if "prob" in hyper:
            raise ValueError("give prob (the coin) or local_steps (k fixed steps, which means prob = 1/k), not both")
        count = whole(local_steps)
        if count is None or not 1 <= count < 2**31:
            raise ValueError(f"local_steps must be an integer of at least 1, not {described(local_steps)}")
        local_steps = count
        if "prob" in takes:
            hyper["prob"] = 1 / count
    for name in hyper:
        if name not in takes:
            raise unknown(f"hyperparameter of {make.__name__}", name, takes)
    missing = [name for name, p in takes.items() if p.default is p.empty and name not in hyper]
    if missing:
        raise ValueError(f"{make.__name__} needs {', '.join(missing)}")
    defaults = {name: p.default for name, p in takes.items() if p.default is not p.empty}
    hyper = defaults | {name: _number_or_static(name, value, takes[name]) for name, value in hyper.items()}
    numbers = {name: value for name, value in hyper.items() if _is_number(value)}
    for name, value in numbers.items():
        _check_range(name, value, dtype, coin=name == "prob" and local_steps is None)
    traced = {name: value for name, value in numbers.items() if takes[name].annotation not in (int, int | None)}
    ramp = {name: _rounds_of_ramp(value) for name, value in ramp.items()}
    _check_sparsifier(hyper)
    static = tuple(sorted((name, value) for name, value in hyper.items() if name not in traced))
    traced = {name: jnp.asarray(value, dtype) for name, value in (traced | ramp).items()}
    always = "prob" not in takes  # such a method communicates after every step
    steps = 1 if always else local_steps
    schedule = Schedule(traced.get("prob", jnp.ones((), dtype)), None if steps is None else jnp.int32(steps))
    cohort = cohort if cohort is None or isinstance(cohort, Cohort) else Cohort(cohort)
    products = products_in(matmul_precision)
    return Setup(make, static, transform, transform_on, cohort, products), traced, schedule


MATMUL_PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
"""What GPUs and TPUs compute products of float32 numbers in: all of their digits, or the first 11 or 8. CPUs have
float32 alone."""


def products_in(matmul_precision: str | None) -> str:
    """The precision of products that is asked for: by name, by JAX's setting where there is one, else float32."""
    if matmul_precision is None:
        return jax.config.jax_default_matmul_precision or "float32"  # type: ignore[attr-defined]  # made at import
    if matmul_precision not in MATMUL_PRECISIONS:
        raise unknown("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    return matmul_precision


def recorded(hyper: Mapping[str, jax.Array], schedule: Schedule) -> dict[str, float | int]:
    """The hyperparameters as a record names them: ``local_steps`` where these are fixed, in place of ``prob``."""
    named = {name: float(value) for name, value in hyper.items()}
    if schedule.local_steps is not None and named.pop("prob", None) is not None:
        named["local_steps"] = int(schedule.local_steps)
    return named


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
"""What is asked of hyperparameters by name."""
ANY: tuple[Callable[[float], bool], str] = (lambda v: 0 <= v < np.inf, "finite and not negative")
"""What is asked of any other."""


def _is_number(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer) or (isinstance(value, Real) and not isinstance(value, bool))


def _number_or_static(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """``value``, but anyone's single number as Python's.

    Raises:
      ValueError: for what is no number where the parameter is annotated as one, or is neither a number nor hashable.
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


def _check_range(name: str, value: Any, dtype: Any, coin: bool) -> None:
    """Raise a ``ValueError`` where ``value``, or what ``dtype`` holds of it, is out of range."""
    if isinstance(value, jax.core.Tracer):
        return
    allowed, words = RANGES.get(name, ANY)
    if not allowed(float(value)):
        raise ValueError(f"{name} must be {words}, not {float(value):g}")
    info = jnp.finfo(dtype)
    least = float(info.eps if coin else info.tiny)  # denormals are flushed to zero; a coin's uniforms are steps of eps
    with np.errstate(over="ignore"):
        held = float(np.asarray(value, info.dtype)) if float(value) >= least else 0.0
    if not allowed(held):
        raise ValueError(f"{name} must be {words}, but {value!r} is {held:g} in {info.dtype}")


def _rounds_of_ramp(value: Any) -> Any:
    if isinstance(value, jax.core.Tracer):
        return value
    rounds = whole(value)
    if rounds is None or rounds < 1:
        raise ValueError(f"{RAMP} must be an integer of at least 1, not {described(value)}")
    return rounds


def _check_sparsifier(hyper: Mapping[str, Any]) -> None:
    sparsity, agree = hyper.get("sparsity"), getattr(hyper.get("prune"), "agree", None)
    if agree is not None and sparsity is not None and not isinstance(sparsity, jax.core.Tracer):
        agree(float(sparsity))
