r"""Partial participation: the cohort of clients that take part in a round.

``cohort=C`` (``--cohort C``) samples C clients for each round, before its local steps. Only they step, send and
receive; the others keep their memory, and the sum of the control variates over all n clients stays zero. One million
clients with a thousand per round:

    sps-jax run --problem synthetic_logistic --clients 1000000 --cohort 1000 --local-steps 10 \
                --algorithm sparse_proxskip tamuna

``by="size"`` (``--cohort-by size``) samples large clients more often. Methods with control variates converge to the
minimiser of the reported objective for all weights and both values of ``by``. Other methods weight the messages by
:math:`w_i / \pi_i`, with w the weights of the objective and :math:`\pi_i` the probability that client i is sampled, so
that they keep the fixed point that they have without a cohort. With ``estimate="normalised"`` three of the four
combinations of weights and ``by`` minimise another objective, see :class:`Cohort`.

Downlink bits count the broadcast that the cohort starts from and, for methods that need it, the answer at the end of a
round. ``answer_bits`` in the records, and ``answers in it`` in the table, are the bits of the answers.
:func:`sps_jax.stream` (``--stream``) keeps the clients outside the cohort in host memory.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from sps_jax.errors import described, refuse_unknown, whole
from sps_jax.simulation.lost import Lost

BY = ("uniform", "size")
ESTIMATES = ("unbiased", "normalised")


@dataclass(frozen=True)
class Cohort:
    r"""How to sample the cohort of each round: without replacement, before the round's local steps.

    The server's average over a cohort S estimates :math:`\sum_i w_i m_i` over all n clients, where w are the client
    weights (1/n if they are equal):

    * ``"unbiased"`` divides each weight by the probability :math:`\pi_i` that the client is in S (Horvitz and Thompson
      1952), :math:`\hat m = \sum_{i \in S} \frac{w_i}{\pi_i} m_i`, and adds the message of a client that takes no
      step with the weight that is missing to one. The expectation of a round over cohorts is then the round of all
      clients, and a method has, for every ``by`` and all weights, the fixed point that it has without a cohort.
    * ``"normalised"`` divides each weight by the sum of weights in S, as most simulators do. With equal w and uniform
      sampling both estimates are the same; otherwise it minimises, with small steps, :math:`\sum_i v_i f_i` with
      :math:`v_i = E[1_{i \in S}\, w_i / \sum_{j \in S} w_j]`.

    Methods with control variates always use normalised weights, because these preserve the sum of the control
    variates; they converge to the same minimiser nevertheless.

    Attributes:
      size: C <= n, the number of clients per round. With C = 1, methods that update control variates by the difference
        to the average (such as ProxSkip) have no correction: the average is the client's own message.
      by: ``"uniform"``: every set of C clients is equally likely; or ``"size"``: clients are drawn one by one, with
        probabilities proportional to the numbers of examples of those left.
      estimate: the estimate of the mean over all clients, ``"unbiased"`` or ``"normalised"``.
      lost: which messages are lost, a :class:`sps_jax.Lost`; None for none. For all n clients, n is the size.

    Raises:
      ValueError: if size is below 1, or ``by`` or ``estimate`` is unknown.

    Example:
      >>> ids = Cohort(2).draw(jax.random.key(0), jnp.array([5, 9, 7], jnp.int32))
      >>> ids.shape, len(set(ids.tolist()))
      ((2,), 2)
    """

    size: int
    by: str = "uniform"
    estimate: str = "unbiased"
    lost: Lost | None = None

    def __post_init__(self) -> None:
        size = whole(self.size)
        if size is None or size < 1:
            raise ValueError(f"a cohort must be a whole number of clients, at least 1, not {described(self.size)}")
        object.__setattr__(self, "size", size)
        refuse_unknown("way to draw a cohort", self.by, BY)
        refuse_unknown("estimate of the mean over all clients", self.estimate, ESTIMATES)
        if not isinstance(self.lost, Lost | None):
            raise ValueError(f"lost must be an sps.Lost, such as sps.Lost(up=0.1), not {described(self.lost)}")

    def draw(self, key: jax.Array, examples: jax.Array) -> jax.Array:
        """Sample the ids of C distinct clients, (C,) int32, in the order in which they were drawn.

        Args:
          key: a JAX random key.
          examples: (n,) the number of examples of each client.

        Raises:
          ValueError: if the cohort has more than n clients.
        """
        return self.sample(key, examples)[0]

    def sample(self, key: jax.Array, examples: jax.Array) -> tuple[jax.Array, jax.Array]:
        r"""Sample the clients of :meth:`draw`, with their inclusion probabilities: (C,) int32 and (C,) float32.

        Uniformly, :math:`\pi_i = C/n`. By size, each client has an exponential clock whose rate is its size
        :math:`s_i`, and the C clients whose clocks ring first are drawn. Given the other clocks, client i is drawn if
        it rings before :math:`\tau`, the time of the first client left out, so
        :math:`\pi_i = 1 - e^{-s_i \tau}`: weights divided by it are unbiased given the other clocks, and so
        unconditionally (Cohen and Kaplan 2007, Summarizing data using bottom-k sketches, rank conditioning). For C = 1
        it is :math:`s_i / \sum_j s_j`, whose variance is finite.

        Raises:
          ValueError: if the cohort has more than n clients.

        Example:
          >>> ids, likely = Cohort(1, "size").sample(jax.random.key(0), jnp.array([3, 1], jnp.int32))
          >>> likely.tolist() == [[0.75, 0.25][int(ids[0])]]
          True
        """
        n = examples.shape[0]
        if self.size > n:
            raise ValueError(f"a cohort of {self.size} clients cannot be drawn from {n}: take at most {n}")
        if self.by == "uniform":
            return self._uniform(key, n), jnp.full(self.size, self.size / n, jnp.float32)
        sizes = examples.astype(jnp.float32)
        rings = jax.random.exponential(key, (n,), jnp.float32) / sizes
        order = jnp.argsort(rings)
        ids = order[: self.size].astype(jnp.int32)
        if self.size == 1:
            return ids, sizes[ids] / jnp.sum(sizes)
        left_out = rings[order[self.size]] if self.size < n else jnp.float32(jnp.inf)
        return ids, -jnp.expm1(-sizes[ids] * left_out)

    def _uniform(self, key: jax.Array, n: int) -> jax.Array:
        if 4 * self.size > n:
            return jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))[: self.size]
        return _first_distinct(key, n, self.size)


def _first_distinct(key: jax.Array, n: int, size: int) -> jax.Array:
    """Return the first ``size`` distinct clients of a sequence drawn with replacement, without a pass over all n."""
    many = 2 * size

    def look(attempt: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = jax.random.randint(fold_in(key, attempt), (many,), 0, n, jnp.int32)
        order = jnp.argsort(drawn, stable=True)
        new = jnp.concatenate([jnp.array([True]), jnp.diff(drawn[order]) > 0])
        first = jnp.zeros(many, bool).at[order].set(new)  # marks the first draw of each client
        return drawn, first

    def draw_again(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        attempt, _, _ = carry
        return attempt + 1, *look(attempt + 1)

    start = (jnp.int32(0), *look(jnp.int32(0)))
    _, drawn, first = lax.while_loop(lambda carry: jnp.sum(carry[2]) < size, draw_again, start)
    (places,) = jnp.nonzero(first, size=size)
    return drawn[places]
