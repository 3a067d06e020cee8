"""Modules that hold their own parameters, of flax.nnx and equinox, as functions of a nested dict of parameters."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
from flax import nnx, traverse_util

from sps_jax.errors import comes_from, described
from sps_jax.models.base import Model, modes

STATELESS = "use layers without state, such as GroupNorm for BatchNorm"


class _Same:
    """A key of a cache: an object by its identity."""

    def __init__(self, it: Any) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: Any) -> bool:
        return self.it is other.it


def holds(value: Any) -> bool:
    """Returns whether ``value`` is a module of flax.nnx or equinox."""
    return isinstance(value, nnx.Module) or (comes_from(value, "equinox") and not isinstance(value, type))


def held(module: Any) -> Model:
    """Returns a module as a :class:`Model` that starts from the module's own parameters, whatever the key.

    The same module with the same arrays gives the same object.

    Raises:
      ValueError: if the module has state beside its parameters.
    """
    arrays = nnx.state(module) if isinstance(module, nnx.Module) else module
    return _held((_Same(module), *map(_Same, jax.tree.leaves(arrays))))


@cache
def _held(own: tuple[_Same, ...]) -> Model:
    module = own[0].it
    return _split(module, lambda key: module)


@cache
def made(make: Callable[[jax.Array], Any]) -> Model:
    """Returns the :class:`Model` of ``make``, a function of a key that returns a module of flax.nnx or equinox.

    Raises:
      ValueError: if it returns anything else, or a module with state beside its parameters.
    """
    module = make(jax.random.key(0))
    if not holds(module):
        raise ValueError(f"a model that is one function must make a module of a key, not {described(module)}")
    return _split(module, make)


def _split(module: Any, make: Callable[[jax.Array], Any]) -> Model:
    return _of_nnx(module, make) if isinstance(module, nnx.Module) else _of_equinox(module, make)


def _of_nnx(module: Any, make: Callable[[jax.Array], Any]) -> Model:
    """Returns the functions of a module of nnx, whose dropout draws from the client's key."""
    evaluating, training = modes(module.__call__)
    parts: Any = nnx.split(module, nnx.Param, ...)
    graph, parameters, others = parts
    flat: Any = nnx.to_flat_state(parameters)
    beside: Any = [variable for _, variable in nnx.to_flat_state(others)]
    kept = {type(variable).__name__ for variable in beside if not isinstance(variable, nnx.RngState)}
    if kept:
        raise ValueError(f"the model keeps {', '.join(sorted(kept))} beside its parameters; {STATELESS}")
    streams = {str(variable.tag) for variable in beside if isinstance(variable, nnx.RngKey)}

    def init(key: jax.Array) -> dict:
        own = nnx.to_flat_state(nnx.state(make(key), nnx.Param))
        return traverse_util.unflatten_dict({tuple(map(str, path)): variable[...] for path, variable in own})

    def joined(params: dict) -> Any:
        new = traverse_util.flatten_dict(params)
        state = [(path, variable.replace(new[tuple(map(str, path))])) for path, variable in flat]
        return nnx.merge(graph, nnx.from_flat_state(state), jax.tree.map(lambda a: a, others))  # a copy, to be changed

    def apply(params: dict, x: jax.Array) -> jax.Array:
        own = joined(params)
        own.eval()
        return own(x, **evaluating)

    def train(params: dict, x: jax.Array, key: jax.Array) -> jax.Array:
        own = joined(params)
        own.train()
        keys: dict[str, Any] = dict.fromkeys(streams, key)
        nnx.reseed(own, **keys)
        return own(x, **training)

    return Model(init, apply, train if streams or training else None)


def _of_equinox(module: Any, make: Callable[[jax.Array], Any]) -> Model:
    """Returns the functions of a module of equinox, which takes one example: here b, each with its own key."""
    import equinox as eqx  # installed, as the user has made a module of it

    evaluating, training = modes(module.__call__)
    is_state = lambda leaf: isinstance(leaf, eqx.nn.StateIndex)  # noqa: E731
    if any(map(is_state, jax.tree.leaves(module, is_leaf=is_state))):
        raise ValueError(f"the model keeps a StateIndex beside its parameters; {STATELESS}")
    parameters, others = eqx.partition(module, eqx.is_inexact_array)
    paths, structure = jax.tree_util.tree_flatten_with_path(parameters)
    names = [tuple(jax.tree_util.keystr((key,), simple=True) for key in path) for path, _ in paths]
    keyed = (lambda key: {"key": key}) if "key" in inspect.signature(module.__call__).parameters else lambda key: {}
    dropout = not eqx.tree_equal(eqx.nn.inference_mode(module, True), eqx.nn.inference_mode(module, False))

    def init(key: jax.Array) -> dict:
        own = jax.tree.leaves(eqx.filter(make(key), eqx.is_inexact_array))
        return traverse_util.unflatten_dict(dict(zip(names, own, strict=True)))

    def joined(params: dict, inference: bool) -> Any:
        new = traverse_util.flatten_dict(params)
        own = jax.tree.unflatten(structure, [new[name] for name in names])
        return eqx.nn.inference_mode(eqx.combine(own, others), inference)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        own = joined(params, True)
        return jax.vmap(lambda one: own(one, **evaluating))(x)

    def train(params: dict, x: jax.Array, key: jax.Array) -> jax.Array:
        own = joined(params, False)
        return jax.vmap(lambda one, key: own(one, **keyed(key), **training))(x, jax.random.split(key, len(x)))

    return Model(init, apply, train if dropout or training else None)
