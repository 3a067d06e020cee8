"""FedSMU: clients send the sign of each number of their update."""

import math
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar, descend
from sps_jax.algorithms.ranges import Range
from sps_jax.compression.bits import SIGNS
from sps_jax.tree import Tree

Decay = Annotated[Scalar, Range(0, 1, "[)")]


def fedsmu(
    *,
    stepsize: Scalar,
    prob: Scalar,
    server_stepsize: Annotated[Scalar, Range(0, math.inf, "(]")],
    beta1: Decay,
    beta2: Decay,
    weight_decay: Scalar,
) -> Algorithm:
    r"""FedSMU (Lu et al. 2025, PMLR v267/lu25u): clients send the signs of their updates, one bit for each number.

    It divides the optimiser Lion between clients and server. The local steps are FedAvg's, from the broadcast b, and

    .. math::
        d_i &= x_i - b, \qquad s_i = \mathrm{sign}(\beta_1 m_i + (1 - \beta_1) d_i), \qquad
        m_i \leftarrow \beta_2 m_i + (1 - \beta_2) d_i \\
        b &\leftarrow (1 - \gamma_s \lambda) b + \gamma_s \, \mathrm{mean}\, s_i

    with the momentum :math:`m_i` of client i, which starts at zero. The equations are a reading of the authors' code. A
    sign of zero is zero, and then its position is sent too.

    The mean of signs weighs every client alike, however far it wants to go: without momentum and decay, if
    :math:`f_i(x) = \|x - a_i\|^2 / 2`, every number of b goes to the *median* of the clients' :math:`a_i`, up to
    :math:`\gamma_s`, and not to their mean, which minimises f.

    Args:
      stepsize: gamma > 0 of the local steps.
      prob: p in (0, 1]; it only sets the schedule.
      server_stepsize: :math:`\gamma_s > 0`, the most by which a number of the model changes in a round, but for decay.
      beta1: weight of the momentum in what is sent, in [0, 1).
      beta2: decay of the momentum, in [0, 1).
      weight_decay: lambda >= 0.

    Example:
      >>> method = fedsmu(stepsize=0.5, prob=0.5, server_stepsize=0.25, beta1=0.0, beta2=0.0, weight_decay=0.0)
      >>> b = jnp.array([4.0, 2.0])
      >>> s = method.send(jnp.array([3.5, 9.0]), jnp.zeros(2), b, lambda x: x, None)
      >>> s.tolist(), method.serve(b, s, None).tolist()
      ([-1.0, 1.0], [3.75, 2.25])
    """

    def update(beta: Scalar, x: Tree, m: Tree, b: Tree) -> Tree:
        return jax.tree.map(lambda x, m, b: beta * m + (1 - beta) * (x - b), x, m, b)

    def send(x: Tree, m: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        return jax.tree.map(jnp.sign, update(beta1, x, m, b))

    def serve(b: Tree, mean: Tree, info: RoundInfo) -> Tree:
        return jax.tree.map(lambda b, s: (1 - server_stepsize * weight_decay) * b + server_stepsize * s, b, mean)

    return Algorithm(
        init=lambda params: (optax.tree.zeros_like(params), params),
        move=descend(stepsize),
        send=send,
        serve=serve,
        receive=lambda x, m, s, b, info: update(beta2, x, m, info.begun),
        uplink=SIGNS,
        divides=True,  # what the weights of a cohort lack to one is no update
    )
