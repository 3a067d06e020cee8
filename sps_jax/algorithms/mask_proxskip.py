"""ProxSkip on a mask that the clients choose together: once, or anew every few rounds."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm, Gradient, Prune, RoundInfo, Scalar
from sps_jax.algorithms.feddst import positive, times
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.algorithms.ranges import Range
from sps_jax.compression import topk
from sps_jax.compression.bits import FLOATS, KNOWN, MessageCount, MessageFormat
from sps_jax.errors import refuse_unknown
from sps_jax.tree import Tree

Score = Callable[[Tree, Tree], Tree]
"""``score(params, gradient) -> scores``, of one client; see :mod:`sps_jax.compression.criteria`."""
SCORES = ("weight_gradient", "step")


class MaskState(NamedTuple):
    """What the server keeps and broadcasts.

    Attributes:
      model: b, zero outside the masks before and after the last choice.
      mask: S, ones where weights may be nonzero; all zeros before the first choice.
      rounds: int32, the number of finished rounds.
      told: whether the broadcast has to include the mask's positions.
    """

    model: Any
    mask: Any
    rounds: jax.Array
    told: jax.Array


class MaskMessage(NamedTuple):
    """What a client sends: how far x has moved in the round, zero outside the mask, and its scores when due."""

    change: Any
    score: Any


def mask_proxskip(
    *,
    stepsize: Scalar,
    prob: Scalar,
    sparsity: Scalar,
    score: str | Score = "weight_gradient",
    every: Annotated[int | None, Range(1)] = None,
    prune: Prune = topk,
) -> Algorithm:
    r"""ProxSkip on a mask chosen together: first as SSFL (Ohib et al. 2024, arXiv 2405.09037), then ProxSkip on it.

    In round 0 nobody moves: each client sends the scores :math:`s_i(x_0)`, and the server's mask S is that of the K
    largest :math:`|\frac1n \sum_i s_i|`. From then on it is ProxSkip (arXiv 2202.09357) restricted to S, with
    :math:`P_S` the projection,

    .. math::
        x_i &\leftarrow x_i - \gamma P_S (\nabla f_i(x_i) - h_i) \\
        \text{with probability } p: \quad
        b &= \frac1n \sum_i x_i, \qquad h_i \leftarrow h_i + \frac p\gamma P_S (b - x_i), \qquad x_i \leftarrow b

    so all that is proved of ProxSkip holds for f restricted to S: :math:`\sum_i h_i` stays zero and, on
    :math:`\mu`-strongly convex L-smooth f_i, it converges linearly to the minimiser of f on S, accelerated. Once the
    mask is known its positions cost nothing.

    SSFL scores once and trains by FedAvg; ProxSkip in its place, and a mask that moves, are this package's. With
    ``every`` = T the clients also send scores at their :math:`x_i` at the end of rounds T, 2T, ..., and the server
    chooses a mask S' for the next round. The h are updated with the b of S, and only then do clients start from
    :math:`P_{S'} b`: with :math:`P_{S'} b` in place of b the sum would be lost, as in server pruning. Outside the mask
    every :math:`h_i` stays what it was, so a weight that returns finds its own again, and one that is new finds zero.
    As all clients share S, :math:`\sum_i h_i` is zero entry by entry, with cohorts too. Between two choices the mask
    changes only if the sparsity grows; then b's largest weights stay.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps.
      sparsity: fraction of the prunable weights that are zero, in [0, 1).
      score: what ranks the weights. ``"weight_gradient"`` is :math:`|x \nabla f_i(x)|`, as in SSFL, which sees
        nothing where x is zero, and nothing at all in a start at zero; ``"step"`` is :math:`x - \gamma \nabla
        f_i(x)`, whose largest entries iterative hard thresholding keeps, and by which pruned weights can return. Or a
        function ``score(params, gradient)``.
      every: T, the rounds from one choice to the next, at least 1; None keeps the first mask.
      prune: the sparsifier C that chooses the masks; it must rank by magnitude.

    Raises:
      ValueError: for an unknown ``score``.

    Example:
      >>> import jax.numpy as jnp
      >>> method = mask_proxskip(stepsize=0.5, prob=0.5, sparsity=0.5)
      >>> h, server = method.init(jnp.array([[4.0, 2.0]]))
      >>> m = method.send(method.start(server, h), h, server, lambda x: jnp.array([[1.0, 3.0]]), None)
      >>> m.score.tolist()
      [[4.0, 6.0]]
      >>> server = method.serve(server, m, None)
      >>> server.mask.tolist(), method.model(server).tolist()
      ([[0.0, 1.0]], [[0.0, 2.0]])
    """
    if isinstance(score, str):
        refuse_unknown("score", score, SCORES)
    base, code = proxskip(stepsize=stepsize, prob=prob), getattr(prune, "code", FLOATS)

    def scores(x: Tree, g: Tree) -> Tree:
        if callable(score):
            return score(x, g)
        if score == "step":
            return jax.tree.map(lambda x, g: x - stepsize * g, x, g)
        return jax.tree.map(lambda x, g: jnp.abs(x * g), x, g)

    def due(state: MaskState) -> jax.Array:
        return state.rounds % every == 0 if every else state.rounds == 0

    def init(params: Tree) -> tuple[Tree, Tree]:
        h, _ = base.init(params)
        return h, MaskState(params, h, jnp.int32(0), jnp.bool_(False))

    def held(state: MaskState) -> Tree:
        """The model under its mask, and the whole model before there is a mask."""
        none = state.rounds == 0
        return jax.tree.map(lambda b, q: jnp.where(none, b, q * b), state.model, state.mask)

    def on_mask(x: Tree, b: MaskState) -> Tree:
        """x, but as it was where the mask is zero: a transform, such as momentum, may point outside."""
        return jax.tree.map(lambda q, x, begun: jnp.where(q > 0, x, begun), b.mask, x, held(b))

    def direction(x: Tree, h: Tree, b: MaskState, gradient: Gradient, key: jax.Array) -> Tree:
        return times(base.direction(on_mask(x, b), h, b.model, gradient, key), b.mask)

    def send(x: Tree, h: Tree, b: MaskState, gradient: Gradient, info: RoundInfo) -> MaskMessage:
        x = on_mask(x, b)
        change, nothing = jax.tree.map(jnp.subtract, x, held(b)), optax.tree.zeros_like(x)
        return MaskMessage(change, lax.cond(due(b), lambda: scores(x, gradient(x)), lambda: nothing))

    def serve(server: MaskState, mean: MaskMessage, info: RoundInfo) -> MaskState:
        b = jax.tree.map(jnp.add, held(server), mean.change)
        ranks = lax.cond(due(server), lambda: positive(mean.score), lambda: times(positive(b), server.mask))
        mask = jax.tree.map(lambda a: (a != 0).astype(a.dtype), prune(ranks, sparsity))
        b = jax.tree.map(lambda b, old, new: b * jnp.maximum(old, new), b, server.mask, mask)
        moved = tree.nonzeros(jax.tree.map(jnp.subtract, mask, server.mask)) > 0
        return MaskState(b, mask, server.rounds + 1, moved)

    def receive(x: Tree, h: Tree, m: MaskMessage, b: MaskState, info: RoundInfo) -> Tree:
        own = jax.tree.map(jnp.add, held(info.begun), m.change)
        after = base.receive(x, h, own, b.model, info)
        return jax.tree.map(lambda q, new, h: jnp.where(q > 0, new, h), info.begun.mask, after, h)

    def uplink(message: MaskMessage, info: RoundInfo) -> MessageCount:
        scored = tree.nonzeros(message.score) > 0
        values = tree.nonzeros(message.change) + jnp.where(scored, jnp.int32(tree.size(message.score)), jnp.int32(0))
        return MessageCount(values, jnp.int32(KNOWN))

    def downlink(b: MaskState, info: RoundInfo) -> MessageCount:
        values, positions = code.count(b.mask, info)
        told = b.told | (info.cohort < info.clients)  # absent clients do not know the mask
        return MessageCount(jnp.maximum(values, tree.nonzeros(b.model)), jnp.where(told, positions, jnp.int32(KNOWN)))

    return base._replace(
        init=init,
        start=lambda b, h: held(b),
        direction=direction,
        send=send,
        serve=serve,
        receive=receive,
        model=held,
        with_model=lambda server, params: server._replace(model=params),
        uplink=MessageFormat(uplink, FLOATS.size),
        downlink=MessageFormat(downlink, lambda b: code.size(b.mask)),
    )
