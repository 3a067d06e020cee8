"""FedDST: the mask of a sparse model moves while it is trained."""

import jax
import jax.numpy as jnp
from jax import lax

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm, Gradient, Prune, Scalar, Turn
from sps_jax.communication import KNOWN, Code, Count, Size, size_of
from sps_jax.schedule import random_key
from sps_jax.sparsify import topk
from sps_jax.tree import Tree


def feddst(
    *,
    stepsize: Scalar,
    prob: Scalar,
    sparsity: Scalar,
    drop: Scalar = 0.2,
    readjust_every: Scalar = 10,
    prune: Prune = topk,
) -> Algorithm:
    r"""FedDST (Bibikar et al. 2022, arXiv 2112.09824): dynamic sparse training, whose mask moves every few rounds.

    With a mask M of K ones, common to all between readjustments,

    .. math::
        x_i \leftarrow x_i - \gamma M_i \nabla f_i(x_i), \qquad
        b = \frac{\sum_i M_i x_i}{\sum_i M_i} \text{ where some } M_i \text{ is one, else } 0

    In the last of every ``readjust_every`` rounds each client changes its mask midway, after :math:`\lfloor 1/(2p)
    \rfloor` local steps, and trains on: the fraction ``drop`` of its weights that is smallest goes, and as many come
    back, at zero, where the dense gradient is largest. Then the server's new mask is that of the K largest of b. The
    first mask is random. In such rounds the positions are told, up and down; in all others both sides know them.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the reciprocal of the number of local steps.
      sparsity: fraction of the prunable weights that are zero, in [0, 1).
      drop: fraction of the remaining weights that a readjustment replaces, in [0, 1].
      readjust_every: rounds from one readjustment to the next, rounded, at least 1.
      prune: the sparsifier that chooses, by magnitude.

    Example:
      >>> import jax.numpy as jnp

      >>> method = feddst(stepsize=0.5, prob=0.5, sparsity=0.5)
      >>> _, (x, mask, t) = method.init(jnp.ones((2, 4)))
      >>> int(mask.sum()), (x == mask).all().item()
      (4, True)
    """
    every = jnp.maximum(1, jnp.round(readjust_every)).astype(jnp.int32)
    midway = jnp.floor(1 / (2 * prob)).astype(jnp.int32)

    def chosen(score: Tree, sparsity: Scalar) -> Tree:
        """Ones where ``score`` (positive where it may be chosen) is largest, zeros elsewhere."""
        return jax.tree.map(lambda a: (a != 0).astype(a.dtype), prune(score, sparsity))

    def init(params: Tree) -> tuple[Tree, Tree]:
        keys = jax.random.split(random_key(0), len(jax.tree.leaves(params)))
        keys = jax.tree.unflatten(jax.tree.structure(params), list(keys))
        noise = jax.tree.map(lambda a, key: jax.random.uniform(key, a.shape, a.dtype, 0.5, 1.0), params, keys)
        mask = chosen(noise, sparsity)
        return (), (times(params, mask), mask, jnp.int32(0))

    def start(b: Tree, h: Tree) -> Tree:
        x, mask, t = b
        return x, mask, jnp.int32(0), t % every == every - 1

    def readjusted(x: Tree, mask: Tree, g: Tree) -> tuple[Tree, Tree]:
        kept = chosen(times(positive(x), mask), 1 - (1 - sparsity) * (1 - drop))
        score = jax.tree.map(lambda kept, g: jnp.where(kept > 0, 2 * jnp.ones_like(g), g), kept, positive(g))
        return times(x, kept), chosen(score, sparsity)

    def move(x: Tree, d: Tree) -> Tree:
        x, mask, steps, readjusting = x
        x = jax.tree.map(lambda x, d, q: x - stepsize * q * d, x, d, mask)
        now = readjusting & (steps == midway)
        x, mask = lax.cond(now, readjusted, lambda x, mask, d: (x, mask), x, mask, d)
        return x, mask, steps + 1, readjusting

    def send(x: Tree, h: Tree, b: Tree, gradient: Gradient, turn: Turn) -> Tree:
        x, mask, _, readjusting = x
        return x, mask, readjusting.astype(turn.steps.dtype)

    def serve(server: Tree, mean: Tree, turn: Turn) -> Tree:
        (_, mask, t), (x, owners, readjusting) = server, mean
        b = jax.tree.map(lambda x, q: jnp.where(q > 0, x / jnp.where(q > 0, q, 1), jnp.zeros_like(x)), x, owners)
        some = jax.tree.map(lambda q: (q > 0).astype(q.dtype), owners)
        mask = lax.cond(readjusting > 0, lambda: chosen(times(positive(b), some), sparsity), lambda: mask)
        return times(b, mask), mask, t + 1

    def uplink(message: Tree, turn: Turn) -> Count:
        _, mask, readjusting = message
        return counted(mask, readjusting > 0)

    def downlink(b: Tree, turn: Turn) -> Count:
        _, mask, t = b
        return counted(mask, t % every == 0)

    return Algorithm(
        init=init,
        start=start,
        direction=lambda x, h, b, gradient, key: gradient(x[0]),
        move=move,
        send=send,
        serve=serve,
        model=lambda server: server[0],
        with_model=lambda server, x: (x, *server[1:]),
        uplink=Code(uplink, _size),
        downlink=Code(downlink, _size),
    )


def times(x: Tree, mask: Tree) -> Tree:
    """Entry by entry."""
    return jax.tree.map(jnp.multiply, x, mask)


def positive(x: Tree) -> Tree:
    """Magnitudes as fractions of the largest, and no zeros, so that all can be chosen."""
    largest = tree.largest(x)
    scale = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return jax.tree.map(lambda a: jnp.abs(a) / scale + jnp.finfo(a.dtype).tiny, x)


def counted(mask: Tree, told: jax.Array) -> Count:
    """The numbers under a mask, and their positions where these are told."""
    ones = tree.nonzeros(mask)
    return Count(ones, jnp.where(told, ones, KNOWN))


def _size(message: Tree) -> Size:
    return size_of(message[0])
