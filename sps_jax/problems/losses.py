"""Losses of a model's outputs, by name. ``LOSSES`` is the one table."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sps_jax.models import Model


class Loss(NamedTuple):
    """A loss of a model's outputs.

    Attributes:
      of: model -> (params, x, y) -> (b,), the losses of b examples.
      metrics: model -> pairs (name, function of the same shape).
      curvature: the largest second derivative of the loss in the model's outputs.
    """

    of: object
    metrics: object
    curvature: float


def _over_positions(values: jax.Array) -> jax.Array:
    """(b, ...) -> (b,), the mean over the positions of an example."""
    return jnp.mean(values.reshape(len(values), -1), axis=1)


@cache
def _cross_entropy(model: Model):
    def loss(params, x, y):
        return _over_positions(optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y))

    return loss


@cache
def _argmax_accuracy(model: Model):
    def accuracy(params, x, y):
        logits = model.apply(params, x)
        return _over_positions((logits.argmax(-1) == y).astype(logits.dtype))

    return (("accuracy", accuracy),)


@cache
def _logistic(model: Model):
    return lambda params, x, y: optax.sigmoid_binary_cross_entropy(model.apply(params, x)[:, 0], y)


@cache
def _sign_accuracy(model: Model):
    return (("accuracy", lambda params, x, y: ((model.apply(params, x)[:, 0] > 0) == (y > 0)).astype(x.dtype)),)


@cache
def _half_square(model: Model):
    return lambda params, x, y: (model.apply(params, x)[:, 0] - y) ** 2 / 2


@cache
def of_moments(model: Model):
    """f_i without ridge from its moments: one "example" a client."""

    def loss(params, gram, cross, square):
        kernel = jax.tree.leaves(params)[0].T  # (d, 1)
        curved = jax.lax.stop_gradient(jnp.matmul(gram, kernel, precision="highest"))  # (b, d, 1)
        # The value k.Gk with the gradient 2 Gk, G being symmetric: one product, where differentiation would make three
        form = jnp.sum((2 * kernel - jax.lax.stop_gradient(kernel))[None] * curved, axis=(1, 2))
        return (form - 2 * jnp.sum(cross * kernel[:, 0][None], axis=1) + square) / 2

    return loss


@cache
def _squared_error(model: Model):
    return (("mse", lambda params, x, y: (model.apply(params, x)[:, 0] - y) ** 2),)


LOSSES = {
    "softmax": Loss(_cross_entropy, _argmax_accuracy, 1 / 2),
    "logistic": Loss(_logistic, _sign_accuracy, 1 / 4),
    "squares": Loss(_half_square, _squared_error, 1.0),
}
