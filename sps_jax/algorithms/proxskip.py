"""ProxSkip for consensus, also known as Scaffnew: control variates that sum to zero accelerate the local steps."""

import jax
import optax

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar, descend
from sps_jax.tree import Tree


def proxskip(*, stepsize: Scalar, prob: Scalar) -> Algorithm:
    r"""ProxSkip (Mishchenko et al. 2022, arXiv 2202.09357, algorithm 2, which the paper names Scaffnew).

    .. math::
        x_i &\leftarrow x_i - \gamma (\nabla f_i(x_i) - h_i) \\
        \text{with probability } p: \quad
        b &= \frac1n \sum_i x_i, \qquad h_i \leftarrow h_i + \frac{p}{\gamma} (b - x_i), \qquad x_i \leftarrow b

    :math:`h_i` is the control variate of client i, and :math:`\sum_i h_i` stays zero. If each f_i is L-smooth and
    :math:`\mu`-strongly convex and :math:`\gamma \le 1/L`, it converges linearly at the rate
    :math:`1 - \min(\gamma\mu, p^2)` per step; with :math:`\gamma = 1/L`, :math:`p = 1/\sqrt\kappa` and
    :math:`\kappa = L/\mu` it communicates :math:`\sqrt\kappa` times less than gradient descent. With a cohort of one
    client b is :math:`x_i` itself, so that h never changes: it is FedAvg.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps.

    Example:
      >>> import jax.numpy as jnp
      >>> method = proxskip(stepsize=0.5, prob=0.5)
      >>> x, h, b = jnp.array([4.0, 2.0]), jnp.array([1.0, 1.0]), jnp.array([3.0, 3.0])
      >>> method.move(x, method.direction(x, h, b, lambda x: x, None)).tolist()  # x - (x - h) / 2
      [2.5, 1.5]
      >>> method.receive(x, h, x, b, None).tolist()  # h + (b - x), as p = gamma
      [0.0, 2.0]
    """

    def init(params: Tree) -> tuple[Tree, Tree]:
        return optax.tree.zeros_like(params), params

    def direction(x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        return jax.tree.map(lambda g, h: g - h, gradient(x), h)

    def receive(x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda h, b, m: h + prob / stepsize * (b - m), h, b, m)

    return Algorithm(
        init=init, direction=direction, move=descend(stepsize), receive=receive, control=lambda h, server: h
    )
