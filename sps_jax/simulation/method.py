"""The choices of a simulation, checked, and parted into what is static and what is traced."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm
from sps_jax.algorithms.ramped import ramped
from sps_jax.algorithms.transformed import check_transform, transformed
from sps_jax.errors import described, unknown, whole
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.hyperparameters import (
    RAMP,
    check_range,
    check_sparsifier,
    is_number,
    number_or_static,
    rounds_of_ramp,
)
from sps_jax.simulation.schedule import Schedule

STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Method:
    """An algorithm with its hyperparameters and its schedule, checked: what :func:`prepare` returns.

    A pytree whose leaves are the numbers; all else is static, so other numbers find the compiled program again, and
    ``vmap`` maps over them.

    Attributes:
      hyper: the traced hyperparameters, scalars by name.
      schedule: when the clients communicate.
      make: the algorithm's factory.
      options: its static keyword arguments, sorted pairs.
      transform: an optax transform of the local direction, or None.
      transform_on: see :func:`sps_jax.algorithms.transformed`.
      cohort: who takes part in a round, None for all clients.
      matmul_precision: of products and convolutions of float32 numbers, see :func:`prepare`.

    Example:
      >>> import sps_jax as sps
      >>> method = prepare(sps.proxskip, {"stepsize": 0.5}, jnp.float32, local_steps=4)
      >>> [leaf.item() for leaf in jax.tree.leaves(method)]  # prob, stepsize; p and k of the schedule
      [0.25, 0.5, 0.25, 4]
      >>> type(method.algorithm()).__name__
      'Algorithm'
    """

    hyper: dict[str, jax.Array]
    schedule: Schedule
    make: Callable[..., Algorithm] = field(metadata=STATIC)
    options: tuple[tuple[str, Hashable], ...] = field(default=(), metadata=STATIC)
    transform: optax.GradientTransformation | None = field(default=None, metadata=STATIC)
    transform_on: str = field(default="direction", metadata=STATIC)
    cohort: Cohort | None = field(default=None, metadata=STATIC)
    matmul_precision: str = field(default="float32", metadata=STATIC)

    def algorithm(self) -> Algorithm:
        """The functions; where ``sparsity_rounds`` is among the hyperparameters, the sparsity grows."""
        if RAMP not in self.hyper:
            return self._made(self.hyper)
        own = {name: value for name, value in self.hyper.items() if name != RAMP}
        return ramped(lambda s: self._made(own | {"sparsity": s}), own["sparsity"], self.hyper[RAMP])

    def _made(self, hyper: Mapping[str, jax.Array]) -> Algorithm:
        algorithm = self.make(**hyper, **dict(self.options))
        return algorithm if self.transform is None else transformed(algorithm, self.transform, self.transform_on)

    def recorded(self) -> dict[str, float | int]:
        """The hyperparameters as a record names them: ``local_steps`` where these are fixed, in place of ``prob``."""
        named = {name: float(value) for name, value in self.hyper.items()}
        if self.schedule.local_steps is not None and named.pop("prob", None) is not None:
            named["local_steps"] = int(self.schedule.local_steps)
        return named


def in_its_precision(function: Callable) -> Callable:
    """``function``, of a :class:`Method` first, traced with that one's precision of products.

    GPUs and TPUs compute products of float32 numbers in TF32 and bfloat16 unless a program says otherwise.
    """

    @wraps(function)
    def traced(method: Method, *args: Any) -> Any:
        with jax.default_matmul_precision(method.matmul_precision):
            return function(method, *args)

    return traced


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
) -> Method:
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
      >>> method = prepare(sps.sparse_proxskip, hyper, jnp.float32, local_steps=10)
      >>> sorted(method.hyper), [name for name, _ in method.options], int(method.schedule.local_steps)
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
    hyper = defaults | {name: number_or_static(name, value, takes[name]) for name, value in hyper.items()}
    numbers = {name: value for name, value in hyper.items() if is_number(value)}
    for name, value in numbers.items():
        check_range(name, value, dtype, coin=name == "prob" and local_steps is None)
    traced = {name: value for name, value in numbers.items() if takes[name].annotation not in (int, int | None)}
    ramp = {name: rounds_of_ramp(value) for name, value in ramp.items()}
    check_sparsifier(hyper)
    static = tuple(sorted((name, value) for name, value in hyper.items() if name not in traced))
    traced = {name: jnp.asarray(value, dtype) for name, value in (traced | ramp).items()}
    always = "prob" not in takes  # such a method communicates after every step
    steps = 1 if always else local_steps
    schedule = Schedule(traced.get("prob", jnp.ones((), dtype)), None if steps is None else jnp.int32(steps))
    cohort = cohort if cohort is None or isinstance(cohort, Cohort) else Cohort(cohort)
    products = products_in(matmul_precision)
    return Method(traced, schedule, make, static, transform, transform_on, cohort, products)


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
