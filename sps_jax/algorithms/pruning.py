"""Pruning for any method: four switches say where it prunes."""

import jax

from sps_jax.algorithms.base import Algorithm, Gradient, Prune, Scalar
from sps_jax.algorithms.dependence import refuse_unseen
from sps_jax.compression.bits import FLOATS
from sps_jax.errors import refuse_unknown
from sps_jax.tree import Tree

SERVER = ("none", "naive", "modified")


def pruned(
    base: Algorithm,
    prune: Prune,
    sparsity: Scalar,
    *,
    gradient: bool = False,
    iterate: bool = False,
    uplink: bool = False,
    server: str = "none",
) -> Algorithm:
    r"""Returns ``base`` with the sparsifier C applied at any of four places; the shipped model is C(server's model).

    Args:
      base: a method whose clients' x is a model: :func:`fedavg`, :func:`proxskip`, :func:`scaffold`, ...
      prune: C, a :class:`sps_jax.Sparsifier` or another function ``prune(params, sparsity) -> params``. If its
        attribute ``wants_gradient`` is true, it gets the client's gradient at params as a third argument when it
        prunes for ``gradient`` or ``uplink``. Its attribute ``code``, if any, is the format of its messages.
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      gradient: straight-through: the gradient is taken at C(x) and applied to x.
      iterate: hard: x = C(x) after every local step.
      uplink: the client makes its message from C(x). The control variates are then updated with the *pruned* vectors
        that were averaged; with the dense ones their sum would not stay zero.
      server: ``"naive"`` replaces the server's model by C(model), so that the control variates no longer sum to zero;
        ``"modified"`` broadcasts the dense model b, and each client starts from C(b); ``"none"`` does neither.

    Raises:
      ValueError: for an unknown ``server``; when the algorithm starts, for ``"naive"`` if clients do not receive the
        server's model.

    Example:
      >>> import jax.numpy as jnp
      >>> import sps_jax as sps
      >>> method = pruned(sps.scaffold(stepsize=0.5, prob=0.1), sps.topk, 0.5, server="modified")
      >>> _, b = method.init(jnp.array([[4.0, 2.0]]))
      >>> method.start(b, jnp.zeros((1, 2))).tolist()  # each client starts from C(b)
      [[4.0, 0.0]]
    """
    refuse_unknown("server pruning", server, SERVER)
    wants_gradient, code = getattr(prune, "wants_gradient", False), getattr(prune, "code", FLOATS)

    def cut(params: Tree, gradient: Gradient | None = None) -> Tree:
        if wants_gradient and gradient is not None:
            return prune(params, sparsity, gradient(params))
        return prune(params, sparsity)

    def served(state: Tree) -> Tree:
        return base.with_model(state, cut(base.model(state)))

    method = base._replace(uplink=code, downlink=code)
    if gradient:
        method = method._replace(direction=lambda x, h, b, g, key: base.direction(x, h, b, lambda p: g(cut(p, g)), key))
    if iterate:
        method = method._replace(move=lambda x, d: cut(base.move(x, d)))
    if uplink:
        method = method._replace(send=lambda x, h, b, g, info: base.send(cut(x, g), h, b, g, info))
    if server == "naive":

        def init(params: Tree) -> tuple[Tree, Tree]:
            refuse_unseen(base, params, "pruning at the server")
            return base.init(params)

        method = method._replace(
            init=init, serve=lambda state, mean, info: served(base.serve(state, mean, info)), zero_sum=False
        )
    if server == "modified":
        method = method._replace(start=lambda b, h: cut(base.start(b, h)))

    def personal(h: Tree, state: Tree) -> Tree:
        own = base.personal(h, state)
        return cut(own) if jax.tree.leaves(own) else own

    return method._replace(model=lambda state: cut(base.model(state)), personal=personal)
