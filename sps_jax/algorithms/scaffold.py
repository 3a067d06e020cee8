"""SCAFFOLD: local steps corrected by control variates, which each client estimates from the steps it took."""

from typing import Any, NamedTuple

import jax
import optax

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar, descend
from sps_jax.tree import Tree


class ScaffoldState(NamedTuple):
    """What the server keeps and broadcasts: the model x and c, the mean of all clients' control variates."""

    model: Any
    c: Any


class ScaffoldMessage(NamedTuple):
    """What a client sends: its x and the change of its control variate."""

    x: Any
    change: Any


def scaffold(*, stepsize: Scalar, prob: Scalar) -> Algorithm:
    r"""SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378), option II, with server step size 1.

    .. math::
        x_i &\leftarrow x_i - \gamma (\nabla f_i(x_i) - c_i + c) \\
        c_i^+ &= c_i - c + (b - x_i) / (k \gamma), \qquad k \text{ the steps taken since the broadcast } b \\
        x &\leftarrow \mathrm{mean}\, x_i, \qquad c \leftarrow c + W_S \, \mathrm{mean} (c_i^+ - c_i)

    where :math:`c_i` and c are the control variates of client i and the server, the mean is over the cohort S, and
    :math:`W_S` is the sum of its clients' weights (|S|/n if all clients weigh the same), so that c stays the mean of
    all :math:`c_i`. At the end of a round :math:`c_i \leftarrow c_i^+`, and (x, c) is the next broadcast.

    A client sends two vectors, :math:`x_i` and :math:`c_i^+ - c_i`, and the server sends x and c: twice the traffic.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it only sets the schedule.

    Example:
      >>> import jax.numpy as jnp
      >>> method = scaffold(stepsize=0.5, prob=0.1)
      >>> x, ci, c = jnp.array([4.0, 2.0]), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
      >>> method.direction(x, ci, ScaffoldState(x, c), lambda x: x, None).tolist()  # x - ci + c
      [3.0, 3.0]
    """

    def init(params: Tree) -> tuple[Tree, Tree]:
        zeros = optax.tree.zeros_like(params)
        return zeros, ScaffoldState(params, zeros)

    def direction(x: Tree, ci: Tree, b: ScaffoldState, gradient: Gradient, key: jax.Array) -> Tree:
        return jax.tree.map(lambda g, ci, c: g - ci + c, gradient(x), ci, b.c)

    def send(x: Tree, ci: Tree, b: ScaffoldState, gradient: Gradient, info: RoundInfo) -> ScaffoldMessage:
        length = info.steps * stepsize
        return ScaffoldMessage(x, jax.tree.map(lambda b, x, c: (b - x) / length - c, b.model, x, b.c))

    def serve(server: ScaffoldState, mean: ScaffoldMessage, info: RoundInfo) -> ScaffoldState:
        return ScaffoldState(mean.x, jax.tree.map(lambda c, dc: c + info.share * dc, server.c, mean.change))

    def receive(x: Tree, ci: Tree, m: ScaffoldMessage, b: ScaffoldState, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda ci, dc: ci + dc, ci, m.change)

    def control(ci: Tree, server: ScaffoldState) -> Tree:
        return jax.tree.map(lambda ci, c: ci - c, ci, server.c)

    return Algorithm(
        init=init,
        start=lambda b, ci: b.model,
        direction=direction,
        move=descend(stepsize),
        send=send,
        serve=serve,
        receive=receive,
        control=control,
        model=lambda server: server.model,
        with_model=lambda server, params: server._replace(model=params),
    )
