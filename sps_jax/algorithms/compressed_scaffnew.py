"""CompressedScaffnew: only s clients send each coordinate, chosen by a random key that all of them know."""

from typing import Annotated

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.algorithms.ranges import Range
from sps_jax.compression.bits import FLOATS, KNOWN, MessageCount, MessageFormat
from sps_jax.tree import Tree


def compressed_scaffnew(*, stepsize: Scalar, prob: Scalar, owners: Annotated[Scalar, Range(2)] = 2) -> Algorithm:
    r"""CompressedScaffnew (Condat et al. 2022, arXiv 2210.13277): only a few clients send each coordinate.

    The local steps are those of :func:`proxskip`. When a cohort of c of the n clients communicates,

    .. math::
        b = \frac1s \sum_i q_i x_i, \qquad
        h_i \leftarrow h_i + \eta \frac{p}{\gamma} q_i (b - x_i), \qquad \eta = \frac{n (s - 1)}{s (n - 1)}

    with masks :math:`q_i \in \{0, 1\}^d` that the round's common key determines: a random permutation gives every
    client a rank, and coordinate j (in the leaf order of the model) belongs to the s ranks
    :math:`js, \ldots, js + s - 1` modulo c. So each coordinate has s owners, every set of s clients is equally likely,
    and a client sends about sd/c numbers, whose positions both sides know. :math:`\sum_i h_i` stays zero. The clients
    must have equal weights.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      owners: s, the number of clients that send each coordinate; rounded, then clipped to between 2 and c.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> key = jax.random.key(0)
      >>> turns = [RoundInfo(key, key, jnp.int32(i), jnp.float32(2), cohort=3, clients=3) for i in range(3)]
      >>> method, x = compressed_scaffnew(stepsize=0.5, prob=0.5, owners=2), jnp.ones(4)
      >>> sum(method.send(x, (), x, lambda x: x, info) for info in turns).tolist()  # two owners each
      [2.0, 2.0, 2.0, 2.0]
    """

    def share(info: RoundInfo) -> jax.Array:
        return jnp.clip(jnp.round(owners), min(2, info.cohort), info.cohort).astype(jnp.int32)

    def owned(tree: Tree, info: RoundInfo) -> Tree:
        rank = jax.random.permutation(info.common, jnp.arange(info.cohort, dtype=jnp.int32))[info.slot]
        leaves, structure = jax.tree.flatten(tree)
        masks, first, s = [], 0, share(info)
        for leaf in leaves:
            # j mod c first: j s overflows int32 in large models
            j = (first % info.cohort + jnp.arange(leaf.size, dtype=jnp.int32)) % info.cohort
            masks.append(((rank - j * s) % info.cohort < s).reshape(leaf.shape))
            first += leaf.size
        return jax.tree.unflatten(structure, masks)

    def send(x: Tree, h: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda x, q: jnp.where(q, x, jnp.zeros_like(x)), x, owned(x, info))

    def serve(server: Tree, mean: Tree, info: RoundInfo) -> Tree:
        scale = info.cohort / share(info).astype(info.steps.dtype)
        return jax.tree.map(lambda m: scale * m, mean)

    def receive(x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo) -> Tree:
        n, s = info.clients, share(info).astype(info.steps.dtype)
        eta = n * (s - 1) / (s * max(n - 1, 1))
        scale = eta * prob / stepsize

        def update(h: jax.Array, b: jax.Array, x: jax.Array, q: jax.Array) -> jax.Array:
            return jnp.where(q, h + scale * (b - x), h)

        return jax.tree.map(update, h, b, x, owned(x, info))

    def count(message: Tree, info: RoundInfo) -> MessageCount:
        masks = jax.tree.leaves(owned(message, info))
        return MessageCount(sum(jnp.sum(q, dtype=jnp.int32) for q in masks), jnp.int32(KNOWN))

    base = proxskip(stepsize=stepsize, prob=prob)
    return base._replace(
        send=send, serve=serve, receive=receive, uplink=MessageFormat(count, FLOATS.size), weighted=False
    )
