r"""Which clients take part in a round: some of very many.

With ``cohort=C`` (``--cohort C``) C clients are drawn for each round, before its local steps. Only they step, send and
receive; the others keep their memory, and the sum of control variates over all n clients stays zero. One million
clients with a thousand per round:

    sps-jax run --problem synthetic_logistic --clients 1000000 --cohort 1000 --local-steps 10 \
                --algorithm sparse_proxskip tamuna

``by="size"`` (``--cohort-by size``) draws large clients more often. Methods with control variates lead to the minimiser
of the reported objective whatever the weights and ``by`` are; the messages of the others are weighed by
:math:`w_i / \pi_i`, with w the weights of the objective and :math:`\pi_i` the probability that client i is drawn, so
that these methods settle where they would without a cohort. With ``estimate="normalised"`` three of the four pairs of
weights and ``by`` minimise another objective, see :class:`Cohort`.

Downlink bits are those of the broadcast that the cohort starts from and, for methods that need it, of the answer at the
end of a round. ``answer_bits`` in the records, and ``answers in it`` in the table, say how much the answers are.
:func:`sps_jax.stream` (``--stream``) keeps the clients that are not drawn in host memory.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from sps_jax.errors import described, unknown, whole

BY = ("uniform", "size")
ESTIMATES = ("unbiased", "normalised")


@dataclass(frozen=True)
class Cohort:
    r"""Some clients for each round, drawn without replacement before its local steps.

    What the server averages over a cohort S estimates :math:`\sum_i w_i m_i` over all n clients, w their weights
    (1/n each where they are equal):

    * ``"unbiased"`` divides a weight by the probability :math:`\pi_i` that the client is in S (Horvitz and Thompson
      1952), :math:`\hat m = \sum_{i \in S} \frac{w_i}{\pi_i} m_i`, and gives what is missing to a sum of one to the
      message of a client that takes no step. So the mean over cohorts of a round is the round of all clients, and a
      method has with every ``by`` and every weights the fixed point that it has without a cohort.
    * ``"normalised"`` divides it by their sum in S, as most simulators do. Where w are equal and all are as likely
      the two are one; else it minimises :math:`\sum_i v_i f_i`, with small steps,
      :math:`v_i = E[1_{i \in S}\, w_i / \sum_{j \in S} w_j]`.

    Methods with control variates always average with normalised weights, for that keeps the sum of the control
    variates, and they lead to the same minimiser all the same.

    Attributes:
      size: how many, C <= n. With C = 1 the methods that update control variates by the difference to the average
        (ProxSkip and its kin) have none: the average is the client's own message.
      by: ``"uniform"``, every set of C clients is as likely, or ``"size"``: one after another, each with a probability
        proportional to its number of examples among those left.
      estimate: of the mean over all clients, ``"unbiased"`` or ``"normalised"``.

    Raises:
      ValueError: for a size below 1, or an unknown ``by`` or ``estimate``.

    Example:
      >>> ids = Cohort(2).draw(jax.random.key(0), jnp.array([5, 9, 7], jnp.int32))
      >>> ids.shape, len(set(ids.tolist()))
      ((2,), 2)
    """

    size: int
    by: str = "uniform"
    estimate: str = "unbiased"

    def __post_init__(self) -> None:
        size = whole(self.size)
        if size is None or size < 1:
            raise ValueError(f"a cohort must be a whole number of clients, at least 1, not {described(self.size)}")
        object.__setattr__(self, "size", size)
        if self.by not in BY:
            raise unknown("way to draw a cohort", self.by, BY)
        if self.estimate not in ESTIMATES:
            raise unknown("estimate of the mean over all clients", self.estimate, ESTIMATES)

    def draw(self, key: jax.Array, examples: jax.Array) -> jax.Array:
        """(C,) int32, different clients, in the order in which they were drawn.

        Args:
          key: a JAX random key.
          examples: (n,) how many examples each client has.

        Raises:
          ValueError: for a cohort of more than n clients.
        """
        return self.sample(key, examples)[0]

    def sample(self, key: jax.Array, examples: jax.Array) -> tuple[jax.Array, jax.Array]:
        r"""The clients of :meth:`draw`, and how likely each was to be among them: (C,) int32 and (C,) float32.

        Uniformly :math:`\pi_i = C/n`. By size a client has an exponential clock with the rate of its size, and the C
        that ring first are drawn. Given when the others ring, client i is among them if it rings before the
        :math:`\tau` of the first that is left out, so :math:`\pi_i = 1 - e^{-s_i \tau}`: weights divided by it are
        unbiased given the others' clocks, and so on the whole (Cohen and Kaplan 2007, Summarizing data using bottom-k
        sketches, rank conditioning). For C = 1 it is :math:`s_i / \sum_j s_j`, whose variance is finite.

        Raises:
          ValueError: for a cohort of more than n clients.

        Example:
          >>> ids, likely = Cohort(1, "size").sample(jax.random.key(0), jnp.array([3, 1], jnp.int32))
          >>> likely.tolist() == [[0.75, 0.25][int(ids[0])]]
          True
        """
        n = examples.shape[0]
        if self.size > n:
            raise ValueError(f"a cohort of {self.size} clients cannot be drawn from {n}")
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
