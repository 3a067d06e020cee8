"""An optax transform of the local steps' direction, for any method."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from sps_jax.algorithms.base import Algorithm, Follow, Gradient, RoundInfo
from sps_jax.errors import refuse_unknown
from sps_jax.tree import Tree

ON = ("direction", "gradient")
TRIED = 1000
"""Most steps of a trial: a transform that accumulates updates only every few steps, and a warm-up begins with zero."""


def transformed(algorithm: Algorithm, transform: optax.GradientTransformation, on: str = "direction") -> Algorithm:
    r"""Returns ``algorithm`` with an optax transform applied to the direction d of its local steps.

    Args:
      algorithm: any algorithm.
      transform: for example clipping or momentum; not an optimiser, which reverses the sign of the direction. Each
        client has its own transform state and keeps it across rounds. As parameters the transform gets x, or the first
        part of x that has the structure and shapes of d.
      on: ``"direction"`` transforms d; for ProxSkip :math:`d = g - h` with g the gradient, which is zero at the
        solution, so that clipping keeps the fixed point. ``"gradient"`` transforms g alone, as is usual in deep
        learning; the transform must then be stateless.

    Raises:
      ValueError: for an unknown ``on``, or no optax transform; when the algorithm starts, for a transform that reverses
        the sign of the direction, needs more than parameters, or has a state with ``on="gradient"``.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from sps_jax import descend
      >>> method = transformed(Algorithm(move=descend(0.5)), optax.clip_by_global_norm(2.0))
      >>> h, b = method.init(jnp.array([0.0, 8.0]))
      >>> x = method.start(b, h)
      >>> x, _ = method.move(x, method.direction(x, h, b, lambda x: x, None))
      >>> x.tolist()
      [0.0, 7.0]
    """
    check_transform(transform, on)
    if on == "gradient":
        return _of_gradients(algorithm, transform)

    def init(params: Tree) -> tuple[Tree, Tree]:
        _try_out(transform, params)
        h, server = algorithm.init(params)
        return (h, transform.init(params)), server

    def direction(x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        (x, state), (h, _) = x, h
        d = algorithm.direction(x, h, b, gradient, key)
        if isinstance(d, Follow):
            new, state = transform.update(d.d, state, _like(d.d, d.x))
            return d._replace(d=new), state
        return transform.update(d, state, _like(d, x))

    def move(x: Tree, d: Tree) -> Tree:
        (x, _), (d, state) = x, d
        return algorithm.move(x, d), state

    def receive(x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo) -> Tree:
        (x, state), (h, _) = x, h
        return algorithm.receive(x, h, m, b, info), state

    return algorithm._replace(
        init=init,
        init_client=lambda h, i, n: (algorithm.init_client(h[0], i, n), h[1]),
        start=lambda b, h: (algorithm.start(b, h[0]), h[1]),
        direction=direction,
        move=move,
        send=lambda x, h, b, gradient, info: algorithm.send(x[0], h[0], b, gradient, info),
        receive=receive,
        personal=lambda h, server: algorithm.personal(h[0], server),
        control=lambda h, server: algorithm.control(h[0], server),
    )


def check_transform(transform: Any, on: str) -> None:
    """Raise a ``ValueError`` if ``transform`` is no optax transform or ``on`` is unknown.

    >>> check_transform(optax.adam, "direction")
    Traceback (most recent call last):
      ...
    ValueError: transform must be an optax transform, such as optax.clip_by_global_norm(1.0), not a function
    """
    refuse_unknown("on", on, ON)
    refuse_no_optax("transform", transform, "optax.clip_by_global_norm(1.0)")


def refuse_no_optax(name: str, transform: Any, example: str) -> None:
    """Raise a ``ValueError`` if ``transform`` is no optax transform."""
    if not all(callable(getattr(transform, part, None)) for part in ("init", "update")):
        raise ValueError(f"{name} must be an optax transform, such as {example}, not a {type(transform).__name__}")


def _of_gradients(algorithm: Algorithm, transform: optax.GradientTransformation) -> Algorithm:
    def init(params: Tree) -> tuple[Tree, Tree]:
        _try_out(transform, params)
        if jax.tree.leaves(transform.init(params)):
            raise ValueError("with on='gradient' the transform must be stateless; use on='direction' for this one")
        return algorithm.init(params)

    def direction(x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        def changed(params: Tree) -> Tree:
            return transform.update(gradient(params), transform.init(params), params)[0]

        return algorithm.direction(x, h, b, changed, key)

    return algorithm._replace(init=init, direction=direction)


def _like(d: Tree, x: Tree) -> Tree | None:
    """Returns x or the first of its parts that has the structure and shapes of d: the parameters that d moves."""

    def described(of: Tree) -> tuple:
        return jax.tree.structure(of), [jnp.shape(leaf) for leaf in jax.tree.leaves(of)]

    parts = (x, *x) if isinstance(x, tuple) else (x,)
    return next((part for part in parts if described(part) == described(d)), None)


# --- whether local steps can use a transform ---------------------------------------------------------------------


def _try_out(transform: optax.GradientTransformation, params: Tree) -> None:
    """Raise a ``ValueError`` for a transform that a local step cannot apply, or that reverses a direction's sign."""
    leaves, structure = jax.tree.flatten(params)
    shapes = tuple((leaf.shape, jnp.dtype(leaf.dtype)) for leaf in leaves)
    try:
        jax.eval_shape(lambda params: transform.update(params, transform.init(params), params), params)
    except Exception as error:
        raise ValueError(
            "the transform cannot be applied to a local direction, as update(direction, state, params): "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    if turns_round(transform, structure, shapes):
        raise ValueError(
            "the transform reverses the sign of the local direction, as optimisers do (optax.sgd, optax.adam), so the "
            "loss would grow: a local step already subtracts stepsize times the direction; give only what precedes the "
            "step size, optax.trace(0.9) for optax.sgd(0.1, momentum=0.9), optax.scale_by_adam() for optax.adam(1e-3)"
        )


@lru_cache(maxsize=100)
def turns_round(transform: optax.GradientTransformation, structure: Any, shapes: tuple) -> bool:
    """Whether the transform reverses the sign of some leaf of a direction.

    Tried on small leaves, since the sign does not depend on sizes, and on leaves of full size if the transform holds
    arrays of its own that fit only these.
    """
    small = tuple((tuple(min(n, 3) for n in shape), dtype) for shape, dtype in shapes)
    with jax.ensure_compile_time_eval():
        try:
            return _answers_against(transform, structure, small, jax.vmap)
        except Exception:
            return _answers_against(transform, structure, shapes, lambda update: partial(lax.map, update))


def _answers_against(
    transform: optax.GradientTransformation, structure: Any, shapes: tuple, mapped: Callable[[Callable], Callable]
) -> bool:
    r"""Whether for some leaf l :math:`\langle T(d)_l - T(d')_l, d_l \rangle < 0`, d' being d with that leaf negated.

    T is the transform and d a direction. The difference cancels terms that do not depend on d, such as noise or weight
    decay. For a preconditioner :math:`T(d) = P d`, P positive semidefinite, the product is
    :math:`2 d_l^T P_{ll} d_l \ge 0`. From its initial state T is applied to the same directions repeatedly, until every
    product is clearly not zero, beyond rounding.
    """
    n, sizes = len(shapes), [math.prod(shape) for shape, _ in shapes]
    parts = [np.linspace(0.5, 1, size).reshape(shape) for size, (shape, _) in zip(sizes, shapes, strict=True)]
    whole, own = np.concatenate([part.ravel() for part in parts]), np.repeat(np.eye(n), sizes, axis=1)
    flips = np.ones((n + 1, n)) - 2 * np.eye(n + 1, n, -1)  # d itself first
    stacked = [np.multiply.outer(flips[:, i], part).astype(shapes[i][1]) for i, part in enumerate(parts)]
    params = structure.unflatten([jnp.ones(shape, dtype) for shape, dtype in shapes])
    update = mapped(lambda both: transform.update(both[0], both[1], params))

    def once(states: Tree, xp: Any) -> tuple[Any, Tree]:
        """Returns the sign of each leaf's product, and the next states."""
        answers, states = update((structure.unflatten([jnp.asarray(a) for a in stacked]), states))
        t = xp.concatenate([xp.asarray(a).astype(np.float32).reshape(n + 1, -1) for a in jax.tree.leaves(answers)], 1)
        weight = (own * whole).astype(np.float32)
        change, scale = ((t[:1] - t[1:]) * weight).sum(1), ((abs(t[:1]) + abs(t[1:])) * weight).sum(1)
        return xp.where(abs(change) > 1e-3 * scale, xp.sign(change), 0 * change), states

    def body(carry: tuple) -> tuple:
        k, signs, states = carry
        more, states = once(states, jnp)
        return k + 1, jnp.where(signs == 0, more, signs), states

    begun = jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a)[None], n + 1, axis=0), transform.init(params))
    signs, states = once(begun, np)  # one step suffices for most transforms, without compiling anything
    if not signs.all():
        unclear = (jnp.int32(1), jnp.asarray(signs), states)
        signs = lax.while_loop(lambda c: (c[0] < TRIED) & jnp.any(c[1] == 0), body, unclear)[1]
    return bool((signs < 0).any())
