"""EF21: clients send the compressed change of their gradients, so that what the server knows of them becomes exact."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, Gradient, Prune, RoundInfo, Scalar
from sps_jax.algorithms.ranges import Range
from sps_jax.compression import topk
from sps_jax.compression.bits import FLOATS
from sps_jax.tree import Tree


class EF21State(NamedTuple):
    """What the server keeps: the model x, which it broadcasts, and e, the mean of all clients' :math:`e_i`."""

    model: Any
    e: Any


class EF21Memory(NamedTuple):
    """What a client of :func:`ef21_sgdm` keeps: v, the mean of its gradients, and e, what the server knows of it."""

    v: Any
    e: Any


def ef21(*, stepsize: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""EF21 (Richtarik et al. 2021, arXiv 2106.05203): gradient descent with compressed changes of the gradients.

    All clients communicate after every gradient (p = 1). With the compressor C, by default TopK,

    .. math::
        c_i &= C(\nabla f_i(x) - e_i), \qquad e_i \leftarrow e_i + c_i \\
        e &\leftarrow e + W_S \, \mathrm{mean}\, c_i, \qquad x \leftarrow x - \gamma e

    where the mean is over the cohort S and :math:`W_S` the sum of its clients' weights (|S|/n if all clients weigh the
    same), so that e is the mean of all :math:`e_i`. Both start at zero. A client sends :math:`c_i`, the server x.

    Without compression it is gradient descent, not delayed. With it :math:`e_i \to \nabla f_i(x^*)`, so that it
    converges to :math:`x^*` itself, where descent along the mean of :math:`C(\nabla f_i(x))` does not. If
    :math:`\|C(x) - x\|^2 \le (1 - \alpha) \|x\|^2`, f is L-smooth with :math:`f - f^* \le \|\nabla f\|^2 / 2 \mu`, each
    f_i is :math:`L_i`-smooth, :math:`\theta = 1 - \sqrt{1 - \alpha}`, :math:`\beta = (1 - \alpha) / \theta`, and

    .. math::
        \gamma \le \min\left\{ \frac{1}{L + \tilde L \sqrt{2 \beta / \theta}}, \frac{\theta}{2\mu} \right\}, \qquad
        \tilde L^2 = \frac1n \sum_i L_i^2

    then :math:`\Psi = f(x) - f^* + \frac{\gamma}{n\theta} \sum_i \|e_i - \nabla f_i(x)\|^2`, where :math:`e_i` has just
    been updated at x, falls by the factor :math:`1 - \gamma\mu` per step.

    Args:
      stepsize: gamma > 0.
      sparsity: fraction of the prunable weights that C sets to zero in a message, in [0, 1); the model is dense.
      prune: the compressor C, ``prune(params, sparsity) -> params``.

    Example:
      >>> method, x = ef21(stepsize=0.5, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> e, server = method.init(x)
      >>> g = method.move(x, method.direction(x, e, x, lambda x: x, None))  # after its step, a client has its gradient
      >>> c = method.send(g, e, x, lambda x: x, None)
      >>> server = method.serve(server, c, RoundInfo(None, None, None, None, cohort=1, clients=1))
      >>> c.tolist(), server.model.tolist()
      ([[4.0, 0.0]], [[2.0, 2.0]])
    """

    def init(params: Tree) -> tuple[Tree, Tree]:
        zeros = optax.tree.zeros_like(params)
        return zeros, EF21State(params, zeros)

    def send(g: Tree, e: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        return prune(jax.tree.map(jnp.subtract, g, e), sparsity)

    def serve(server: EF21State, mean: Tree, info: RoundInfo) -> EF21State:
        e = jax.tree.map(lambda e, c: e + info.share * c, server.e, mean)
        return EF21State(jax.tree.map(lambda x, e: x - stepsize * e, server.model, e), e)

    return Algorithm(
        init=init,
        broadcast=lambda server: server.model,
        move=lambda x, g: g,
        send=send,
        serve=serve,
        receive=lambda g, e, c, b, info: jax.tree.map(jnp.add, e, c),
        control=lambda e, server: jax.tree.map(jnp.subtract, e, server.e),
        model=lambda server: server.model,
        with_model=lambda server, params: server._replace(model=params),
        uplink=getattr(prune, "code", FLOATS),
    )


def ef21_sgdm(
    *, stepsize: Scalar, sparsity: Scalar, momentum: Annotated[Scalar, Range(0, 1, "(]")], prune: Prune = topk
) -> Algorithm:
    r"""EF21-SGDM (Fatkhullin et al. 2023, arXiv 2305.15155): EF21 on a running mean of each client's gradients.

    .. math:: v_i \leftarrow (1 - \eta) v_i + \eta \nabla f_i(x), \qquad c_i = C(v_i - e_i)

    The rest is :func:`ef21`, which it is for :math:`\eta = 1`. The paper proves that it converges with small batches,
    with which EF21 alone need not. Here :math:`v_i` starts at zero, as :math:`e_i` does; that is a reading: the paper
    starts both at a client's first gradient.

    Args:
      stepsize: gamma > 0.
      sparsity: fraction of the prunable weights that C sets to zero in a message, in [0, 1); the model is dense.
      momentum: eta in (0, 1], the weight of the newest gradient.
      prune: the compressor C, ``prune(params, sparsity) -> params``.

    Example:
      >>> method, g = ef21_sgdm(stepsize=0.5, sparsity=0.5, momentum=0.25), jnp.array([[4.0, 2.0]])
      >>> h, _ = method.init(g)
      >>> c = method.send(g, h, g, lambda x: x, None)
      >>> v, e = method.receive(g, h, c, g, None)
      >>> c.tolist(), v.tolist(), e.tolist()
      ([[1.0, 0.0]], [[1.0, 0.5]], [[1.0, 0.0]])
    """
    base = ef21(stepsize=stepsize, sparsity=sparsity, prune=prune)

    def init(params: Tree) -> tuple[Tree, Tree]:
        zeros, server = base.init(params)
        return EF21Memory(zeros, zeros), server

    def averaged(g: Tree, h: EF21Memory) -> Tree:
        return jax.tree.map(lambda v, g: (1 - momentum) * v + momentum * g, h.v, g)

    def send(g: Tree, h: EF21Memory, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        return base.send(averaged(g, h), h.e, b, gradient, info)

    def receive(g: Tree, h: EF21Memory, c: Tree, b: Tree, info: RoundInfo) -> EF21Memory:
        return EF21Memory(averaged(g, h), base.receive(g, h.e, c, b, info))

    return base._replace(init=init, send=send, receive=receive, control=lambda h, server: base.control(h.e, server))
