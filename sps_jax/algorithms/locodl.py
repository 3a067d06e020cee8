"""LoCoDL: local steps and any unbiased compressor, accelerated by both."""

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar
from sps_jax.algorithms.ranges import Range
from sps_jax.compression.rand_k import unbiased
from sps_jax.tree import Tree


class LoCoDLMemory(NamedTuple):
    """What a client keeps: its x and control variate u, and y and v, which are the same at all clients."""

    x: Any
    u: Any
    y: Any
    v: Any


class LoCoDLIterate(NamedTuple):
    """A client's local iterate: x, and y, which moves along with v."""

    x: Any
    y: Any
    v: Any


class LoCoDLState(NamedTuple):
    """What the server keeps: the model y and its control variate v, and dbar, which it broadcasts."""

    y: Any
    v: Any
    dbar: Any


def locodl(
    *,
    stepsize: Scalar,
    prob: Scalar,
    rho: Annotated[Scalar, Range(0, 1, "(]")],
    eta: Annotated[Scalar, Range(0, math.inf, "(]")],
    ridge: Scalar,
    sparsity: Scalar,
    quantize_bits: Annotated[int | None, Range(1, 16)] = None,
) -> Algorithm:
    r"""LoCoDL (Condat et al. 2024, arXiv 2403.04348): local steps and unbiasedly compressed differences to a common y.

    The objective is :math:`\frac1n \sum_i f_i(x) + g(x)` with a function g that all know. Here
    :math:`g(x) = \frac{\lambda}{2} \|x\|^2`, with ``ridge`` for :math:`\lambda`, and :math:`f_i` is the
    client's objective minus g, so that the sum is what other methods minimise. With unbiased compressors :math:`C_i`

    .. math::
        x_i &\leftarrow x_i - \gamma (\nabla f_i(x_i) - u_i), \qquad y \leftarrow y - \gamma (\nabla g(y) - v) \\
        \text{with probability } p: \quad
        d_i &= C_i(x_i - y), \qquad \bar d = \frac1{2n} \sum_i d_i \\
        x_i &\leftarrow (1 - \varrho) x_i + \varrho (y + \bar d), \qquad u_i \leftarrow u_i + \eta (\bar d - d_i) \\
        y &\leftarrow y + \varrho \bar d, \qquad v \leftarrow v + \eta \bar d

    where :math:`\varrho` is ``rho`` and y on the right the old one. A client sends :math:`d_i`, the server
    :math:`\bar d`: y and v are the same everywhere, and each computes them itself. :math:`\sum_i (u_i + v)` stays zero.
    The shipped model is y. All clients take part in every round, and no message may be lost.

    C is rand-k, the stochastic quantiser :math:`Q_r`, or one after the other. Let :math:`E \|C_i(x) - x\|^2 \le
    \omega \|x\|^2`, and :math:`\omega_{av} = \omega / n`, as for independent ones. If each f_i and g is L-smooth and
    :math:`\mu`-strongly convex, :math:`\gamma < 2/L`, and

    .. math:: \eta \gamma (1 + 2 \omega) \le p \left( 2 \varrho - \varrho^2 (1 + \omega_{av}) \right)

    then :math:`\Psi = \sum_i \|x_i - x^*\|^2 + n \|y - x^*\|^2 + \frac{\gamma}{p \eta} (\sum_i \|u_i - u_i^*\|^2
    + n \|v - v^*\|^2)`, with the gradients of f_i and g at :math:`x^*` for :math:`u_i^*` and :math:`v^*`, falls in
    expectation by the factor :math:`\max((1 - \gamma\mu)^2, (\gamma L - 1)^2, 1 - \gamma p \eta)` per step. (The paper
    writes :math:`\eta = p \chi / (\gamma (1 + 2 \omega))`.) Uncompressed, with :math:`\varrho = 1` and
    :math:`\eta = p / \gamma`, it is :func:`proxskip` of 2n clients, n of them with g.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps.
      rho: step of x and y towards each other, in (0, 1]; :math:`1 / (1 + \omega_{av})` allows the largest eta.
      eta: step of the control variates, > 0.
      ridge: weight of g, >= 0; no more than the problem's own, if f_i is to remain convex whatever its data.
      sparsity: fraction of the numbers that rand-k leaves out of a message, in [0, 1); with 0, C is Q_r alone.
      quantize_bits: r of the stochastic quantiser, 1 to 16; None sends the numbers unquantised.

    Raises:
      ValueError: when a round begins with a cohort, or with losses.

    Example:
      >>> key, zero = jax.random.key(0), jnp.zeros(2)
      >>> info = RoundInfo(key, key, jnp.int32(0), jnp.float32(1), cohort=1, clients=1)
      >>> method = locodl(stepsize=0.5, prob=0.5, rho=1.0, eta=1.0, ridge=0.0, sparsity=0.0)
      >>> h, server = method.init(zero)
      >>> x = LoCoDLIterate(jnp.array([4.0, 2.0]), zero, zero)
      >>> d = method.send(x, h, zero, lambda x: x, info)
      >>> server = method.serve(server, d, info)
      >>> server.y.tolist(), method.receive(x, h, d, server.dbar, info).u.tolist()
      ([2.0, 1.0], [-2.0, -1.0])
    """
    compress, code = unbiased(sparsity, quantize_bits)

    def init(params: Tree) -> tuple[Tree, Tree]:
        zeros = optax.tree.zeros_like(params)
        return LoCoDLMemory(params, zeros, params, zeros), LoCoDLState(params, zeros, zeros)

    def stepped(y: Tree, v: Tree) -> Tree:
        return jax.tree.map(lambda y, v: y - stepsize * (ridge * y - v), y, v)

    def direction(x: LoCoDLIterate, h: LoCoDLMemory, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        return jax.tree.map(lambda g, x, u: g - ridge * x - u, gradient(x.x), x.x, h.u)

    def move(x: LoCoDLIterate, d: Tree) -> LoCoDLIterate:
        return LoCoDLIterate(jax.tree.map(lambda x, d: x - stepsize * d, x.x, d), stepped(x.y, x.v), x.v)

    def send(x: LoCoDLIterate, h: LoCoDLMemory, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        if info.cohort < info.clients or info.weight is not None:  # the latter with losses, which make a cohort of all
            raise ValueError(
                "locodl needs all clients in every round, for each computes the common y itself: leave out the cohort, "
                "and losses"
            )
        return compress(jax.tree.map(jnp.subtract, x.x, x.y), info.key)

    def serve(server: LoCoDLState, mean: Tree, info: RoundInfo) -> LoCoDLState:
        y = lax.fori_loop(0, info.steps.astype(jnp.int32), lambda _, y: stepped(y, server.v), server.y)
        dbar = jax.tree.map(lambda d: d / 2, mean)
        return LoCoDLState(_along(y, rho, dbar), _along(server.v, eta, dbar), dbar)

    def receive(x: LoCoDLIterate, h: LoCoDLMemory, d: Tree, dbar: Tree, info: RoundInfo) -> LoCoDLMemory:
        return LoCoDLMemory(
            x=jax.tree.map(lambda x, y, dbar: (1 - rho) * x + rho * (y + dbar), x.x, x.y, dbar),
            u=jax.tree.map(lambda u, dbar, d: u + eta * (dbar - d), h.u, dbar, d),
            y=_along(x.y, rho, dbar),
            v=_along(h.v, eta, dbar),
        )

    return Algorithm(
        init=init,
        broadcast=lambda server: server.dbar,
        start=lambda b, h: LoCoDLIterate(h.x, h.y, h.v),
        direction=direction,
        move=move,
        send=send,
        serve=serve,
        receive=receive,
        control=lambda h, server: jax.tree.map(jnp.add, h.u, server.v),
        model=lambda server: server.y,
        with_model=lambda server, params: server._replace(y=params),
        uplink=code,
    )


def _along(x: Tree, step: Scalar, d: Tree) -> Tree:
    """Returns x + step * d."""
    return jax.tree.map(lambda x, d: x + step * d, x, d)
