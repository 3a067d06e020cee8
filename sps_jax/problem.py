r"""A problem: stacked client data with a loss.

.. math:: f(x) = \sum_i w_i f_i(x), \qquad
          f_i(x) = \frac{1}{m_i} \sum_{j < m_i} \ell(x; a_{ij}) + \frac{\rho}{2} \|x\|^2

over n clients with :math:`m_i` examples each; :math:`w_i = 1/n` unless ``weights`` say otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sps_jax.layout import VMAP, Layout, over_clients
from sps_jax.tree import Tree, widened

STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """Stacked data with a loss; a pytree, so data are arguments of a jitted function and never constants in it.

    Attributes:
      data: tuple of arrays (n, m, ...), client i's examples in the first ``counts[i]`` rows. The rows behind them are
        padding and repeat its first example, so that no function is asked about what is no example: a gradient that
        is masked afterwards is NaN where the function is not differentiable at the padding (0 x inf). A simulation
        replaces any other padding.
      counts: (n,) int32, the rows that client i has in ``data``, all >= 1.
      test: tuple of arrays (T, ...) that no client trains on, or None.
      ridge: rho >= 0, a scalar of the parameters' dtype.
      validation: the same of examples kept apart for choosing hyperparameters, or None.
      weights: (n,) summing to one, or None for equal weights (the f of the paper).
      smoothness: (n,) the constants L_i of the f_i where they are known, or None.
      convexity: a mu > 0 such that every f_i is mu-strongly convex where one is known, or None.
      sizes: (n,) int32, the examples that client i has, where its rows are not these but stand for them, as moments do;
        None where they are its rows. What is said of a client's size is said of :attr:`examples`.
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
      >>> import numpy as np
      >>> from sps_jax.simulation.stacking import stack_clients
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

    data: tuple[jax.Array, ...]
    counts: jax.Array
    test: tuple[jax.Array, ...] | None
    ridge: jax.Array
    weights: jax.Array | None = None
    smoothness: jax.Array | None = None
    convexity: jax.Array | None = None
    validation: tuple[jax.Array, ...] | None = None
    sizes: jax.Array | None = None
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

    @property
    def examples(self) -> jax.Array:
        """(n,) int32, how many examples each client has."""
        return self.counts if self.sizes is None else self.sizes

    def only(self, ids: jax.Array) -> "Problem":
        """The problem of these clients, (C,) of 0..n-1; what is known of all clients is left out."""
        data, counts, sizes = jax.tree.map(lambda a: a[ids], (self.data, self.counts, self.sizes))
        weights = None if self.weights is None else self.weights[ids] / jnp.sum(self.weights[ids])
        own = {"data": data, "counts": counts, "sizes": sizes, "weights": weights}
        return replace(self, **own, smoothness=None, convexity=None)

    def client_loss(self, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> jax.Array:
        """f_i over all ``count`` examples of ONE client's padded ``data``."""
        loss = self._mean_loss(params, data, count)
        square = optax.tree.norm(jax.tree.map(partial(widened, to=loss.dtype), params), squared=True)
        return loss + self.ridge.astype(loss.dtype) / 2 * square

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
        return lambda params: jnp.mean(widened(self.loss(params, *batch), self.ridge.dtype))

    def _mean_loss(self, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> jax.Array:
        total = self._sums(self.loss, params, data, count)
        return total / count.astype(total.dtype)

    def objective(self, params: Tree, layout: Layout = VMAP) -> jax.Array:
        """f, over the training examples of all clients, ``evaluate_examples`` of each at most."""
        data, counts, most = self.data, self.counts, self.evaluate_examples
        if most is not None:
            data, counts = tuple(a[:, :most] for a in data), jnp.minimum(counts, most)

        def one(params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> tuple[jax.Array, tuple[()]]:
            return self.client_loss(params, data, count), ()

        return over_clients(layout, one, self.weights, params, data, counts)[0]

    def evaluate(self, params: Tree, layout: Layout = VMAP) -> dict[str, jax.Array]:
        """``train_loss`` (f), and ``test_<metric>`` and ``validation_<metric>`` where there are such data: no ridge."""
        return {"train_loss": self.objective(params, layout)} | self.evaluate_held(params, layout)

    def evaluate_held(self, params: Tree, layout: Layout = VMAP) -> dict[str, jax.Array]:
        """Of :meth:`evaluate` what is of examples that no client trains on."""
        seen: dict[str, jax.Array] = {}
        for part, examples in (("validation", self.validation), ("test", self.test)):
            if examples is not None:
                seen |= {f"{part}_{name}": mean for name, mean in self._means(examples, params, layout).items()}
        return seen

    def _means(self, held: tuple[jax.Array, ...], params: Tree, layout: Layout) -> dict[str, jax.Array]:
        """Means over held out examples, which the devices of ``layout`` share like clients, equally many each."""
        metrics = self.metrics or (lambda *a: {"loss": self.loss(*a)})
        examples, devices = held[0].shape[0], layout.devices
        each = -(-examples // devices)
        firsts = jnp.arange(devices, dtype=jnp.int32) * each

        # the examples are an argument: they may lie on the mesh, and what lies there cannot be closed over
        def share(shared: Any, first: jax.Array) -> tuple[dict[str, jax.Array], tuple[()]]:
            params, held = shared
            rows = jnp.minimum(first + jnp.arange(each, dtype=jnp.int32), examples - 1)
            own = tuple(a[rows] for a in held)
            return self._sums(metrics, params, own, jnp.minimum(each, examples - first)), ()

        sums, _ = over_clients(Layout(1, layout.mesh), share, None, (params, held), firsts)
        return {name: total * devices / examples for name, total in sums.items()}

    def _sums(self, function: Callable, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> Any:
        """Sums of ``function`` over the first ``count`` examples, ``evaluate_batch`` of them computed at once.

        It is like ``loss`` or ``metrics``; whatever it computes in, the sums are float32 or better.
        """
        examples, at_once = data[0].shape[0], self.evaluate_batch

        def over(rows: jax.Array) -> Any:
            own = data if at_once is None else tuple(a[jnp.minimum(rows, examples - 1)] for a in data)
            values = jax.tree.map(partial(widened, to=self.ridge.dtype), function(params, *own))
            return jax.tree.map(lambda v: jnp.sum(jnp.where(rows < count, v, jnp.zeros_like(v))), values)

        if at_once is None:
            return over(jnp.arange(examples, dtype=jnp.int32))
        batches = -(-examples // at_once)
        rows = jnp.arange(batches * at_once, dtype=jnp.int32).reshape(batches, at_once)
        return jax.tree.map(jnp.sum, lax.map(over, rows))
