"""FedDyn: a dynamic regulariser changes each client's objective until all clients have the same minimiser."""

import math
from typing import Annotated, Any, NamedTuple

import jax
import optax

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar, descend
from sps_jax.algorithms.ranges import Range
from sps_jax.tree import Tree


class FedDynState(NamedTuple):
    """What the server keeps: the model b, which it broadcasts, and s, the mean of all clients' :math:`l_i`."""

    model: Any
    s: Any


def feddyn(*, stepsize: Scalar, prob: Scalar, alpha: Annotated[Scalar, Range(0, math.inf, "(]")] = 0.1) -> Algorithm:
    r"""FedDyn (Acar et al. 2021, arXiv 2111.04263), with gradient steps on its inner problem.

    .. math::
        x_i &\leftarrow x_i - \gamma (\nabla f_i(x_i) - l_i + \alpha (x_i - b)) \\
        l_i &\leftarrow l_i - \alpha (x_i - b), \qquad
        s \leftarrow s - \alpha W_S \, \mathrm{mean} (x_i - b), \qquad
        b \leftarrow \mathrm{mean}\, x_i - s / \alpha

    where b on the right is the broadcast that began the round, the mean is over the cohort S, and :math:`W_S` is the
    sum of its clients' weights (|S|/n if all clients weigh the same). Client i keeps :math:`l_i`, the server keeps s,
    the mean of all :math:`l_i`; at a fixed point :math:`l_i = \nabla f_i(x^*)`. A client sends :math:`x_i - b`.

    Args:
      stepsize: gamma < 2 / (L + alpha), if each f_i is L-smooth.
      prob: p in (0, 1]; it only sets the schedule.
      alpha: weight of the proximal term, > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> method = feddyn(stepsize=0.5, prob=0.1, alpha=1.0)
      >>> x, l, b = jnp.array([4.0, 2.0]), jnp.array([1.0, 0.0]), jnp.array([2.0, 2.0])
      >>> method.direction(x, l, b, lambda x: x, None).tolist()  # x - l + (x - b)
      [5.0, 2.0]
      >>> method.receive(x, l, x - b, b, None).tolist()  # l - (x - b)
      [-1.0, 0.0]
    """

    def init(params: Tree) -> tuple[Tree, Tree]:
        zeros = optax.tree.zeros_like(params)
        return zeros, FedDynState(params, zeros)

    def direction(x: Tree, l: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        return jax.tree.map(lambda g, l, x, b: g - l + alpha * (x - b), gradient(x), l, x, b)

    def send(x: Tree, l: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda x, b: x - b, x, b)

    def serve(server: FedDynState, change: Tree, info: RoundInfo) -> FedDynState:
        s = jax.tree.map(lambda s, dx: s - alpha * info.share * dx, server.s, change)
        return FedDynState(jax.tree.map(lambda b, dx, s: b + dx - s / alpha, server.model, change, s), s)

    def receive(x: Tree, l: Tree, change: Tree, b: Tree, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda l, dx: l - alpha * dx, l, change)

    def control(l: Tree, server: FedDynState) -> Tree:
        return jax.tree.map(lambda l, s: l - s, l, server.s)

    return Algorithm(
        init=init,
        broadcast=lambda server: server.model,
        direction=direction,
        move=descend(stepsize),
        send=send,
        serve=serve,
        receive=receive,
        control=control,
        model=lambda server: server.model,
        with_model=lambda server, params: server._replace(model=params),
    )
