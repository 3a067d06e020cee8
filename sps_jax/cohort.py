"""Which clients take part in a round."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from sps_jax.errors import unknown
from sps_jax.scalars import described, whole

BY = ("uniform", "size")


@dataclass(frozen=True)
class Cohort:
    """Some clients for each round, drawn without replacement before its local steps.

    Attributes:
      size: how many, C; n or more is refused, all take part without a cohort.
      by: ``"uniform"``, every set of C clients is as likely, or ``"size"``: one after another, each with a probability
        proportional to its number of examples among those left.

    Raises:
      ValueError: for a size below 1 or an unknown ``by``.

    Example:
      >>> ids = Cohort(2).draw(jax.random.key(0), jnp.array([5, 9, 7], jnp.int32))
      >>> ids.shape, len(set(ids.tolist()))
      ((2,), 2)
    """

    size: int
    by: str = "uniform"

    def __post_init__(self) -> None:
        size = whole(self.size)
        if size is None or size < 1:
            raise ValueError(f"a cohort must be a whole number of clients, at least 1, not {described(self.size)}")
        object.__setattr__(self, "size", size)
        if self.by not in BY:
            raise unknown("way to draw a cohort", self.by, BY)

    def draw(self, key: jax.Array, counts: jax.Array) -> jax.Array:
        """(C,) int32, different clients, in the order in which they were drawn.

        Args:
          key: a JAX random key.
          counts: (n,) examples of each client.

        Raises:
          ValueError: for a cohort of more than n clients.
        """
        n = counts.shape[0]
        if self.size > n:
            raise ValueError(f"a cohort of {self.size} clients cannot be drawn from {n}")
        if self.by == "size":  # exponential clocks: the C that ring first
            rings = jax.random.exponential(key, (n,), jnp.float32) / counts.astype(jnp.float32)
            return jnp.argsort(rings)[: self.size].astype(jnp.int32)
        if 4 * self.size > n:
            return jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))[: self.size]
        return _first_distinct(key, n, self.size)


def _first_distinct(key: jax.Array, n: int, size: int) -> jax.Array:
    """The first ``size`` different ones of a sequence of clients drawn with replacement: no pass over all n."""
    many = 2 * size

    def look(attempt: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = jax.random.randint(fold_in(key, attempt), (many,), 0, n, jnp.int32)
        order = jnp.argsort(drawn, stable=True)
        new = jnp.concatenate([jnp.array([True]), jnp.diff(drawn[order]) > 0])
        first = jnp.zeros(many, bool).at[order].set(new)  # of each client, where it was drawn first
        return drawn, first

    def draw_again(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        attempt, _, _ = carry
        return attempt + 1, *look(attempt + 1)

    start = (jnp.int32(0), *look(jnp.int32(0)))
    _, drawn, first = lax.while_loop(lambda carry: jnp.sum(carry[2]) < size, draw_again, start)
    (places,) = jnp.nonzero(first, size=size)
    return drawn[places]
