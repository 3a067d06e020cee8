"""GradSkip: ProxSkip whose clients stop computing gradients when theirs is no longer needed in the round."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, Follow, Gradient, RoundInfo, Scalar
from sps_jax.algorithms.per_client import PerClient, check_count, check_each, own
from sps_jax.algorithms.ranges import Range
from sps_jax.tree import Tree

PROBABILITY = Range(0, 1, "(]")


class GradSkipMemory(NamedTuple):
    """What a client keeps between rounds.

    Attributes:
      h: its control variate.
      gradients: int32, how many gradients it has computed since the start.
      client: int32, its number.
    """

    h: Any
    gradients: jax.Array
    client: jax.Array


class GradSkipIterate(NamedTuple):
    """A client's local iterate: x, the round's control variate, gradients computed so far, and whether it moves."""

    x: Any
    h: Any
    gradients: jax.Array
    awake: jax.Array


def gradskip(*, stepsize: Scalar, prob: Scalar, gradient_prob: Annotated[PerClient, PROBABILITY]) -> Algorithm:
    r"""GradSkip (Maranjyan et al. 2022, arXiv 2210.16402): clients with easy objectives compute fewer gradients.

    A client tosses a coin of its own at every local step. With probability :math:`q_i` it takes ProxSkip's step;
    otherwise its gradient becomes its control variate, so that it stands still until the next communication and needs
    no further gradient:

    .. math::
        (\hat h_i, \hat x_i) &= \begin{cases}
            (h_i, \; x_i - \gamma (\nabla f_i(x_i) - h_i)) & \text{with probability } q_i \\
            (\nabla f_i(x_i), \; x_i) & \text{otherwise} \end{cases} \\
        \text{with probability } p: \quad
        b &= \frac1n \sum_i \Big( \hat x_i - \frac\gamma p \hat h_i \Big), \qquad
        h_i \leftarrow \hat h_i + \frac p\gamma (b - \hat x_i), \qquad x_i \leftarrow b

    After every communication :math:`\sum_i h_i = 0`, between two it is not. With :math:`q_i = 1` it is
    :func:`proxskip`. If each f_i is L_i-smooth and :math:`\mu`-strongly convex and :math:`\gamma \le \min_i
    \frac{1}{L_i} \frac{p^2}{1 - q_i (1 - p^2)}`, it converges linearly at the rate :math:`1 - \min(\gamma \mu,
    1 - \max_i q_i (1 - p^2))` per step, and client i computes :math:`1 / (1 - q_i (1 - p))` gradients a round in the
    mean. With :math:`\gamma = 1/L_{\max}`, :math:`p^2 = 1/\kappa_{\max}` and :math:`q_i = (1 - 1/\kappa_i) / (1 -
    1/\kappa_{\max})`, where :math:`\kappa_i = L_i/\mu`, these are at most :math:`\min(\kappa_i, \sqrt{\kappa_{\max}})`.

    Two readings. The paper has full participation and full gradients. Here a client sends :math:`\hat x_i -
    \frac\gamma p (\hat h_i - h_i)`, with the :math:`h_i` that began the round: the same b, as these sum to zero, and
    with a cohort the sum over all clients stays zero too. With minibatches a client that has stopped stays where it is,
    though another batch would move it. The simulation computes the gradients that a client skips; the memory's
    ``gradients`` counts those that it needs.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step.
      gradient_prob: q_i in (0, 1], one for all clients or a tuple of one for each.

    Raises:
      ValueError: for a q_i out of range; when the algorithm starts, for a tuple of another length than the clients.

    Example:
      >>> import jax.numpy as jnp
      >>> method = gradskip(stepsize=0.5, prob=0.5, gradient_prob=1.0)
      >>> h, b = GradSkipMemory(jnp.array([1.0, 1.0]), jnp.int32(0), jnp.int32(0)), jnp.array([4.0, 2.0])
      >>> x = method.start(b, h)
      >>> x = method.move(x, method.direction(x, h, b, lambda x: x, jax.random.key(0)))
      >>> x.x.tolist(), int(x.gradients)  # x - (x - h) / 2
      ([2.5, 1.5], 1)
    """
    check_each("gradient_prob", gradient_prob, PROBABILITY)

    def init(params: Tree) -> tuple[Tree, Tree]:
        return GradSkipMemory(optax.tree.zeros_like(params), jnp.int32(0), jnp.int32(0)), params

    def init_client(h: GradSkipMemory, i: jax.Array, n: int) -> GradSkipMemory:
        check_count("gradient_prob", gradient_prob, n)
        return h._replace(client=i)

    def start(b: Tree, h: GradSkipMemory) -> GradSkipIterate:
        return GradSkipIterate(b, h.h, h.gradients, jnp.bool_(True))

    def direction(x: GradSkipIterate, h: GradSkipMemory, b: Tree, gradient: Gradient, key: jax.Array) -> Follow:
        g, like = gradient(x.x), jax.tree.leaves(x.x)[0]
        heads = jax.random.uniform(key, (), like.dtype) < own(gradient_prob, h.client, like)
        awake, stops = x.awake & heads, x.awake & ~heads
        d = jax.tree.map(lambda g, h: jnp.where(awake, g - h, jnp.zeros_like(g)), g, x.h)
        shift = jax.tree.map(lambda g, h: jnp.where(stops, g, h), g, x.h)
        return Follow(d, GradSkipIterate(x.x, shift, x.gradients + x.awake.astype(jnp.int32), awake))

    def move(x: GradSkipIterate, follow: Follow) -> GradSkipIterate:
        d, x = follow  # a transform, such as momentum, does not move a client that has stopped
        return x._replace(x=jax.tree.map(lambda a, d: jnp.where(x.awake, a - stepsize * d, a), x.x, d))

    def send(x: GradSkipIterate, h: GradSkipMemory, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda x, now, begun: x - stepsize / prob * (now - begun), x.x, x.h, h.h)

    def receive(x: GradSkipIterate, h: GradSkipMemory, m: Tree, b: Tree, info: RoundInfo) -> GradSkipMemory:
        new = jax.tree.map(lambda now, b, x: now + prob / stepsize * (b - x), x.h, b, x.x)
        return GradSkipMemory(new, x.gradients, h.client)

    return Algorithm(
        init=init,
        init_client=init_client,
        start=start,
        direction=direction,
        move=move,
        send=send,
        receive=receive,
        control=lambda h, server: h.h,
    )
