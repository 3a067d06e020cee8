"""The interface of a network, and the dtypes of its parameters and outputs."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax

FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}
"""Argument of a network that says whether it is in training -> its value in training."""


class Model(NamedTuple):
    """A network as pure functions.

    Attributes:
      init: key -> params.
      apply: params, inputs (b, ...) -> outputs (b, ...).
      train: params, inputs, key -> outputs in training, for a network that is then random, as with dropout; None if
        it is not.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    train: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None


@cache
def after(change: Callable[[jax.Array], jax.Array], model: Model) -> Model:
    """Returns ``model`` applied to ``change`` of its inputs; equal arguments give the same object.

    >>> double = after(lambda x: 2 * x, Model(lambda key: 1.0, lambda params, x: params * x))
    >>> double.apply(3.0, 5)
    30.0
    """
    train = model.train
    return Model(
        model.init,
        lambda params, x: model.apply(params, change(x)),
        None if train is None else lambda params, x, key: train(params, change(x), key),
    )


def modes(call: Callable) -> tuple[dict[str, bool], dict[str, bool]]:
    """Returns the keyword arguments, of ``FLAGS``, of a network in evaluation and in training.

    >>> modes(lambda x, train: x), modes(lambda x, *, deterministic=True: x), modes(lambda x: x)
    (({'train': False}, {'train': True}), ({'deterministic': True}, {'deterministic': False}), ({}, {}))
    """
    takes = inspect.signature(call).parameters
    training = {name: value for name, value in FLAGS.items() if name in takes}
    return {name: not value for name, value in training.items()}, training


def storage(dtype: str) -> str:
    """Returns the dtype of parameters and outputs of a network that computes in ``dtype``: float32 for bfloat16."""
    return "float32" if dtype == "bfloat16" else dtype


def norm_options(dtype: str) -> dict[str, Any]:
    """Returns options for flax's normalisations: they compute in the parameters' dtype, as bfloat16 is too coarse."""
    return {"dtype": storage(dtype), "param_dtype": storage(dtype), "force_float32_reductions": False}
