"""SCALLION and SCAFCOM (arXiv 2308.08165): SCAFFOLD with one compressed message where it sends two vectors.

SCAFFOLD's new :math:`x_i` and :math:`c_i` both follow from :math:`\\Delta_i = (b - x_i) / (k \\gamma) - c`, the mean of
the corrected gradients of a round, so that a client need not send more than that.
"""

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Gradient, Prune, RoundInfo, Scalar
from sps_jax.algorithms.ranges import Range
from sps_jax.algorithms.scaffold import ScaffoldState, scaffold
from sps_jax.compression import topk
from sps_jax.compression.bits import FLOATS
from sps_jax.compression.rand_k import unbiased
from sps_jax.tree import Tree

ServerStepsize = Annotated[Scalar, Range(0, math.inf, "(]")]
Share = Annotated[Scalar, Range(0, 1, "(]")]
Bits = Annotated[int | None, Range(1, 16)]


class ScafcomMemory(NamedTuple):
    """What a client of :func:`scafcom` keeps: its control variate c, and v, the running mean that c follows."""

    c: Any
    v: Any


def scallion(
    *,
    stepsize: Scalar,
    prob: Scalar,
    server_stepsize: ServerStepsize,
    alpha: Share,
    sparsity: Scalar,
    quantize_bits: Bits = None,
) -> Algorithm:
    r"""SCALLION (Huang et al. 2023, arXiv 2308.08165): SCAFFOLD with one unbiasedly compressed message.

    The local steps are those of :func:`scaffold`, k of them since the broadcast b. Then, with the compressor C,

    .. math::
        m_i &= C\big(\alpha ((b - x_i) / (k \gamma) - c)\big), \qquad c_i \leftarrow c_i + m_i \\
        x &\leftarrow b - \gamma_s \gamma k (\mathrm{mean}\, m_i + c), \quad c \leftarrow c + W_S \, \mathrm{mean}\, m_i

    where c on the right is the old one, the mean is over the cohort S and :math:`W_S` the sum of its clients' weights
    (|S|/n if all clients weigh the same), so that c stays the mean of all :math:`c_i`. C is rand-k, the stochastic
    quantiser :math:`Q_r`, or one after the other. Without compression, with :math:`\alpha = \gamma_s = 1`, it is
    :func:`scaffold` with half the uplink. The server sends x and c.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it only sets the schedule.
      server_stepsize: :math:`\gamma_s > 0`.
      alpha: scale of the message, in (0, 1]; the more C compresses, the smaller it has to be.
      sparsity: fraction of the numbers that rand-k leaves out of a message, in [0, 1); with 0, C is Q_r alone.
      quantize_bits: r of the stochastic quantiser, 1 to 16; None sends the numbers unquantised.

    Example:
      >>> key, x = jax.random.key(0), jnp.array([4.0, 2.0])
      >>> info = RoundInfo(key, key, jnp.int32(0), jnp.float32(2), cohort=1, clients=1)
      >>> method = scallion(stepsize=0.5, prob=0.5, server_stepsize=1.0, alpha=0.5, sparsity=0.0)
      >>> ci, server = method.init(x)
      >>> m = method.send(jnp.array([2.0, 2.0]), ci, server, lambda x: x, info)  # alpha (b - x) / (2 gamma)
      >>> m.tolist(), method.serve(server, m, info).model.tolist()
      ([1.0, 0.0], [3.0, 2.0])
    """
    compress, code = unbiased(sparsity, quantize_bits)
    base = _one_message(stepsize, prob, server_stepsize)

    def send(x: Tree, ci: Tree, b: ScaffoldState, gradient: Gradient, info: RoundInfo) -> Tree:
        change = base.send(x, ci, b, gradient, info)
        return compress(jax.tree.map(lambda d: alpha * d, change), info.key)

    return base._replace(send=send, uplink=code)


def scafcom(
    *,
    stepsize: Scalar,
    prob: Scalar,
    server_stepsize: ServerStepsize,
    beta: Share,
    sparsity: Scalar,
    prune: Prune = topk,
) -> Algorithm:
    r"""SCAFCOM (Huang et al. 2023, arXiv 2308.08165): SCAFFOLD with one message, compressed by TopK, and momentum.

    .. math::
        v_i \leftarrow (1 - \beta) v_i + \beta ((b - x_i) / (k \gamma) + c_i - c), \qquad m_i = C(v_i - c_i)

    with C a sparsifier, by default TopK. The rest is :func:`scallion`: :math:`c_i` follows :math:`v_i` as in
    :func:`ef21`, and c stays the mean of all :math:`c_i`. Without compression, with :math:`\beta = \gamma_s = 1`, it is
    :func:`scaffold`.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it only sets the schedule.
      server_stepsize: :math:`\gamma_s > 0`.
      beta: weight of the newest round, in (0, 1].
      sparsity: fraction of the prunable weights that C sets to zero in a message, in [0, 1); the model is dense.
      prune: the sparsifier C.

    Example:
      >>> x, info = jnp.array([[4.0, 2.0]]), RoundInfo(None, None, None, jnp.float32(2), cohort=1, clients=1)
      >>> method = scafcom(stepsize=0.5, prob=0.5, server_stepsize=1.0, beta=0.5, sparsity=0.5)
      >>> h, server = method.init(x)
      >>> method.send(jnp.array([[2.0, 1.0]]), h, server, lambda x: x, info).tolist()  # C of [1, 0.5]
      [[1.0, 0.0]]
    """
    base = _one_message(stepsize, prob, server_stepsize)

    def init(params: Tree) -> tuple[Tree, Tree]:
        zeros, server = base.init(params)
        return ScafcomMemory(zeros, zeros), server

    def averaged(x: Tree, h: ScafcomMemory, b: ScaffoldState, info: RoundInfo) -> Tree:
        change = base.send(x, h.c, b, None, info)  # type: ignore[arg-type]  # SCAFFOLD takes no gradient to send
        return jax.tree.map(lambda v, d, c: (1 - beta) * v + beta * (d + c), h.v, change, h.c)

    def send(x: Tree, h: ScafcomMemory, b: ScaffoldState, gradient: Gradient, info: RoundInfo) -> Tree:
        return prune(jax.tree.map(jnp.subtract, averaged(x, h, b, info), h.c), sparsity)

    def receive(x: Tree, h: ScafcomMemory, m: Tree, b: ScaffoldState, info: RoundInfo) -> ScafcomMemory:
        return ScafcomMemory(base.receive(x, h.c, m, b, info), averaged(x, h, info.begun, info))

    return base._replace(
        init=init,
        direction=lambda x, h, b, gradient, key: base.direction(x, h.c, b, gradient, key),
        send=send,
        receive=receive,
        control=lambda h, server: base.control(h.c, server),
        uplink=getattr(prune, "code", FLOATS),
    )


def _one_message(stepsize: Scalar, prob: Scalar, server_stepsize: Scalar) -> Algorithm:
    r"""Returns SCAFFOLD whose clients send :math:`\Delta_i` alone, with a step size at the server."""
    base = scaffold(stepsize=stepsize, prob=prob)

    def serve(server: ScaffoldState, mean: Tree, info: RoundInfo) -> ScaffoldState:
        length = server_stepsize * stepsize * info.steps
        model = jax.tree.map(lambda x, m, c: x - length * (m + c), server.model, mean, server.c)
        return ScaffoldState(model, jax.tree.map(lambda c, m: c + info.share * m, server.c, mean))

    return base._replace(
        send=lambda x, ci, b, gradient, info: base.send(x, ci, b, gradient, info).change,
        serve=serve,
        receive=lambda x, ci, m, b, info: jax.tree.map(jnp.add, ci, m),
    )
