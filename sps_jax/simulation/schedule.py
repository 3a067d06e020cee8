"""When clients communicate, and the keys from which a simulation draws all its randomness."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from sps_jax.layout import THREEFRY


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Schedule:
    """When the clients communicate: after a step with probability ``prob``, or after every ``local_steps`` steps.

    Another p reuses a compiled program, another k does not: a loop of a known length lets a GPU run the whole round
    without asking the host.

    Attributes:
      prob: p in (0, 1], a scalar.
      local_steps: k >= 1, static; None to toss a coin with probability ``prob``.
      varying: static; a function of the round's number that returns p for that round, or None if p is always ``prob``.

    Example:
      >>> every_second = Schedule(prob=jnp.float32(0.5), local_steps=2)
      >>> [bool(coin(every_second, jax.random.key(0), jnp.int32(t))) for t in range(4)]
      [False, True, False, True]
    """

    prob: jax.Array
    local_steps: int | None = field(default=None, metadata={"static": True})
    varying: Callable[[jax.Array], jax.Array | float] | None = field(default=None, metadata={"static": True})

    def at(self, number: jax.Array) -> "Schedule":
        """Return the schedule of the round before which there were ``number`` rounds."""
        return self if self.varying is None else replace(self, prob=jnp.asarray(self.varying(number), self.prob.dtype))


class Keys(NamedTuple):
    """One key per purpose, all split from the key of the simulation."""

    init: jax.Array
    clients: jax.Array
    coin: jax.Array
    common: jax.Array


def threefry(key: jax.Array) -> jax.Array:
    """Convert ``key`` to a threefry key; an rbg key becomes the threefry key of the same seed.

    Args:
      key: a JAX random key of any generator, or the array of its two or four words.

    Raises:
      ValueError: if ``key`` is not one JAX random key.

    Example:
      >>> from sps_jax.layout import random_key
      >>> threefry(jax.random.key(7, impl="rbg")) == random_key(7)
      Array(True, dtype=bool)
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed and shape == ()) and not (dtype == jnp.uint32 and shape in ((2,), (4,))):
        what = "an array of keys" if typed else f"a {dtype} array of shape {shape}" if dtype is not None else repr(key)
        raise ValueError(f"key must be one JAX random key, such as jax.random.key(0), not {what}")
    words = jax.random.key_data(key) if typed else key
    first = jax.random.wrap_key_data(words[:2], impl=THREEFRY)
    if words.shape == (2,):
        return first
    differ = words[:2] ^ words[2:]  # zero in keys made from a seed, split or folded
    other = jax.random.key_data(fold_in(fold_in(first, differ[0]), differ[1]))
    return jax.random.wrap_key_data(jnp.where(jnp.any(differ != 0), other, words[:2]), impl=THREEFRY)


def split_key(key: jax.Array) -> Keys:
    """Split the key of a simulation; client i at iteration t draws from ``fold_in(fold_in(clients, t), i)``.

    Raises:
      ValueError: if ``key`` is not one JAX random key.
    """
    return Keys(*jax.random.split(threefry(key), len(Keys._fields)))


def coin(schedule: Schedule, key: jax.Array, t: jax.Array) -> jax.Array:
    """Return whether iteration ``t`` (from 0) ends with a communication; all clients share one coin."""
    if schedule.local_steps is None:
        return jax.random.bernoulli(fold_in(key, t), schedule.prob)
    return (t + 1) % schedule.local_steps == 0


def round_length(schedule: Schedule, key: jax.Array, t: jax.Array) -> jax.Array | int:
    """Return the number of local steps from iteration ``t`` to the next communication: k, or an int32 by the coin."""
    if schedule.local_steps is not None:
        return schedule.local_steps
    tails = lax.while_loop(lambda j: ~coin(schedule, key, t + j), lambda j: j + 1, jnp.int32(0))
    return tails + 1
