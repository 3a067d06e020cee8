"""Losses of a model's outputs, by name in ``LOSSES``, computed in float32 or wider whatever the outputs' dtype."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sps_jax.errors import refuse_unknown
from sps_jax.models import Model
from sps_jax.problems.metrics import Metrics
from sps_jax.tree import Tree, widened


class Loss(NamedTuple):
    """A loss of a model's outputs.

    Attributes:
      of: (outputs, y) -> (b,), the losses of b examples.
      metrics: (outputs, y) -> {name: (b,)}, further metrics of test examples.
      curvature: the largest eigenvalue that the loss's Hessian in the model's outputs can have.
    """

    of: Callable[[jax.Array, jax.Array], jax.Array]
    metrics: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]
    curvature: float


def _over_positions(values: jax.Array) -> jax.Array:
    """(b, ...) -> (b,), the mean over the positions of an example."""
    return jnp.mean(values.reshape(len(values), -1), axis=1)


def _cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    logits = widened(logits, jnp.float32)
    classes_first = jnp.moveaxis(logits, -1, 0)  # XLA:CPU is slow to reduce over a short last axis
    return _over_positions(optax.softmax_cross_entropy_with_integer_labels(classes_first, y, axis=0))


def _argmax_accuracy(logits: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    return {"accuracy": _over_positions(widened(logits.argmax(-1).astype(y.dtype) == y, jnp.float32))}


def _accuracy_of_classes(outputs: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    """The accuracy where y are classes and the last axis of the outputs is over them; else no metric."""
    classes = jnp.issubdtype(y.dtype, jnp.integer) and outputs.shape[:-1] == y.shape and outputs.shape[-1:] > (1,)
    return _argmax_accuracy(outputs, y) if classes else {}


def _logistic(logits: jax.Array, y: jax.Array) -> jax.Array:
    return optax.sigmoid_binary_cross_entropy(widened(logits[:, 0], y.dtype), y)


def _sign_accuracy(logits: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    return {"accuracy": widened((logits[:, 0] > 0) == (y > 0), logits.dtype)}


def _half_square(predicted: jax.Array, y: jax.Array) -> jax.Array:
    return (widened(predicted[:, 0], y.dtype) - y) ** 2 / 2


def _squared_error(predicted: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    return {"mse": (widened(predicted[:, 0], y.dtype) - y) ** 2}


LOSSES = {
    "softmax": Loss(_cross_entropy, _argmax_accuracy, 1 / 2),
    "logistic": Loss(_logistic, _sign_accuracy, 1 / 4),
    "squares": Loss(_half_square, _squared_error, 1.0),
}


def loss_named(loss: str | Callable[[jax.Array, jax.Array], jax.Array]) -> Loss:
    """Returns the :class:`Loss` of that name, or of a function ``outputs, y -> (b,)``.

    A function has the accuracy as a further metric where y are integers and the outputs ``(*y.shape, classes)``.

    Raises:
      ValueError: for an unknown name.
    """
    if callable(loss):
        return Loss(loss, _accuracy_of_classes, np.inf)
    refuse_unknown("loss", loss, LOSSES)
    return LOSSES[loss]


@cache
def loss_of(model: Model, loss: str | Callable) -> Callable[..., jax.Array]:
    """Returns a function (params, x, y) -> (b,), the losses of b examples."""
    of = loss_named(loss).of
    return lambda params, x, y: of(model.apply(params, x), y)


@cache
def noisy_loss_of(model: Model, loss: str | Callable) -> Callable[..., jax.Array] | None:
    """Returns a function (key, params, x, y) -> (b,), the losses of b training examples; None if they draw nothing."""
    of, train = loss_named(loss).of, model.train
    return None if train is None else lambda key, params, x, y: of(train(params, x, key), y)


@cache
def metrics_of(model: Model, loss: str | Callable, more: Metrics = ()) -> Callable[..., dict[str, Any]]:
    """Returns a function (params, x, y) -> {name: (b, ...)}, loss included, that applies the model once.

    Args:
      model: the network.
      loss: a name or a function.
      more: further metrics, from :func:`sps_jax.problems.metrics.own_metrics`.
    """
    named = loss_named(loss)

    def metrics(params: Tree, x: jax.Array, y: jax.Array) -> dict[str, Any]:
        outputs = model.apply(params, x)
        own = {name: sums(outputs, y) for name, sums, _ in more}
        return {"loss": named.of(outputs, y)} | named.metrics(outputs, y) | own

    return metrics


@cache
def of_moments(model: Model) -> Callable[..., jax.Array]:
    """Returns the least-squares loss f_i without ridge, computed from its moments: one "example" per client."""

    def loss(params: Tree, gram: jax.Array, cross: jax.Array, square: jax.Array) -> jax.Array:
        kernel = jax.tree.leaves(params)[0].T  # (d, 1)
        curved = jax.lax.stop_gradient(jnp.matmul(gram, kernel, precision="highest"))  # (b, d, 1)
        # The value k.Gk with the gradient 2 Gk, G being symmetric: one product instead of differentiation's three
        form = jnp.sum((2 * kernel - jax.lax.stop_gradient(kernel))[None] * curved, axis=(1, 2))
        return (form - 2 * jnp.sum(cross * kernel[:, 0][None], axis=1) + square) / 2

    return loss
