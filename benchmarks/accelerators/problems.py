"""Problems without data: the shapes of the real ones, as :func:`jax.eval_shape` would return them."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax import Problem, models
from sps_jax.problems.cifar10 import _on_bytes, crop_and_flip
from sps_jax.problems.supervised import linear_problem, network_problem

Shape = jax.ShapeDtypeStruct


def digits() -> Problem:
    """``digits()``: 10 clients of at most 204 images."""
    return _linear(204, 359, (10, 64), batch=None, ridge=1e-3)


def femnist() -> Problem:
    """``femnist()``: 100 writers of at most 118 images of 10 digits, full batches."""
    return _linear(118, 1064, (100, 784), batch=None)


def femnist_all() -> Problem:
    """``femnist(classes="all", batch_size=20)``: 100 writers of at most 321 images of 62 characters."""
    return _linear(321, 1524, (100, 784), batch=20, classes=62)


def cifar10(model: models.Model | None = None) -> Problem:
    """``cifar10()``: 10 clients of at most 10,173 images, batches of 16; ``model`` in place of ResNet18."""
    model = _on_bytes(model or models.resnet18(10), "float32")
    image, label = np.zeros((10, 32, 32, 3), np.uint8), np.zeros(10, np.int32)
    options = {"batch_size": 16, "augment": crop_and_flip, "evaluate_batch": 50, "evaluate_examples": 100}
    tiny = network_problem("softmax", model, (image, label), (image, label), _one_each(10), **options)
    return _of_length(tiny, 10_173, 10_000)


def shakespeare(model: Callable, **sizes: int) -> Problem:
    """``shakespeare()``: 100 roles of at most 423 windows of 80 characters, batches of 8."""
    windows = np.zeros((100, 80), np.int32)
    options = {"batch_size": 8, "evaluate_batch": 64}
    pairs = (windows, windows)
    tiny = network_problem("softmax", model(65, **sizes), pairs, pairs, _one_each(100), **options)
    return _of_length(tiny, 423, 836)


def _linear(
    examples: int, held: int, stacked: tuple[int, int], batch: int | None, ridge: float = 0.0, classes: int = 10
) -> Problem:
    clients, features = stacked
    train = np.zeros((clients, features), np.float32), np.arange(clients) % classes
    options = {"outputs": classes, "batch_size": batch, "ridge": ridge}
    return _of_length(linear_problem("softmax", train, train, _one_each(clients), **options), examples, held)


def _one_each(clients: int) -> list[np.ndarray]:
    return [np.array([i]) for i in range(clients)]


def _of_length(problem: Problem, examples: int, held: int) -> Problem:
    """``problem`` as shapes, with so many examples a client and so many held out."""
    shaped: Problem = jax.tree.map(lambda a: Shape(jnp.shape(a), a.dtype), problem)
    data = tuple(Shape((a.shape[0], examples, *a.shape[2:]), a.dtype) for a in shaped.data)
    test = tuple(Shape((held, *a.shape[1:]), a.dtype) for a in shaped.test or ())
    return replace(shaped, data=data, test=test)
