"""FedNova: clients that take different numbers of steps, averaged without favouring those that take more."""

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm


def fednova(*, stepsize, prob, tau_min=1, tau_max=10) -> Algorithm:
    r"""FedNova (Wang et al. 2020, arXiv 2007.07481): clients take different numbers of plain local steps.

    Client i takes :math:`\tau_i` steps of a round, a fixed number between the slowest and the fastest client's, and
    then waits; where the round ends before, it has taken fewer, and :math:`\tau_i` below is that.

    .. math::
        x_i &\leftarrow x_i - \gamma \nabla f_i(x_i) \quad \text{at most } \tau_i \text{ times} \\
        d_i &= (b - x_i) / \tau_i, \qquad b \leftarrow b - \bar\tau \, \bar d, \quad
        \bar\tau, \bar d \text{ the means over clients}

    A client sends :math:`d_i` and :math:`\tau_i`. With equal :math:`\tau_i` it is FedAvg. Without the division the
    average would minimise :math:`\sum_i \tau_i f_i`; with it, it reaches the minimiser of f as :math:`\gamma \to 0`.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it sets the schedule and is not used otherwise.
      tau_min: local steps of client 0, the slowest, at least 1.
      tau_max: local steps of client n - 1, the fastest; those in between are spaced evenly, and rounded.
    """

    def enroll(h, i, n):
        share = i.astype(h.dtype) / max(n - 1, 1)
        return jnp.maximum(1, jnp.round(tau_min + (tau_max - tau_min) * share))

    def start(b, tau):
        return b, tau, jnp.zeros_like(tau)

    def direction(x, tau, b, gradient, key):
        return gradient(x[0])

    def move(x, d):
        x, tau, steps = x
        busy = steps < tau
        x = jax.tree.map(lambda x, d: jnp.where(busy, x - stepsize * d, x), x, d)
        return x, tau, jnp.minimum(steps + 1, tau)

    def send(x, tau, b, gradient, turn):
        x, _, steps = x
        return jax.tree.map(lambda b, x: (b - x) / steps, b, x), steps

    def serve(b, mean, turn):
        d, steps = mean
        return jax.tree.map(lambda b, d: b - steps * d, b, d)

    return Algorithm(
        init=lambda params: (jnp.ones((), jax.tree.leaves(params)[0].dtype), params),
        enroll=enroll,
        start=start,
        direction=direction,
        move=move,
        send=send,
        serve=serve,
    )
