r"""A problem: stacked client data with a loss.

.. math:: f(x) = \sum_i w_i f_i(x), \qquad
          f_i(x) = \frac{1}{m_i} \sum_{j < m_i} \ell(x; a_{ij}) + \frac{\rho}{2} \|x\|^2

over n clients with :math:`m_i` examples each; :math:`w_i = 1/n` unless ``weights`` say otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from sps_jax.plan import VMAP, Plan, over_clients
from sps_jax.tree import Tree

STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """Stacked data with a loss; a pytree, so data are arguments of a jitted function and never constants in it.

    Attributes:
      data: tuple of arrays (n, m, ...), client i's examples in the first ``counts[i]`` rows, padding behind them.
      counts: (n,) int32, examples of each client, all >= 1.
      test: tuple of arrays (T, ...) that no client trains on, or None.
      ridge: rho >= 0, a scalar of the parameters' dtype.
      validation: the same of examples kept apart for choosing hyperparameters, or None.
      weights: (n,) summing to one, or None for equal weights (the f of the paper).
      smoothness: (n,) the constants L_i of the f_i where they are known, or None.
      convexity: a mu > 0 such that every f_i is mu-strongly convex where one is known, or None.
      init: key -> params, the starting point x_0.
      loss: (params, *examples) -> (b,), the losses of b examples.
      metrics: (params, *examples) -> {name: (b,)}, what is averaged over the test examples; None for the loss alone.
      batch_size: b, examples a local gradient is averaged over; None for all of them.
      in_order: whether iteration t takes the examples t b, t b + 1, ... modulo m_i, round and round, instead of
        drawing b with replacement.
      augment: (key, *examples) -> examples, a random change of every batch that a local gradient is taken on, or None.
      evaluate_batch: examples that an evaluation computes at once, None for all of a client and all test examples.
      evaluate_examples: of each client, the first so many, that an evaluation takes f over; None for all.

    Example:
      >>> data, counts = stack_clients([np.array([1.0, 3.0, 8.0], np.float32)], [np.array([0, 1]), np.array([2])])
      >>> problem = Problem(
      ...     data=tuple(map(jnp.asarray, data)),
      ...     counts=jnp.asarray(counts),
      ...     test=None,
      ...     ridge=jnp.float32(0),
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, a: (x - a) ** 2 / 2,
      ... )
      >>> float(problem.objective(jnp.zeros(1)))  # (2.5 + 32) / 2
      17.25
    """

    from_arrays: ClassVar[Callable[..., "Problem"]]
    """:func:`sps_jax.arrays.from_arrays`, which needs models and losses and so lives above this module."""

    data: tuple[jax.Array, ...]
    counts: jax.Array
    test: tuple[jax.Array, ...] | None
    ridge: jax.Array
    weights: jax.Array | None = None
    smoothness: jax.Array | None = None
    convexity: jax.Array | None = None
    validation: tuple[jax.Array, ...] | None = None
    init: Callable[[jax.Array], Tree] = field(kw_only=True, metadata=STATIC)
    loss: Callable[..., jax.Array] = field(kw_only=True, metadata=STATIC)
    metrics: Callable[..., dict[str, jax.Array]] | None = field(default=None, kw_only=True, metadata=STATIC)
    batch_size: int | None = field(default=None, kw_only=True, metadata=STATIC)
    in_order: bool = field(default=False, kw_only=True, metadata=STATIC)
    augment: Callable[..., tuple[jax.Array, ...]] | None = field(default=None, kw_only=True, metadata=STATIC)
    evaluate_batch: int | None = field(default=None, kw_only=True, metadata=STATIC)
    evaluate_examples: int | None = field(default=None, kw_only=True, metadata=STATIC)

    @property
    def clients(self) -> int:
        """n."""
        return self.counts.shape[0]

    def only(self, ids: jax.Array) -> "Problem":
        """The problem of these clients, (C,) of 0..n-1; what is known of all clients is left out."""
        data, counts = jax.tree.map(lambda a: a[ids], (self.data, self.counts))
        weights = None if self.weights is None else self.weights[ids] / jnp.sum(self.weights[ids])
        return replace(self, data=data, counts=counts, weights=weights, smoothness=None, convexity=None)

    def client_loss(self, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> jax.Array:
        """f_i over all ``count`` examples of ONE client's padded ``data``."""
        return self._mean_loss(params, data, count) + self.ridge / 2 * optax.tree.norm(params, squared=True)

    def gradient(
        self, data: tuple[jax.Array, ...], count: jax.Array, t: jax.Array, key: jax.Array, params: Tree
    ) -> Tree:
        """Gradient of f_i at ``params``: on all examples of ONE client, or on the batch of iteration ``t``."""
        slope = jax.grad(self.local_loss(data, count, t, key))(params)
        return jax.tree.map(lambda g, p: g + self.ridge * p, slope, params)

    def local_loss(self, data: tuple[jax.Array, ...], count: jax.Array, t: jax.Array, key: jax.Array) -> Callable:
        """params -> the mean loss that :meth:`gradient` differentiates; the ridge is apart."""
        if self.batch_size is None:
            return lambda params: self._mean_loss(params, data, count)
        draw, change = (key, key) if self.augment is None else jax.random.split(key)
        if self.in_order:  # t modulo count first: t b may not fit in 32 bits
            rows = (t % count * self.batch_size + jnp.arange(self.batch_size, dtype=jnp.int32)) % count
        else:
            rows = jax.random.randint(draw, (self.batch_size,), 0, count)
        batch = tuple(a[rows] for a in data)
        if self.augment is not None:
            batch = self.augment(change, *batch)
        return lambda params: jnp.mean(self.loss(params, *batch))

    def _mean_loss(self, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> jax.Array:
        total = _sums(self.loss, params, data, count, self.evaluate_batch)
        return total / count.astype(total.dtype)

    def objective(self, params: Tree, plan: Plan = VMAP) -> jax.Array:
        """f, over the training examples of all clients, ``evaluate_examples`` of each at most."""
        data, counts, most = self.data, self.counts, self.evaluate_examples
        if most is not None:
            data, counts = tuple(a[:, :most] for a in data), jnp.minimum(counts, most)

        def one(params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> tuple[jax.Array, tuple[()]]:
            return self.client_loss(params, data, count), ()

        return over_clients(plan, one, self.weights, params, data, counts)[0]

    def evaluate(self, params: Tree, plan: Plan = VMAP) -> dict[str, jax.Array]:
        """``train_loss`` (f), and ``test_<metric>`` and ``validation_<metric>`` where there are such data: no ridge."""
        return {"train_loss": self.objective(params, plan)} | self.evaluate_held(params, plan)

    def evaluate_held(self, params: Tree, plan: Plan = VMAP) -> dict[str, jax.Array]:
        """Of :meth:`evaluate` what is of examples that no client trains on."""
        seen: dict[str, jax.Array] = {}
        for part, examples in (("validation", self.validation), ("test", self.test)):
            if examples is not None:
                seen |= {f"{part}_{name}": mean for name, mean in self._means(examples, params, plan).items()}
        return seen

    def _means(self, held: tuple[jax.Array, ...], params: Tree, plan: Plan) -> dict[str, jax.Array]:
        """Means over held out examples, which the devices of ``plan`` share like clients, equally many each."""
        metrics = self.metrics or (lambda *a: {"loss": self.loss(*a)})
        examples, devices = held[0].shape[0], plan.devices
        each = -(-examples // devices)
        firsts = jnp.arange(devices, dtype=jnp.int32) * each

        def share(params: Tree, first: jax.Array) -> tuple[dict[str, jax.Array], tuple[()]]:
            rows = jnp.minimum(first + jnp.arange(each, dtype=jnp.int32), examples - 1)
            own = tuple(a[rows] for a in held)
            return _sums(metrics, params, own, jnp.minimum(each, examples - first), self.evaluate_batch), ()

        sums, _ = over_clients(Plan(1, plan.mesh), share, None, params, firsts)
        return {name: total * devices / examples for name, total in sums.items()}


def _sums(function: Callable, params: Tree, data: tuple[jax.Array, ...], count: jax.Array, at_once: int | None) -> Any:
    """Sums of a function like ``loss`` or ``metrics`` over the first ``count`` examples, so many computed at once."""
    examples = data[0].shape[0]

    def over(rows: jax.Array) -> Any:
        own = data if at_once is None else tuple(a[jnp.minimum(rows, examples - 1)] for a in data)
        own = function(params, *own)
        return jax.tree.map(lambda v: jnp.sum(jnp.where(rows < count, v, jnp.zeros_like(v))), own)

    if at_once is None:
        return over(jnp.arange(examples, dtype=jnp.int32))
    batches = -(-examples // at_once)
    rows = jnp.arange(batches * at_once, dtype=jnp.int32).reshape(batches, at_once)
    return jax.tree.map(jnp.sum, lax.map(over, rows))


def stack_clients(
    arrays: Sequence[np.ndarray], parts: Sequence[np.ndarray], longest: int | None = None
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Examples (N, ...) dealt to clients, padded with zeros: ``data`` (n, m, ...) and ``counts`` (n,) int32.

    Args:
      arrays: one or more arrays with the same leading axis of N examples.
      parts: for each client the indices of its examples, none empty.
      longest: m, where these are some of the clients of a problem; None for the most that one of them has.

    Raises:
      ValueError: for no client, a client without examples, arrays of unequal lengths or a row that is not there.

    Example:
      >>> data, counts = stack_clients([np.array([5, 6, 7])], [np.array([0, 2]), np.array([1])])
      >>> data[0].tolist(), counts.tolist()
      ([[5, 7], [6, 0]], [2, 1])
    """
    counts = np.array([len(part) for part in parts], np.int32)
    if not len(counts) or counts.min() < 1:
        raise ValueError("every client needs at least one example, and there must be a client")
    lengths = sorted({len(a) for a in arrays})
    if len(lengths) > 1:
        raise ValueError(f"all arrays need equally many examples, not {' and '.join(map(str, lengths))}")
    rows = np.concatenate([np.asarray(part) for part in parts])
    if not np.issubdtype(rows.dtype, np.integer) or rows.min() < 0 or rows.max() >= lengths[0]:
        raise ValueError(
            f"clients' rows must be whole numbers from 0 to {lengths[0] - 1}, not {rows.min()} to {rows.max()}"
        )
    most = counts.max() if longest is None else longest
    data = tuple(np.zeros((len(parts), most, *a.shape[1:]), a.dtype) for a in arrays)
    for stacked, a in zip(data, arrays, strict=True):
        for i, part in enumerate(parts):
            stacked[i, : len(part)] = a[part]
    return data, counts
