"""FedDST: trains a sparse model whose mask changes during training."""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm, Follow, Gradient, Prune, RoundInfo, Scalar
from sps_jax.algorithms.ranges import Range
from sps_jax.compression import topk
from sps_jax.compression.bits import FLOATS, KNOWN, MessageCount, MessageFormat
from sps_jax.layout import random_key
from sps_jax.tree import Tree


class FedDSTState(NamedTuple):
    """What the server keeps and broadcasts.

    Attributes:
      model: b, zero outside the mask.
      mask: ones where weights may be nonzero.
      rounds: int32, the number of finished rounds.
      told: whether the broadcast has to include the mask's positions.
    """

    model: Any
    mask: Any
    rounds: jax.Array
    told: jax.Array


class FedDSTIterate(NamedTuple):
    """A client's local iterate: x and its mask, the local steps taken, and whether to change the mask midway."""

    x: Any
    mask: Any
    steps: jax.Array
    readjusting: jax.Array


class FedDSTMessage(NamedTuple):
    """What a client sends: x, its mask, and 1 if the mask was due to change, else 0; ``serve`` gets the means."""

    x: Any
    mask: Any
    readjusting: jax.Array


def feddst(
    *,
    stepsize: Scalar,
    prob: Scalar,
    sparsity: Scalar,
    drop: Annotated[Scalar, Range(0, 1)] = 0.2,
    readjust_every: Annotated[Scalar, Range(1)] = 10,
    prune: Prune = topk,
) -> Algorithm:
    r"""FedDST (Bibikar et al. 2022, arXiv 2112.09824): dynamic sparse training, whose mask changes every few rounds.

    With client masks :math:`M_i` of K ones, which are one common mask except after a readjustment,

    .. math::
        x_i \leftarrow x_i - \gamma M_i \nabla f_i(x_i), \qquad
        b = \frac{\sum_i M_i x_i}{\sum_i M_i} \text{ where some } M_i \text{ is one, else } 0

    In the last of every ``readjust_every`` rounds each client readjusts its mask midway, after ``floor(k/2)`` local
    steps (k = 1/p, rounded), and then trains on. It drops the fraction ``drop`` of its weights that are smallest, and
    regrows as many, starting at zero, where the dense gradient at its current x is largest. With one local step per
    round it does so before that step, by the gradient at b. If the coin ends the round earlier, no mask changes. The
    server's new mask is that of the K largest entries of b, and b is set to zero outside it; between readjustments the
    mask changes only if the sparsity has grown. The first mask is random. Clients send their positions after
    readjusting; the server sends its positions then, whenever its mask has changed, and always with a cohort; otherwise
    both sides know them. The shipped model is b, with K of the prunable weights.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the reciprocal of the number of local steps.
      sparsity: fraction of the prunable weights that are zero, in [0, 1).
      drop: fraction of the remaining weights that a readjustment replaces, in [0, 1]; the sparsifier rounds the number
        that stays, with groups:M in each group.
      readjust_every: rounds from one readjustment to the next, rounded, at least 1.
      prune: the sparsifier that chooses the masks; it must rank by magnitude.

    Example:
      >>> import jax.numpy as jnp
      >>> method = feddst(stepsize=0.5, prob=0.5, sparsity=0.5)
      >>> _, server = method.init(jnp.ones((2, 4)))
      >>> int(server.mask.sum()), (server.model == server.mask).all().item()
      (4, True)
    """
    every = jnp.maximum(1, jnp.round(readjust_every)).astype(jnp.int32)
    midway, code = half_the_steps(prob), getattr(prune, "code", FLOATS)

    def chosen(score: Tree, sparsity: Scalar) -> Tree:
        """Ones where ``score`` (positive where it may be chosen) is largest, zeros elsewhere."""
        return jax.tree.map(lambda a: (a != 0).astype(a.dtype), prune(score, sparsity))

    def init(params: Tree) -> tuple[Tree, Tree]:
        keys = jax.random.split(random_key(0), len(jax.tree.leaves(params)))
        keys = jax.tree.unflatten(jax.tree.structure(params), list(keys))
        noise = jax.tree.map(lambda a, key: jax.random.uniform(key, a.shape, a.dtype, 0.5, 1.0), params, keys)
        mask = chosen(noise, sparsity)
        return (), FedDSTState(times(params, mask), mask, jnp.int32(0), jnp.bool_(True))

    def start(b: FedDSTState, h: Tree) -> FedDSTIterate:
        return FedDSTIterate(b.model, b.mask, jnp.int32(0), b.rounds % every == every - 1)

    def readjusted(x: Tree, mask: Tree, g: Tree) -> tuple[Tree, Tree]:
        kept = chosen(times(positive(x), mask), 1 - (1 - sparsity) * (1 - drop))
        score = jax.tree.map(lambda kept, g: jnp.where(kept > 0, 2 * jnp.ones_like(g), g), kept, positive(g))
        return times(x, kept), chosen(score, sparsity)

    def direction(x: FedDSTIterate, h: Tree, b: FedDSTState, gradient: Gradient, key: jax.Array) -> Follow:
        now = x.readjusting & (x.steps == midway)
        moved, mask = lax.cond(now, lambda x, mask: readjusted(x, mask, gradient(x)), lambda *same: same, x.x, x.mask)
        return Follow(times(gradient(moved), mask), FedDSTIterate(moved, mask, x.steps + 1, x.readjusting))

    def move(x: FedDSTIterate, follow: Follow) -> FedDSTIterate:
        d, x = follow
        # a transform may point outside the mask: momentum of dropped weights, noise
        return x._replace(x=jax.tree.map(lambda x, d, q: x - stepsize * q * d, x.x, d, x.mask))

    def send(x: FedDSTIterate, h: Tree, b: FedDSTState, gradient: Gradient, info: RoundInfo) -> FedDSTMessage:
        return FedDSTMessage(x.x, x.mask, x.readjusting.astype(info.steps.dtype))

    def serve(server: FedDSTState, mean: FedDSTMessage, info: RoundInfo) -> FedDSTState:
        b = jax.tree.map(_quotient, mean.x, mean.mask)
        some = jax.tree.map(lambda q: (q > 0).astype(q.dtype), mean.mask)
        mask = chosen(times(positive(b), some), sparsity)  # the clients' common mask, if none has changed
        moved = tree.nonzeros(jax.tree.map(jnp.subtract, mask, server.mask)) > 0
        return FedDSTState(times(b, mask), mask, server.rounds + 1, moved | (mean.readjusting > 0))

    def uplink(message: FedDSTMessage, info: RoundInfo) -> MessageCount:
        return counted(message.mask, message.readjusting > 0, info)

    def downlink(b: FedDSTState, info: RoundInfo) -> MessageCount:
        return counted(b.mask, b.told | (info.cohort < info.clients), info)  # absent clients do not know the mask

    def counted(mask: Tree, told: jax.Array, info: RoundInfo) -> MessageCount:
        """Counts the numbers under a mask, and their positions if these are sent."""
        known, telling = MessageCount(tree.nonzeros(mask), jnp.int32(KNOWN)), code.count(mask, info)
        return jax.tree.map(partial(jnp.where, told), telling, known)

    return Algorithm(
        init=init,
        start=start,
        direction=direction,
        move=move,
        send=send,
        serve=serve,
        model=lambda server: server.model,
        with_model=lambda server, params: server._replace(model=times(params, server.mask)),
        uplink=MessageFormat(uplink, lambda message: code.size(message.mask)),
        downlink=MessageFormat(downlink, lambda b: code.size(b.mask)),
        divides=True,
    )


def half_the_steps(prob: Scalar) -> jax.Array:
    r"""Returns :math:`\lfloor k/2 \rfloor`, int32, the local steps before a readjustment; k is 1/p, rounded.

    Exact if p is 1/k rounded to its dtype; :math:`\lfloor 1/(2p) \rfloor` could be one less.

    >>> [int(half_the_steps(jnp.float32(1 / k))) for k in (1, 2, 3, 10)]
    [0, 1, 1, 5]
    """
    return jnp.minimum(jnp.floor(jnp.round(1 / prob) / 2), 2**30).astype(jnp.int32)


def _quotient(x: jax.Array, q: jax.Array) -> jax.Array:
    """Returns x / q, and zero where q is zero."""
    return jnp.where(q > 0, x / jnp.where(q > 0, q, 1), jnp.zeros_like(x))


def times(x: Tree, mask: Tree) -> Tree:
    """Returns x * mask, entry by entry."""
    return jax.tree.map(jnp.multiply, x, mask)


def positive(x: Tree) -> Tree:
    """Returns the magnitudes as fractions of the largest, all of them positive, so that any entry can be chosen."""
    largest = tree.largest(x)
    scale = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return jax.tree.map(lambda a: jnp.abs(a) / scale + jnp.finfo(a.dtype).tiny, x)
