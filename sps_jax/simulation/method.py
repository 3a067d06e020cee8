"""Check the choices of a simulation, and split them into static and traced values."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm
from sps_jax.algorithms.ramped import cubic
from sps_jax.algorithms.scheduled import scheduled
from sps_jax.algorithms.transformed import check_transform, transformed
from sps_jax.errors import described, unknown, whole
from sps_jax.simulation.choices import Choices, with_shared
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.hyperparameters import (
    RAMP,
    check_maker,
    check_range,
    check_scheduled,
    check_sparsifier,
    first_value,
    is_number,
    is_schedule,
    kinds,
    number_or_static,
    parameters,
    rounds_of_ramp,
)
from sps_jax.simulation.schedule import Schedule

STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Method:
    """An algorithm with checked hyperparameters and schedule, as :func:`prepare` returns it.

    A pytree whose leaves are the numbers; everything else is static, the number of local steps too where it is fixed.
    Other numbers therefore reuse the compiled program, and ``vmap`` maps over them.

    Attributes:
      hyper: the traced hyperparameters, scalars by name; of one that varies over the rounds, its first value.
      schedule: when the clients communicate.
      make: the algorithm's factory.
      options: the factory's static keyword arguments, as sorted pairs.
      transform: an optax transform of the local direction, or None.
      transform_on: see :func:`sps_jax.algorithms.transformed`.
      cohort: how to sample the clients of a round; None for all clients.
      matmul_precision: of float32 matrix products and convolutions, see :func:`prepare`.
      varying: the hyperparameters that are functions of the round's number, as sorted pairs.
      per_client: whether evaluations record the metrics of each client, see :mod:`sps_jax.simulation.per_client`.

    Example:
      >>> import sps_jax as sps
      >>> method = prepare(sps.proxskip, {"stepsize": 0.5}, jnp.float32, local_steps=4)
      >>> [leaf.item() for leaf in jax.tree.leaves(method)]  # prob and stepsize; p of the schedule
      [0.25, 0.5, 0.25]
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
    varying: tuple[tuple[str, Callable], ...] = field(default=(), metadata=STATIC)
    per_client: bool = field(default=False, metadata=STATIC)

    def algorithm(self) -> Algorithm:
        """Build the algorithm's functions; what varies over the rounds does so inside them."""
        if RAMP not in self.hyper and not self.varying:
            return self._made(self.hyper)
        hyper = dict(self.hyper)
        rounds, dtype = hyper.pop(RAMP, None), self.schedule.prob.dtype

        def numbers(t: jax.Array) -> dict[str, jax.Array]:
            now = {name: jnp.asarray(schedule(t), dtype) for name, schedule in self.varying}
            return hyper | now | ({} if rounds is None else {"sparsity": cubic(hyper["sparsity"], rounds, t)})

        def serving(t: jax.Array) -> Algorithm:
            """The server ends round t with its numbers, and prunes the model of the next one."""
            ahead = {name: value for name, value in numbers(t + 1).items() if name == "sparsity"}
            return self._made(numbers(t) | ahead)

        return scheduled(lambda t: self._made(numbers(t)), serving)

    def _made(self, hyper: Mapping[str, jax.Array]) -> Algorithm:
        algorithm = self.make(**hyper, **dict(self.options))
        if not isinstance(algorithm, Algorithm):
            missing = ": is its `return` missing?" if algorithm is None else ""
            raise ValueError(
                f"{self.make.__name__} must return an sps_jax.Algorithm, not {described(algorithm)}{missing}"
            )
        return algorithm if self.transform is None else transformed(algorithm, self.transform, self.transform_on)

    def check_rounds(self, rounds: int) -> None:
        """Raise a ``ValueError`` if a hyperparameter leaves its range in one of so many rounds."""
        check_scheduled(dict(self.varying), parameters(self.make), rounds, self.schedule.prob.dtype)

    def recorded(self) -> dict[str, float | int]:
        """Return the hyperparameters for a record, with ``local_steps`` in place of ``prob`` if k is fixed."""
        named = {name: float(value) for name, value in self.hyper.items()}
        if self.schedule.local_steps is not None and named.pop("prob", None) is not None:
            named["local_steps"] = self.schedule.local_steps
        return named


@with_shared()
def prepare(make: Callable[..., Algorithm], hyper: Mapping[str, Any], dtype: Any, **choices: Unpack[Choices]) -> Method:
    """Check the choices of a simulation, and split the static from the traced ones.

    Args:
      make: the algorithm's factory, from the table ``ALGORITHMS`` or your own.
      hyper: its keyword arguments. Real numbers are traced, as scalars of ``dtype``, unless the parameter is annotated
        as ``int``; everything else is static. A number may instead be a function of the round's number t = 0, 1, ...,
        such as an optax schedule: it is static, so that another function compiles another program.
        ``sparsity_rounds=T`` grows the sparsity from zero in the first T rounds.
      dtype: the dtype of the parameters.

    Returns:
      The checked :class:`Method`.

    Raises:
      ValueError: if a hyperparameter is unknown, missing, out of range or not a number where one is required, the
        sparsity contradicts the sparsifier, or ``transform`` is not an optax transform.

    Example:
      >>> import sps_jax as sps
      >>> hyper = {"stepsize": 0.5, "sparsity": 0.9}
      >>> method = prepare(sps.sparse_proxskip, hyper, jnp.float32, local_steps=10)
      >>> sorted(method.hyper), [name for name, _ in method.options], method.schedule.local_steps
      (['prob', 'sparsity', 'stepsize'], ['error_feedback', 'prune'], 10)
    """
    check_maker(make)
    takes, local_steps = parameters(make), choices["local_steps"]
    transform, transform_on, cohort = choices["transform"], choices["transform_on"], choices["cohort"]
    if not hasattr(hyper, "keys"):
        raise ValueError(f"hyperparameters must be a dict of names and values, not {described(hyper)}")
    hyper = dict(hyper)
    if transform is not None:
        check_transform(transform, transform_on)
    ramp = {RAMP: hyper.pop(RAMP)} if RAMP in hyper and "sparsity" in takes else {}
    if ramp and is_schedule("sparsity", hyper.get("sparsity"), takes["sparsity"]):
        raise ValueError("give sparsity a schedule or sparsity_rounds (the cubic one), not both")
    if local_steps is not None:
        if "prob" in hyper:  # a schedule as well
            raise ValueError("give prob (the coin) or local_steps (k fixed steps, which means prob = 1/k), not both")
        count = whole(local_steps)
        if count is None or not 1 <= count < 2**31:
            raise ValueError(f"local_steps must be an integer of at least 1, not {described(local_steps)}")
        local_steps = count
        if "prob" in takes:
            hyper["prob"] = 1 / count
    for name in hyper:
        if name not in takes and name in Choices.__annotations__:
            raise ValueError(f"{name} is no hyperparameter: give it beside them, as {name}=..., not among them")
        if name not in takes:
            raise unknown(f"hyperparameter of {make.__name__}", name, takes)
    missing = [name for name, p in takes.items() if p.default is p.empty and name not in hyper]
    if missing:
        raise ValueError(f"{make.__name__} is missing hyperparameters: {', '.join(missing)}")
    defaults = {name: p.default for name, p in takes.items() if p.default is not p.empty}
    varying = {name: value for name, value in hyper.items() if is_schedule(name, value, takes[name])}
    hyper |= {name: first_value(name, value, takes[name], dtype) for name, value in varying.items()}
    hyper = defaults | {name: number_or_static(name, value, takes[name]) for name, value in hyper.items()}
    numbers = {name: value for name, value in hyper.items() if is_number(value)}
    for name, value in numbers.items():
        check_range(name, value, takes[name], dtype, coin=name == "prob" and local_steps is None)
    traced = {name: value for name, value in numbers.items() if not kinds(takes[name].annotation) <= {int, NoneType}}
    ramp = {name: rounds_of_ramp(value) for name, value in ramp.items()}
    check_sparsifier(hyper)
    static = tuple(sorted((name, value) for name, value in hyper.items() if name not in traced))
    traced = {name: jnp.asarray(value, dtype) for name, value in (traced | ramp).items()}
    always = "prob" not in takes  # a method without prob communicates after every step
    steps = 1 if always else local_steps
    schedule = Schedule(traced.get("prob", jnp.ones((), dtype)), steps, varying.get("prob"))
    cohort = cohort if cohort is None or isinstance(cohort, Cohort) else Cohort(cohort)
    products = products_in(choices["matmul_precision"])
    several, each = tuple(sorted(varying.items())), bool(choices["per_client"])
    return Method(traced, schedule, make, static, transform, transform_on, cohort, products, several, each)


MATMUL_PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
"""The precisions of float32 matrix products on GPUs and TPUs: all 24 significant bits, or the first 11 or 8. CPUs have
only float32."""


def products_in(matmul_precision: str | None) -> str:
    """Return the precision of float32 matrix products: the argument, else JAX's setting if any, else float32."""
    if matmul_precision is None:
        return jax.config.jax_default_matmul_precision or "float32"  # type: ignore[attr-defined]  # JAX defines its options at import
    if matmul_precision not in MATMUL_PRECISIONS:
        raise unknown("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    return matmul_precision
