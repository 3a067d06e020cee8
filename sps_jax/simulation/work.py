"""What clients compute at once, traced, and the arrays that this holds.

Many clients at once are traced as ``STACKED`` ones, an axis whose length no other is a multiple of, and then resized.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from sps_jax.problem import Problem
from sps_jax.simulation.liveness import Sized, alive
from sps_jax.simulation.method import Method
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.round import Round
from sps_jax.simulation.schedule import split_key
from sps_jax.tree import Tree

STACKED = 9973
"""A prime, so that an axis of clients is known even where it is merged with others."""


class Abstract(tuple):
    """A method and a problem as shapes: the structure and the leaves of both, which is hashable."""

    @staticmethod
    def of(method: Method, problem: Problem) -> "Abstract":
        """The shapes of a method and a problem."""
        leaves, structure = jax.tree.flatten((method, problem))
        return Abstract((structure, tuple(jax.ShapeDtypeStruct(jnp.shape(a), a.dtype) for a in leaves)))

    @property
    def both(self) -> tuple[Method, Problem]:
        """The method and the problem, of shapes."""
        return self[0].unflatten(self[1])


@lru_cache(maxsize=100)
def of_step(traced: Abstract, platform: str, many: bool, *, sends: bool = False) -> tuple[Sized, ...]:
    """Return the arrays that a local step, or sending a message, holds beside iterates, memory, data and messages.

    Args:
      traced: the method and the problem.
      platform: see :func:`sps_jax.simulation.liveness.alive`.
      many: whether they are of ``STACKED`` clients at once instead of one.
      sends: whether the clients send instead of stepping.
    """

    def begin(method: Method, problem: Problem) -> Tree:
        algorithm = method.algorithm()
        h, server = algorithm.init(problem.init(split_key(jax.random.key(0)).init))
        b = algorithm.broadcast(server)
        return algorithm.start(b, h), h, b

    def after(method: Method, problem: Problem, x: Tree, h: Tree, b: Tree) -> Tree:
        keys, t = split_key(jax.random.key(0)), jnp.int32(0)
        this = Round(method.algorithm(), taking_part(problem, None, keys, t), problem.clients, keys, t)
        send = partial(this.send, this.round_info(t, 1), t, b)
        one = send if sends else partial(this.local_step, t, b)
        if many:
            return jax.vmap(one)(x, h, this.members)
        return one(x, h, jax.tree.map(lambda a: a[0], this.members))

    method, problem = traced.both
    problem = _of(problem, STACKED if many else 1)
    x, h, b = jax.eval_shape(begin, method, problem)
    return alive(after, method, problem, *((_rows(x), _rows(h)) if many else (x, h)), b, platform=platform)


@lru_cache(maxsize=100)
def of_loss(traced: Abstract, platform: str, many: bool) -> tuple[Sized, ...]:
    """Return the arrays that the evaluation of clients' losses holds beside model and data."""

    def losses(problem: Problem, params: Tree) -> jax.Array:
        one: Callable = partial(problem.client_loss, params)
        data, counts = problem.evaluated
        return jax.vmap(one)(data, counts) if many else one(tuple(a[0] for a in data), counts[0])

    problem = _of(traced.both[1], STACKED if many else 1)
    return alive(losses, problem, _params(problem), platform=platform)


@lru_cache(maxsize=100)
def of_held_out(traced: Abstract, platform: str, devices: int) -> tuple[Sized, ...]:
    """Return the arrays that the evaluation of the held-out data holds on each of ``devices`` devices."""
    problem = traced.both[1]
    cut = lambda a: jax.ShapeDtypeStruct((-(-a.shape[0] // devices), *a.shape[1:]), a.dtype)  # noqa: E731
    problem = replace(problem, **jax.tree.map(cut, {"test": problem.test, "validation": problem.validation}))
    return alive(Problem.evaluate_held, problem, _params(problem), platform=platform)


def _params(problem: Problem) -> Tree:
    return jax.eval_shape(problem.init, jax.random.key(0))


def _of(problem: Problem, clients: int) -> Problem:
    """``problem`` with so many clients, of no particular weights."""
    shaped = lambda a: jax.ShapeDtypeStruct((clients, *a.shape[1:]), a.dtype)  # noqa: E731
    data, counts, sizes = jax.tree.map(shaped, (problem.data, problem.counts, problem.sizes))
    return replace(problem, data=data, counts=counts, sizes=sizes, weights=None, smoothness=None, convexity=None)


def _rows(one: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((STACKED, *a.shape), a.dtype), one)


def resized(arrays: tuple[Sized, ...], rows: int) -> list[Sized]:
    """Return arrays of ``STACKED`` clients as arrays of ``rows``; those without an axis of clients as they are."""
    return [Sized(_axis(a.shape, rows), a.dtype) for a in arrays]


def _axis(shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    own = next((i for i, length in enumerate(shape) if length and length % STACKED == 0), None)
    return tuple(length // STACKED * rows if i == own else length for i, length in enumerate(shape))
