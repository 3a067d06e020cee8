"""A sparsity that grows over the rounds, for any method that takes a sparsity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo
from sps_jax.compression.bits import MessageFormat
from sps_jax.tree import Tree


def cubic(sparsity: jax.Array, rounds: jax.Array, t: jax.Array) -> jax.Array:
    r"""Returns the sparsity :math:`s_t = s (1 - (1 - \min(t/T, 1))^3)` after t communications.

    Source: Zhu and Gupta 2017, arXiv 1710.01878.

    Args:
      sparsity: s, a floating-point scalar.
      rounds: T >= 1, a scalar of the same dtype.
      t: int32.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(cubic(jnp.float32(0.8), jnp.float32(2), jnp.int32(t))), 2) for t in range(4)]
      [0.0, 0.7, 0.8, 0.8]
    """
    left = 1 - jnp.minimum(t.astype(sparsity.dtype) / rounds, 1)
    return sparsity * (1 - left**3)


def ramped(make: Callable[[jax.Array], Algorithm], sparsity: jax.Array, rounds: jax.Array) -> Algorithm:
    r"""Returns the method ``make(s)`` with s growing from 0 to ``sparsity`` in ``rounds`` communications.

    Clients and server run round t = 0, 1, ... with the sparsity :math:`s_t` of :func:`cubic`, from the broadcast that
    begins it on; the model evaluated there is pruned to it too. Groups and N:M keep more of each M until round T.
    Server state, broadcast and x become pairs with t. Clients can count rounds themselves, so t costs no bits.

    Args:
      make: a function of the sparsity, a floating-point scalar, that returns the method. Only numbers in the method may
        depend on it. The server's state stems from the sparsities of earlier rounds, so the method's ``serve`` or
        ``model`` must prune it again.
      sparsity, rounds: s and T, scalars of one floating-point dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> import sps_jax as sps
      >>> method = ramped(
      ...     lambda s: sps.sparse_proxskip(stepsize=0.5, prob=0.5, sparsity=s), jnp.float32(0.75), jnp.float32(2)
      ... )
      >>> [int((method.model((jnp.ones((1, 4)), jnp.int32(t))) != 0).sum()) for t in range(3)]
      [4, 1, 1]
    """

    def at(t: jax.Array) -> Algorithm:
        return make(cubic(sparsity, rounds, t))

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
        return at(t + 1).serve(server, mean, info), t + 1

    def receive(x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo) -> Tree:
        (x, t), (b, _) = x, b
        return at(t).receive(x, h, m, b, info)

    first = at(jnp.int32(0))
    return Algorithm(
        move=move,
        init=init,
        init_client=first.init_client,
        broadcast=broadcast,
        start=start,
        direction=direction,
        send=send,
        serve=serve,
        receive=receive,
        model=lambda state: at(state[1]).model(state[0]),
        with_model=lambda state, params: (at(state[1]).with_model(state[0], params), state[1]),
        control=lambda h, state: at(state[1]).control(h, state[0]),
        uplink=first.uplink,
        zero_sum=first.zero_sum,
        weighted=first.weighted,
        divides=first.divides,
        downlink=MessageFormat(lambda b, info: first.downlink.count(b[0], info), lambda b: first.downlink.size(b[0])),
    )
