"""Error feedback on the compressed message of any method: what a message leaves out is not forgotten."""

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo
from sps_jax.errors import refuse_unknown
from sps_jax.tree import Tree

KINDS = ("none", "ef14", "ef21")


def with_error_feedback(base: Algorithm, kind: str) -> Algorithm:
    r"""Returns ``base``, whose clients send :math:`m_i = C(x_i)`, with error feedback on that message.

    Each client keeps a vector :math:`e_i`, at first zero:

    * ``"ef14"`` (Seide et al. 2014): :math:`m_i = C(x_i + e_i)`, :math:`e_i \leftarrow x_i + e_i - m_i`: the next
      message makes up for the last. The client's memory follows the messages that were averaged, as without, so that
      control variates keep their sum, whatever the :math:`e_i` are. But what is compressed is a model, not a change: a
      weight that was left out r times comes as the sum of r + 1 of its values.
    * ``"ef21"`` (Richtarik et al. 2021, arXiv 2106.05203): :math:`c_i = C(x_i - e_i)` is sent, and
      :math:`e_i \leftarrow e_i + c_i` takes the message's place: ``base`` serves the mean e of *all* :math:`e_i`, which
      the server keeps, and :math:`h_i` follows :math:`e_i`. With all clients in a round the control variates keep their
      sum; with a cohort S ProxSkip's :math:`\sum_i h_i` gains :math:`\frac p\gamma \sum_{i \in S} (e - e_i)`,
      because e is not the cohort's mean of :math:`e_i`.

    Args:
      base: a method whose message is its compressed x, as :func:`sps_jax.pruned` with ``uplink`` makes of ProxSkip.
      kind: ``"none"`` (``base`` itself), ``"ef14"`` or ``"ef21"``.

    Raises:
      ValueError: for an unknown ``kind``.

    Example:
      >>> import sps_jax as sps
      >>> base = sps.pruned(sps.proxskip(stepsize=0.5, prob=0.5), sps.topk, 0.5, uplink=True)
      >>> method, x = with_error_feedback(base, "ef14"), jnp.array([[4.0, 3.0]])
      >>> h, _ = method.init(x)
      >>> for _ in range(2):
      ...     m = method.send(x, h, x, lambda x: x, None)
      ...     h = method.receive(x, h, m, m, None)
      ...     print(m.tolist(), h[1].tolist())
      [[4.0, 0.0]] [[0.0, 3.0]]
      [[0.0, 6.0]] [[4.0, 0.0]]
    """
    refuse_unknown("error feedback", kind, KINDS)
    if kind == "none":
        return base
    return _ef14(base) if kind == "ef14" else _ef21(base)


def _with_memory(base: Algorithm) -> Algorithm:
    """Returns ``base`` whose clients keep (h, e); how e changes is still to be said."""

    def init(params: Tree) -> tuple[Tree, Tree]:
        h, server = base.init(params)
        return (h, optax.tree.zeros_like(params)), server

    return base._replace(
        init=init,
        init_client=lambda h, i, n: (base.init_client(h[0], i, n), h[1]),
        start=lambda b, h: base.start(b, h[0]),
        direction=lambda x, h, b, gradient, key: base.direction(x, h[0], b, gradient, key),
        control=lambda h, server: base.control(h[0], server),
    )


def _ef14(base: Algorithm) -> Algorithm:
    def send(x: Tree, h: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        h, e = h
        return base.send(jax.tree.map(jnp.add, x, e), h, b, gradient, info)

    def receive(x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo) -> Tree:
        h, e = h
        return base.receive(x, h, m, b, info), jax.tree.map(lambda x, e, m: x + e - m, x, e, m)

    return _with_memory(base)._replace(send=send, receive=receive)


def _ef21(base: Algorithm) -> Algorithm:
    own = _with_memory(base)

    def init(params: Tree) -> tuple[Tree, Tree]:
        h, server = own.init(params)
        return h, (server, optax.tree.zeros_like(params))

    def send(x: Tree, h: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        h, e = h
        return base.send(jax.tree.map(jnp.subtract, x, e), h, b, gradient, info)

    def serve(server: Tree, mean: Tree, info: RoundInfo) -> Tree:
        state, e = server
        e = jax.tree.map(lambda e, c: e + info.share * c, e, mean)
        return base.serve(state, e, info), e

    def receive(x: Tree, h: Tree, c: Tree, b: Tree, info: RoundInfo) -> Tree:
        h, e = h
        e = jax.tree.map(jnp.add, e, c)
        return base.receive(x, h, e, b, info), e

    return own._replace(
        init=init,
        broadcast=lambda server: base.broadcast(server[0]),
        send=send,
        serve=serve,
        receive=receive,
        control=lambda h, server: base.control(h[0], server[0]),
        model=lambda server: base.model(server[0]),
        with_model=lambda server, params: (base.with_model(server[0], params), server[1]),
        zero_sum=False,
    )
