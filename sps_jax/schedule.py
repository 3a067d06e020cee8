"""When clients communicate, and the keys that all randomness of a simulation comes from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in


class Schedule(NamedTuple):
    """When the clients communicate: after a step with probability ``prob``, or after every ``local_steps`` steps.

    Attributes:
      prob: p in (0, 1], a scalar.
      local_steps: k >= 1, an int32 scalar, or None for the coin.

    Example:
      >>> every_second = Schedule(prob=jnp.float32(0.5), local_steps=jnp.int32(2))
      >>> [bool(coin(every_second, jax.random.key(0), jnp.int32(t))) for t in range(4)]
      [False, True, False, True]
    """

    prob: jax.Array
    local_steps: jax.Array | None = None


class Keys(NamedTuple):
    """One key a purpose, all from the key of the simulation."""

    init: jax.Array
    clients: jax.Array
    coin: jax.Array
    common: jax.Array


def split_key(key: jax.Array) -> Keys:
    """The keys of a simulation; client i at iteration t draws from ``fold_in(fold_in(clients, t), i)``."""
    return Keys(*jax.random.split(key, len(Keys._fields)))


def coin(schedule: Schedule, key: jax.Array, t: jax.Array) -> jax.Array:
    """Whether iteration ``t`` (from 0) ends with a communication; one coin for all clients."""
    if schedule.local_steps is None:
        return jax.random.bernoulli(fold_in(key, t), schedule.prob)
    return (t + 1) % schedule.local_steps == 0


def round_length(schedule: Schedule, key: jax.Array, t: jax.Array) -> jax.Array:
    """Local steps from iteration ``t`` to the next communication, an int32 >= 1."""
    if schedule.local_steps is not None:
        return schedule.local_steps
    tails = lax.while_loop(lambda j: ~coin(schedule, key, t + j), lambda j: j + 1, jnp.int32(0))
    return tails + 1
