"""A method whose hyperparameters change from round to round."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo
from sps_jax.compression.bits import MessageFormat
from sps_jax.tree import Tree

At = Callable[[jax.Array], Algorithm]


def scheduled(at: At, serving: At | None = None) -> Algorithm:
    """Returns the method that is ``at(t)`` in round t = 0, 1, ...

    Clients and server run round t with ``at(t)``, from the broadcast that begins it to the server's update that ends
    it, since the server follows with its own copies what the clients did. The model after round t is evaluated with
    ``at(t + 1)``, as the next round begins with it. The server's state, the broadcast and x become pairs with t.
    Clients can count rounds themselves, so t costs no bits.

    Args:
      at: a function of the round's number, an int32 scalar, that returns the method. Only numbers in the method may
        depend on it.
      serving: of round t, the method whose ``serve`` ends it; by default ``at``. A server that prunes the next round's
        model needs the next round's sparsity.

    Example:
      >>> from sps_jax import fedavg
      >>> method = scheduled(lambda t: fedavg(stepsize=1 / (1 + t), prob=0.5))
      >>> x, d = jnp.array([4.0]), jnp.array([2.0])
      >>> [method.move((x, jnp.int32(t)), d)[0].tolist() for t in (0, 1)]
      [[2.0], [3.0]]
    """

    def init(params: Tree) -> tuple[Tree, Tree]:
        h, server = at(jnp.int32(0)).init(params)
        return h, (server, jnp.int32(0))

    def broadcast(state: Tree) -> Tree:
        server, t = state
        return at(t).broadcast(server), t

    def start(b: Tree, h: Tree) -> Tree:
        b, t = b
        return at(t).start(b, h), t

    def direction(x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        (x, _), (b, t) = x, b
        return at(t).direction(x, h, b, gradient, key)

    def move(x: Tree, d: Tree) -> Tree:
        x, t = x
        return at(t).move(x, d), t

    def send(x: Tree, h: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        (x, _), (b, t) = x, b
        return at(t).send(x, h, b, gradient, info)

    def serve(state: Tree, mean: Tree, info: RoundInfo) -> Tree:
        server, t = state
        return (serving or at)(t).serve(server, mean, info), t + 1

    def receive(x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo) -> Tree:
        (x, t), (b, _) = x, b
        begun = None if info.begun is None else info.begun[0]
        return at(t).receive(x, h, m, b, info._replace(begun=begun))

    first = at(jnp.int32(0))
    return first._replace(
        move=move,
        init=init,
        broadcast=broadcast,
        start=start,
        direction=direction,
        send=send,
        serve=serve,
        receive=receive,
        model=lambda state: at(state[1]).model(state[0]),
        with_model=lambda state, params: (at(state[1]).with_model(state[0], params), state[1]),
        personal=lambda h, state: at(state[1]).personal(h, state[0]),
        control=lambda h, state: at(state[1]).control(h, state[0]),
        downlink=MessageFormat(lambda b, info: first.downlink.count(b[0], info), lambda b: first.downlink.size(b[0])),
    )
