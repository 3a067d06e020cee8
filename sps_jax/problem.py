r"""A federated problem: the clients' stacked data, and a loss.

.. math:: f(x) = \sum_i w_i f_i(x), \qquad
          f_i(x) = \frac{1}{m_i} \sum_{j < m_i} \ell(x; a_{ij}) + \frac{\rho}{2} \|x\|^2

over n clients with :math:`m_i` examples each; :math:`w_i = 1/n` unless ``weights`` are given.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from sps_jax.layout import VMAP, Layout, over_clients
from sps_jax.tree import Tree, class_count, divided, first_rows, widened

STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """Stacked client data with a loss. A pytree: jitted functions take the data as arguments, never as constants.

    Attributes:
      data: tuple of arrays (n, m, ...), client i's examples in the first ``counts[i]`` rows. The rows after them are
        padding and repeat the client's first example, so that the loss is only evaluated at real examples: masking a
        gradient afterwards gives NaN if the loss is not differentiable at the padding (0 x inf). A simulation
        replaces any other padding.
      counts: (n,) int32, the number of rows of client i in ``data``, all >= 1.
      test: tuple of arrays (T, ...) that no client trains on, or None.
      ridge: rho >= 0, a scalar of the parameters' dtype.
      validation: like ``test``, examples held out for choosing hyperparameters, or None.
      weights: (n,) client weights that sum to one; None for equal weights (the f of the paper).
      smoothness: (n,) the smoothness constants L_i of the f_i, or None if unknown.
      convexity: a mu > 0 such that every f_i is mu-strongly convex, or None if unknown.
      held_counts: ``"test"`` or ``"validation"`` -> int32 scalar, the number of its examples; the rows after them are
        padding, which no metric sees. None if neither has padding.
      sizes: (n,) int32, the number of examples of client i if its rows only summarise them, as moments do; None if its
        rows are its examples. :attr:`examples` is the size of a client everywhere.
      init: key -> params, the starting point x_0.
      loss: (params, *examples) -> (b,), the losses of b examples.
      noisy_loss: (key, params, *examples) -> (b,), the loss of a training batch where it is random, as with dropout;
        None if it is ``loss``.
      metrics: (params, *examples) -> {name: (b, ...)}, pytrees that are summed over the held-out examples; None for the
        loss alone.
      finish: ({name: sums}, number of examples) -> {name: scalar}, the metrics; None divides the sums by the number.
      classes: the labels that the numbers 0, 1, ... of y stand for; None if they are 0, 1, ... themselves.
      batch_size: b, the number of examples per local gradient; None for all of the client's.
      in_order: whether iteration t takes the examples t b, t b + 1, ... modulo m_i, cyclically, instead of drawing b
        with replacement.
      augment: (key, *examples) -> examples, a random augmentation of every training batch, or None.
      evaluate_batch: how many examples an evaluation computes at once; None for all of a client, and all test examples.
      evaluate_examples: an evaluation of f uses the first so many examples of each client; None for all.

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
    held_counts: dict[str, jax.Array] | None = None
    init: Callable[[jax.Array], Tree] = field(kw_only=True, metadata=STATIC)
    loss: Callable[..., jax.Array] = field(kw_only=True, metadata=STATIC)
    noisy_loss: Callable[..., jax.Array] | None = field(default=None, kw_only=True, metadata=STATIC)
    metrics: Callable[..., dict[str, Any]] | None = field(default=None, kw_only=True, metadata=STATIC)
    finish: Callable[[dict[str, Any], Any], dict[str, jax.Array]] | None = field(
        default=None, kw_only=True, metadata=STATIC
    )
    classes: tuple[Any, ...] | None = field(default=None, kw_only=True, metadata=STATIC)
    batch_size: int | None = field(default=None, kw_only=True, metadata=STATIC)
    in_order: bool = field(default=False, kw_only=True, metadata=STATIC)
    augment: Callable[..., tuple[jax.Array, ...]] | None = field(default=None, kw_only=True, metadata=STATIC)
    evaluate_batch: int | None = field(default=None, kw_only=True, metadata=STATIC)
    evaluate_examples: int | None = field(default=None, kw_only=True, metadata=STATIC)

    def __repr__(self) -> str:
        """Return one line: clients, examples, shape of an example, classes and held-out examples."""
        if not all(isinstance(a, np.ndarray | jax.Array) and _here(a) for a in jax.tree.leaves(self)):
            return "<Problem whose arrays are traced, abstract or of several processes>"
        few, many, total = (int(f(self.examples)) for f in (jnp.min, jnp.max, jnp.sum))
        each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        said = [f"{self.clients:,} clients", f"{total:,} examples ({each} a client)"]
        said += ["summed up in moments"] if self.sizes is not None else [f"of shape {self.data[0].shape[2:]}"]
        said += [f"{count} classes"] if self.sizes is None and (count := class_count(self.data)) else []
        held = (("test", self.test), ("validation", self.validation))
        counts = self.held_counts or {}
        said += [f"{int(counts.get(name, len(part[0]))):,} {name} examples" for name, part in held if part is not None]
        return f"<Problem of {', '.join(said)}>".replace(", of shape", " of shape")

    @property
    def clients(self) -> int:
        """n, the number of clients."""
        return self.counts.shape[0]

    @property
    def examples(self) -> jax.Array:
        """(n,) int32, the number of examples of each client."""
        return self.counts if self.sizes is None else self.sizes

    def only(self, ids: jax.Array) -> "Problem":
        """Return the problem of the clients ``ids``, (C,) of 0..n-1, without ``smoothness`` and ``convexity``."""
        data, counts, sizes = jax.tree.map(lambda a: a[ids], (self.data, self.counts, self.sizes))
        weights = None if self.weights is None else self.weights[ids] / jnp.sum(self.weights[ids])
        own = {"data": data, "counts": counts, "sizes": sizes, "weights": weights}
        return replace(self, **own, smoothness=None, convexity=None)

    def client_loss(self, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> jax.Array:
        """Return f_i at ``params``, over all ``count`` examples of ONE client's padded ``data``."""
        loss = self._mean_loss(params, data, count)
        square = optax.tree.norm(jax.tree.map(partial(widened, to=loss.dtype), params), squared=True)
        return loss + self.ridge.astype(loss.dtype) / 2 * square

    def gradient(
        self, data: tuple[jax.Array, ...], count: jax.Array, t: jax.Array, key: jax.Array, params: Tree
    ) -> Tree:
        """Return the gradient of f_i at ``params``, on all examples of ONE client or its batch of iteration ``t``."""
        slope = jax.grad(self.local_loss(data, count, t, key))(params)
        return jax.tree.map(lambda g, p: g + self.ridge * p, slope, params)

    def local_loss(self, data: tuple[jax.Array, ...], count: jax.Array, t: jax.Array, key: jax.Array) -> Callable:
        """Return ``params -> mean loss``, the function that :meth:`gradient` differentiates, without the ridge."""
        if self.noisy_loss is not None:
            key, noise = jax.random.split(key)
            drawn = replace(self, loss=partial(self.noisy_loss, noise), noisy_loss=None, evaluate_batch=None)
            return drawn.local_loss(data, count, t, key)
        if self.batch_size is None:
            return lambda params: self._mean_loss(params, data, count)
        draw, change = (key, key) if self.augment is None else jax.random.split(key)
        if self.in_order:  # t modulo count first: t b may overflow int32
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

    def client_metrics(self, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> dict[str, jax.Array]:
        """Return the metrics of ONE client's padded data, without the ridge; the loss alone if its rows are moments."""
        if self.metrics is None or self.sizes is not None:
            return {"loss": self._mean_loss(params, data, count)}
        return self._ended(self._sums(self.metrics, params, data, count), count.astype(self.ridge.dtype))

    @property
    def evaluated(self) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """The data and counts that an evaluation uses: at most ``evaluate_examples`` of each client."""
        most = self.evaluate_examples
        if most is None:
            return self.data, self.counts
        return tuple(a[:, :most] for a in self.data), jnp.minimum(self.counts, most)

    def objective(self, params: Tree, layout: Layout = VMAP) -> jax.Array:
        """Return f at ``params``, over at most ``evaluate_examples`` training examples of each client."""

        def one(params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> tuple[jax.Array, tuple[()]]:
            return self.client_loss(params, data, count), ()

        return over_clients(layout, one, self.weights, params, *self.evaluated)[0]

    def evaluate(self, params: Tree, layout: Layout = VMAP) -> dict[str, jax.Array]:
        """Return ``train_loss`` (f), and ``test_<metric>`` and ``validation_<metric>`` of held-out data (no ridge)."""
        return {"train_loss": self.objective(params, layout)} | self.evaluate_held(params, layout)

    def evaluate_held(self, params: Tree, layout: Layout = VMAP) -> dict[str, jax.Array]:
        """Return the metrics of :meth:`evaluate` on the examples that no client trains on."""
        metrics: dict[str, jax.Array] = {}
        for part, examples in (("validation", self.validation), ("test", self.test)):
            if examples is not None:
                found = self._finished(examples, (self.held_counts or {}).get(part), params, layout)
                metrics |= {f"{part}_{name}": value for name, value in found.items()}
        return metrics

    def _finished(
        self, held: tuple[jax.Array, ...], count: jax.Array | None, params: Tree, layout: Layout
    ) -> dict[str, jax.Array]:
        """Return the metrics of ``count`` held-out examples, None for all, split over the devices of ``layout``."""
        metrics = self.metrics or (lambda *a: {"loss": self.loss(*a)})
        rows, devices = held[0].shape[0], layout.devices
        each = -(-rows // devices)
        firsts = jnp.arange(devices, dtype=jnp.int32) * each

        # the examples are an argument because shard_map cannot close over arrays that are sharded over the mesh
        def share(shared: Any, first: jax.Array) -> tuple[dict[str, Any], tuple[()]]:
            params, held, count = shared
            own = tuple(a[jnp.minimum(first + jnp.arange(each, dtype=jnp.int32), rows - 1)] for a in held)
            examples = rows if count is None else count
            return self._sums(metrics, params, own, jnp.minimum(each, examples - first)), ()

        sums, _ = over_clients(Layout(1, layout.mesh), share, None, (params, held, count), firsts)
        return self._ended(jax.tree.map(lambda total: total * devices, sums), rows if count is None else count)

    def _ended(self, sums: dict[str, Any], examples: Any) -> dict[str, jax.Array]:
        if self.finish is not None:
            return self.finish(sums, examples)
        return {name: divided(total, examples) for name, total in sums.items()}

    def _sums(self, function: Callable, params: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> Any:
        """Sum ``function``, such as ``loss`` or ``metrics``, over the first ``count`` examples.

        It computes ``evaluate_batch`` examples at once. The sums are float32 or wider, whatever dtype it returns.
        """
        examples, at_once = data[0].shape[0], self.evaluate_batch

        def over(rows: jax.Array) -> Any:
            own = data if at_once is None else tuple(a[jnp.minimum(rows, examples - 1)] for a in data)
            values = jax.tree.map(partial(widened, to=self.ridge.dtype), function(params, *own))
            return jax.tree.map(lambda v: jnp.sum(first_rows(rows < count, v), axis=0), values)

        if at_once is None:
            return over(jnp.arange(examples, dtype=jnp.int32))
        batches = -(-examples // at_once)
        rows = jnp.arange(batches * at_once, dtype=jnp.int32).reshape(batches, at_once)
        return jax.tree.map(lambda sums: jnp.sum(sums, axis=0), lax.map(over, rows))


def _here(a: np.ndarray | jax.Array) -> bool:
    return not isinstance(a, jax.core.Tracer) and getattr(a, "is_fully_addressable", True)
