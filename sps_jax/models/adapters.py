"""Users' networks as a :class:`Model`: pairs of functions, modules of flax.linen, flax.nnx and equinox, haiku's pairs.

Equinox and haiku are recognised by the names of their modules and imported only then.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError

from sps_jax.errors import comes_from, described
from sps_jax.models.base import FLAGS, Model, modes
from sps_jax.models.holders import STATELESS, held, holds, made

KINDS = "functions (init, apply), an instance of a flax.linen module, or one of flax.nnx, equinox or haiku"


def network_of(model: Any, shape: tuple[int, ...], dtype: str) -> Model:
    """Returns ``model`` as pure functions; it is initialised with an example of this shape and dtype.

    A network that takes one of ``FLAGS`` is evaluated without, and trained with, its randomness; so is one of nnx or
    equinox with dropout. Equal modules give the same object, so that JAX reuses a compiled program.

    Args:
      model: a pair of functions, ``key -> params`` and ``params, x -> outputs``; an instance of a flax.linen module; a
        pair of ``haiku.transform``; an instance of a flax.nnx or equinox module, whose parameters are the starting
        point; or a function ``key -> instance`` of these two, so that the starting point follows the key.
      shape: shape of one example.
      dtype: dtype of the examples.

    Raises:
      ValueError: for anything else, and for a network with state beside its parameters.
    """
    if isinstance(model, Model):
        return model
    if comes_from(model, "haiku"):
        return _of_haiku(model, shape, dtype)
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        _refuse_signature("init", model[0], "a key", 1)
        _refuse_signature("apply", model[1], "parameters and inputs", 2)
        return Model(*model)
    if isinstance(model, type):
        raise ValueError(f"model must be {KINDS}, not the class {model.__name__}: make an instance of it")
    if isinstance(model, nn.Module):
        with suppress(TypeError):  # flax hashes a module by its fields, and a list among them cannot be hashed
            model = _first_equal(model)
        return _of_linen(model.init, shape, dtype)
    if holds(model):
        return held(model)
    if not callable(model):
        raise ValueError(f"model must be {KINDS}, not {described(model)}")
    _refuse_signature(None, model, "a key", 1)
    return made(model)


def _refuse_signature(name: str | None, function: Callable, words: str, count: int) -> None:
    """Raise a ``ValueError`` unless ``function`` can be called with ``count`` arguments."""
    try:
        takes = inspect.signature(function)
    except ValueError:  # a function that is not Python's
        return
    try:
        takes.bind(*range(count))
    except TypeError as error:
        who = "a model that is one function" if name is None else f"the model's {name}"
        raise ValueError(f"{who} must take {words} alone ({error})") from None


@cache
def _first_equal(module: Any) -> Any:
    """Returns the first module seen that equals this one; a ``TypeError`` if it cannot be hashed."""
    return module


@cache  # bound methods compare by the identity of their module, hashable or not
def _of_linen(init: Callable, shape: tuple[int, ...], dtype: str) -> Model:
    module: Any = init.__self__  # type: ignore[attr-defined]  # of a bound method
    evaluating, training = modes(module.__call__)
    start = lambda key: init(key, jnp.zeros((1, *shape), dtype), **evaluating)  # noqa: E731
    if not training:
        return Model(start, module.apply)
    return Model(
        start,
        lambda params, x: module.apply(params, x, **evaluating),
        lambda params, x, key: module.apply(params, x, **training, rngs={"dropout": key}),
    )


@cache
def _of_haiku(pair: Any, shape: tuple[int, ...], dtype: str) -> Model:
    """Returns haiku's pair without its random key in evaluation; in training the key is that of the client."""
    kind = type(pair).__name__
    if kind not in ("Transformed", "TransformedWithState"):
        raise ValueError(f"model must be {KINDS}, not {described(pair)}")
    if kind == "TransformedWithState":
        raise ValueError(f"the model keeps state beside its parameters, as haiku's {kind}; {STATELESS}")
    evaluating, training = modes(pair.apply)
    key_of = (lambda key: (key,)) if "rng" in inspect.signature(pair.apply).parameters else lambda key: ()
    return Model(
        lambda key: pair.init(key, jnp.zeros((1, *shape), dtype), **evaluating),
        lambda params, x: pair.apply(params, *key_of(None), x, **evaluating),
        (lambda params, x, key: pair.apply(params, *key_of(key), x, **training)) if training else None,
    )


def outputs_of(network: Model, shape: tuple[int, ...], dtype: Any, held: str) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of the network's outputs for two examples of this shape and dtype.

    Raises:
      ValueError: if its parameters are not of the dtype ``held``, it has state beside its parameters, it needs random
        numbers even in evaluation, or its output is not one array.
    """
    params = jax.eval_shape(network.init, jax.random.key(0))
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        more = ", ".join(sorted(set(params) - {"params"}))
        raise ValueError(f"the model keeps {more} beside its parameters; {STATELESS}")
    others = {leaf.dtype.name for leaf in jax.tree.leaves(params)} - {held}
    if others:
        raise ValueError(f"the model's parameters are {', '.join(sorted(others))}, but precision needs {held}")
    try:
        found = jax.eval_shape(network.apply, params, jax.ShapeDtypeStruct((2, *shape), dtype))
    except InvalidRngError:
        raise ValueError(
            f"the model draws random numbers in evaluation too: let it take {' or '.join(FLAGS)}, and draw in training"
        ) from None
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise ValueError(
            f"the model returns {described(found)}, not one array of outputs (b, ...): wrap it in a function that "
            "returns the one that the loss takes"
        )
    return found
