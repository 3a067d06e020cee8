r"""Messages that are lost, and clients that drop out after their local steps.

In each round the message of every client of the cohort may be lost on its way up, and the server's answer on its way
down. The broadcast that begins a round always arrives: without it a client is not in the cohort. The server averages
the messages that it receives, with weights that add up to one (for methods without control variates by the estimate of
:class:`sps_jax.Cohort`); if none arrives, it stays as it is. Bits count whether or not they arrive.

* ``known=True``: a client whose message or answer was lost counts as absent on both sides: the server leaves its
  message out, the client keeps its memory h. So :math:`\sum_i h_i` stays zero. It takes acknowledgements, whose bits
  are not counted; or the client drops out after its local steps, and knows that (``up`` alone).
* ``known=False``: nobody notices. A client whose message was lost updates its memory all the same, and one that misses
  the answer keeps its memory although its message is in the average. For ProxSkip with equal weights, R the clients
  whose messages arrive, A those whom the answer reaches, and b the mean over R, a round then changes the sum by

  .. math:: \sum_i h_i^+ - \sum_i h_i = \frac{p}{\gamma} \sum_{i \in A} (b - \hat x_i),

  which is zero if A = R, and moves the minimiser: the server converges to where the mean gradient is the mean h.

Losses are independent, or with ``burst`` come in bursts: a client's link is a Markov chain over the rounds, whether or
not it takes part, which loses everything in its bad state and nothing in its good one, Gilbert's channel. In each round
the state is drawn anew with probability r, bad with probability q, the rate of loss; else it stays. Bursts then last
:math:`L = 1/(r (1 - q))` rounds on average. The state of any round follows from the key and the last renewal before it,
so that nothing is stored, and runs go on, stream and lay out clients as before.

    sps-jax run --algorithm proxskip --lose-up 0.1 --burst 5 --unaware

Sources: Gilbert 1960, Capacity of a burst-noise channel, and Elliott 1963, Estimates of error rates for codes on
burst-noise channels, Bell System Technical Journal 39 and 42.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import bernoulli, fold_in

from sps_jax.errors import described, real


@dataclass(frozen=True)
class Lost:
    """Which messages are lost, see the module.

    Attributes:
      up: probability that a client's message is lost.
      down: probability that the answer to a client is lost.
      burst: L, the mean number of rounds in a row that a lossy link loses, at least 1 / (1 - probability), its value
        where losses are independent; None for independent losses.
      known: whether client and server know of the loss.

    Raises:
      ValueError: for a probability outside [0, 1) or a burst that is too short.

    Example:
      >>> up, down = Lost(up=0.5).draw(jax.random.key(0), jnp.arange(1000, dtype=jnp.int32), jnp.int32(7))
      >>> 400 < int(up.sum()) < 600, bool(down.any())
      (True, False)
    """

    up: float = 0.0
    down: float = 0.0
    burst: float | None = None
    known: bool = True

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            given = getattr(self, name)
            rate = real(given)
            if rate is None or not 0 <= rate < 1:
                raise ValueError(f"the probability of loss {name} must be in [0, 1), not {described(given)}")
            object.__setattr__(self, name, float(rate))
        if self.burst is not None:
            length, least = real(self.burst), 1 / (1 - max(self.up, self.down))
            if length is None or not least <= length < float("inf"):
                raise ValueError(
                    f"a burst must last at least 1 / (1 - probability of loss) = {least:.4g} rounds, the mean where "
                    f"losses are independent, not {described(self.burst)}"
                )
            object.__setattr__(self, "burst", float(length))

    def draw(self, key: jax.Array, ids: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return which messages up and which answers are lost, (C,) booleans each.

        Args:
          key: a random key, the same in all rounds.
          ids: (C,) the clients.
          number: the round.
        """
        up, down = (self._bad(fold_in(key, link), rate, ids, number) for link, rate in enumerate((self.up, self.down)))
        return up, down

    def arrive(self, key: jax.Array, ids: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return whose messages the server averages, and who updates its memory, (C,) booleans each."""
        up, down = self.draw(key, ids, number)
        return (~(up | down), ~(up | down)) if self.known else (~up, ~down)

    @property
    def share(self) -> float:
        """The probability that the server averages a client's message."""
        return (1 - self.up) * (1 - self.down if self.known else 1)

    def _bad(self, key: jax.Array, rate: float, ids: jax.Array, number: jax.Array) -> jax.Array:
        renewal = jnp.float32(1 if self.burst is None else 1 / (self.burst * (1 - rate)))

        def one(i: jax.Array) -> jax.Array:
            own = fold_in(key, i)

            def stays(t: jax.Array) -> jax.Array:
                return (t > 0) & ~bernoulli(fold_in(fold_in(own, t), 0), renewal)

            renewed = lax.while_loop(stays, lambda t: t - 1, jnp.asarray(number, jnp.int32))
            return bernoulli(fold_in(fold_in(own, renewed), 1), jnp.float32(rate))

        return jax.vmap(one)(ids)
