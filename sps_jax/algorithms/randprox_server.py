"""RandProx with an l1 term and the proximal step at the server."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, RoundInfo, Scalar
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.tree import Tree


class RandProxServerState(NamedTuple):
    """What the server of :func:`randprox_server` keeps: the model b, and the mean of all clients' :math:`h_i`."""

    model: Any
    mean_h: Any


def randprox_server(*, stepsize: Scalar, prob: Scalar, l1: Scalar = 1e-3) -> Algorithm:
    r"""ProxSkip for f(x) + l1 ||x||_1 with the proximal step at the server: accelerated, with a sparse broadcast.

    RandProx (Condat and Richtarik 2023, arXiv 2207.12891): ProxSkip (arXiv 2202.09357) with one proximal step for the
    consensus and the l1 term together.

    The local steps are those of :func:`proxskip`. At a communication

    .. math::
        b = \mathrm{prox}_{\frac\gamma p \lambda \|\cdot\|_1} \Big( \bar x - \frac\gamma p \bar h \Big), \qquad
        h_i \leftarrow h_i + \frac p\gamma (b - x_i), \qquad
        \bar h \leftarrow \bar h + \frac p\gamma W_S (b - \bar x)

    where :math:`\lambda` is ``l1``, :math:`\bar x` the mean of the iterates that the cohort S sends, :math:`\bar h` the
    mean of all clients' :math:`h_i`, and :math:`W_S` the sum of the weights of the cohort's clients. So the server
    converges to the minimiser with a cohort too. (The mean of :math:`x_i - \frac\gamma p h_i` over a cohort, which is
    the same under full participation, has a different value at the solution for every cohort.)

    Here :math:`\sum_i h_i` does *not* stay zero, and must not: :math:`h_i \to \nabla f_i(x^*)`, whose mean is minus a
    subgradient of the l1 term; the :math:`h_i - \bar h` sum to zero. It converges linearly, at ProxSkip's rate. The
    reported train_loss is f, without the l1 term.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      l1: lambda >= 0, for every parameter.

    Example:
      >>> import jax.numpy as jnp
      >>> method, zero = randprox_server(stepsize=0.5, prob=0.5, l1=0.5), jnp.zeros(2)
      >>> info = RoundInfo(None, None, None, None, cohort=2, clients=2)
      >>> server = method.serve(RandProxServerState(zero, zero), jnp.array([4.0, 0.25]), info)
      >>> server.model.tolist(), server.mean_h.tolist()
      ([3.5, 0.0], [-0.5, -0.25])
    """
    base = proxskip(stepsize=stepsize, prob=prob)

    def init(params: Tree) -> tuple[Tree, Tree]:
        h, _ = base.init(params)
        return h, RandProxServerState(params, optax.tree.zeros_like(params))

    def prox(y: jax.Array) -> jax.Array:
        return jnp.sign(y) * jnp.maximum(jnp.abs(y) - stepsize / prob * l1, 0)

    def serve(server: RandProxServerState, mean: Tree, info: RoundInfo) -> RandProxServerState:
        b = jax.tree.map(lambda x, h: prox(x - stepsize / prob * h), mean, server.mean_h)
        share = info.share
        mean_h = jax.tree.map(lambda h, b, x: h + share * prob / stepsize * (b - x), server.mean_h, b, mean)
        return RandProxServerState(b, mean_h)

    return base._replace(
        init=init,
        broadcast=lambda server: server.model,
        serve=serve,
        model=lambda server: server.model,
        with_model=lambda server, params: server._replace(model=params),
        control=lambda h, server: jax.tree.map(lambda h, mean: h - mean, h, server.mean_h),
    )
