"""FedNova: clients take different numbers of local steps, and the average does not favour those that take more."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar
from sps_jax.algorithms.ranges import Range
from sps_jax.tree import Tree

Steps = Annotated[Scalar, Range(1)]


class FedNovaIterate(NamedTuple):
    """A client's local iterate: x, the number of steps it takes in a round, and the number it has taken."""

    x: Any
    tau: jax.Array
    steps: jax.Array


class FedNovaMessage(NamedTuple):
    """What a client sends: its mean direction d and the number of steps it has taken."""

    d: Any
    steps: jax.Array


def fednova(*, stepsize: Scalar, prob: Scalar, tau_min: Steps = 1, tau_max: Steps = 10) -> Algorithm:
    r"""FedNova (Wang et al. 2020, arXiv 2007.07481): clients take different numbers of plain local steps.

    Client i takes :math:`\tau_i` steps per round, a fixed number from ``tau_min`` to ``tau_max``, and then waits. If
    the round ends earlier, :math:`\tau_i` below is the number of steps it has taken.

    .. math::
        x_i &\leftarrow x_i - \gamma \nabla f_i(x_i) \quad \text{at most } \tau_i \text{ times} \\
        d_i &= (b - x_i) / \tau_i, \qquad b \leftarrow b - \bar\tau \, \bar d, \quad
        \bar\tau, \bar d \text{ the means over clients}

    A client sends :math:`d_i` and :math:`\tau_i`. With equal :math:`\tau_i` it is FedAvg. Without the division the
    average would minimise :math:`\sum_i \tau_i f_i`; with it, it reaches the minimiser of f as :math:`\gamma \to 0`.

    With a cohort S both means are estimates, :math:`\sum_{i \in S} a_i \tau_i` and :math:`\sum_{i \in S} a_i d_i`,
    with the weights :math:`a_i` of :class:`sps_jax.Cohort`. The expectation of their product is not the product of
    their expectations, so it then converges to the minimiser of :math:`\sum_i v_i f_i`,
    :math:`v_i = E[1_{i \in S}\, a_i \sum_{j \in S} a_j \tau_j]`.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it only sets the schedule.
      tau_min: local steps of client 0, the slowest, at least 1.
      tau_max: local steps of client n - 1, the fastest; the others are evenly spaced in between, and rounded.

    Example:
      >>> import jax.numpy as jnp
      >>> method, b, tau = fednova(stepsize=0.5, prob=0.1), jnp.array([4.0, 2.0]), jnp.float32(1)
      >>> x = method.start(b, tau)
      >>> for _ in range(3):  # tau is 1, so only the first step moves x
      ...     x = method.move(x, method.direction(x, tau, b, lambda x: x, None))
      >>> d, steps = method.send(x, tau, b, lambda x: x, None)
      >>> d.tolist(), int(steps)
      ([2.0, 1.0], 1)
    """

    def init_client(h: Tree, i: jax.Array, n: int) -> Tree:
        share = i.astype(h.dtype) / max(n - 1, 1)
        return jnp.maximum(1, jnp.round(tau_min + (tau_max - tau_min) * share))

    def start(b: Tree, tau: jax.Array) -> FedNovaIterate:
        return FedNovaIterate(b, tau, jnp.zeros_like(tau))

    def direction(x: FedNovaIterate, tau: jax.Array, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        return gradient(x.x)

    def move(x: FedNovaIterate, d: Tree) -> FedNovaIterate:
        busy = x.steps < x.tau
        moved = jax.tree.map(lambda x, d: jnp.where(busy, x - stepsize * d, x), x.x, d)
        return FedNovaIterate(moved, x.tau, jnp.minimum(x.steps + 1, x.tau))

    def send(x: FedNovaIterate, tau: jax.Array, b: Tree, gradient: Gradient, info: RoundInfo) -> FedNovaMessage:
        taken = jnp.maximum(x.steps, 1)
        return FedNovaMessage(jax.tree.map(lambda b, x: (b - x) / taken, b, x.x), x.steps)

    def serve(b: Tree, mean: FedNovaMessage, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda b, d: b - mean.steps * d, b, mean.d)

    return Algorithm(
        init=lambda params: (jnp.ones((), jax.tree.leaves(params)[0].dtype), params),
        init_client=init_client,
        start=start,
        direction=direction,
        move=move,
        send=send,
        serve=serve,
    )
