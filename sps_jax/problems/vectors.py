"""Examples of several axes stored as vectors, because a TPU would store images (H, W, 3) as (H, W, 128)."""

import math
from collections.abc import Callable
from functools import cache

import jax
import numpy as np

from sps_jax.models import Model, after


def vectors(examples: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns x as (N, d), and y."""
    x, y = examples
    return x.reshape(len(x), math.prod(x.shape[1:])), y


def of_vectors(model: Model, shape: tuple[int, ...]) -> Model:
    """Returns ``model`` for inputs (b, d) that hold (b, *shape)."""
    return after(_unflattened(shape), model)


@cache
def _unflattened(shape: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: x.reshape(-1, *shape)


@cache
def augmented_vectors(augment: Callable, shape: tuple[int, ...]) -> Callable:
    """Returns ``augment``, a function of key and batch, for batches whose x (b, d) holds (b, *shape)."""

    def augmented(key: jax.Array, x: jax.Array, *more: jax.Array) -> tuple[jax.Array, ...]:
        x, *more = augment(key, x.reshape(-1, *shape), *more)
        return (x.reshape(len(x), math.prod(shape)), *more)

    return augmented
