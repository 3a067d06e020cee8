"""RandProx with an l1 term, proximal step at the server."""

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Gradient, Scalar, Turn
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.tree import Tree


def randprox_server(*, stepsize: Scalar, prob: Scalar, l1: Scalar = 1e-3) -> Algorithm:
    r"""ProxSkip for f(x) + l1 ||x||_1 with the proximal step at the server: accelerated, the broadcast is sparse.

    RandProx (Condat and Richtarik 2023, arXiv 2207.12891); it is ProxSkip (arXiv 2202.09357) with the consensus and the
    l1 term as one.

    The local steps of :func:`proxskip`, and at a communication

    .. math::
        b = \mathrm{prox}_{\frac\gamma p \lambda \|\cdot\|_1}
            \Big( \frac1n \sum_i \big(x_i - \frac\gamma p h_i\big) \Big), \qquad
        h_i \leftarrow h_i + \frac p\gamma (b - x_i)

    Here :math:`\sum_i h_i` does *not* stay zero, and rightly so: :math:`h_i \to \nabla f_i(x^*)`, whose mean is minus a
    subgradient of the l1 term. It converges linearly, at ProxSkip's rate. The broadcast is sparse. The l1 term is not
    part of the reported train_loss, which is f.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      l1: lambda >= 0, acting on every parameter.

    Example:
      >>> import jax.numpy as jnp

      >>> method, mean = randprox_server(stepsize=0.5, prob=0.5, l1=0.5), jnp.array([4.0, 0.25])
      >>> method.serve(mean, mean, None).tolist()
      [3.5, 0.0]
    """
    base = proxskip(stepsize=stepsize, prob=prob)

    def send(x: Tree, h: Tree, b: Tree, gradient: Gradient, turn: Turn) -> Tree:
        return jax.tree.map(lambda x, h: x - stepsize / prob * h, x, h)

    def serve(server: Tree, mean: Tree, turn: Turn) -> Tree:
        threshold = stepsize / prob * l1
        return jax.tree.map(lambda y: jnp.sign(y) * jnp.maximum(jnp.abs(y) - threshold, 0), mean)

    def receive(x: Tree, h: Tree, m: Tree, b: Tree, turn: Turn) -> Tree:
        return jax.tree.map(lambda h, b, x: h + prob / stepsize * (b - x), h, b, x)

    return base._replace(send=send, serve=serve, receive=receive, control=lambda h, server: ())
