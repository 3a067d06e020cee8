"""SCAFFOLD: control variates estimated from the steps taken."""

import jax
import optax

from sps_jax.algorithms.base import Algorithm, Gradient, Scalar, Turn, descend
from sps_jax.tree import Tree


def scaffold(*, stepsize: Scalar, prob: Scalar) -> Algorithm:
    r"""SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378), option II, server step 1.

    .. math::
        x_i &\leftarrow x_i - \gamma (\nabla f_i(x_i) - c_i + c) \\
        c_i^+ &= c_i - c + (b - x_i) / (k \gamma), \qquad k \text{ the steps really taken since the broadcast } b \\
        x &\leftarrow \mathrm{mean}\, x_i, \qquad c \leftarrow c + W_S \, \mathrm{mean} (c_i^+ - c_i)

    with the mean over the cohort S and :math:`W_S` what the weights of its clients add up to (|S|/n where all weigh the
    same), so that c stays the mean of all :math:`c_i`.

    A client sends two vectors, :math:`x_i` and :math:`c_i^+ - c_i`, and the server sends x and c: twice the traffic.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it sets the schedule and is not used otherwise.

    Example:
      >>> import jax.numpy as jnp
      
      >>> method = scaffold(stepsize=0.5, prob=0.1)
      >>> x, ci, c = jnp.array([4.0, 2.0]), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
      >>> method.direction(x, ci, (x, c), lambda x: x, None).tolist()  # x - ci + c
      [3.0, 3.0]
    """

    def init(params: Tree) -> tuple[Tree, Tree]:
        return optax.tree.zeros_like(params), (params, optax.tree.zeros_like(params))

    def start(b: Tree, ci: Tree) -> Tree:
        x, _ = b
        return x

    def direction(x: Tree, ci: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        _, c = b
        return jax.tree.map(lambda g, ci, c: g - ci + c, gradient(x), ci, c)

    def send(x: Tree, ci: Tree, b: Tree, gradient: Gradient, turn: Turn) -> Tree:
        x_last, c = b
        change = jax.tree.map(lambda x_last, x, c: (x_last - x) / (turn.steps * stepsize) - c, x_last, x, c)
        return x, change

    def serve(server: Tree, mean: Tree, turn: Turn) -> Tree:
        (_, c), (x, change) = server, mean
        share = turn.share
        return x, jax.tree.map(lambda c, dc: c + share * dc, c, change)

    def receive(x: Tree, ci: Tree, m: Tree, b: Tree, turn: Turn) -> Tree:
        _, change = m
        return jax.tree.map(lambda ci, dc: ci + dc, ci, change)

    def control(ci: Tree, server: Tree) -> Tree:
        return jax.tree.map(lambda ci, c: ci - c, ci, server[1])

    def model(server: Tree) -> Tree:
        x, _ = server
        return x

    return Algorithm(
        init=init,
        start=start,
        direction=direction,
        move=descend(stepsize),
        send=send,
        serve=serve,
        receive=receive,
        control=control,
        model=model,
        with_model=lambda server, x: (x, server[1]),
    )
