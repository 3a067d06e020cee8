"""Where a method prunes: four switches over any method."""

from sps_jax.algorithms.base import Algorithm, Gradient, Prune, Scalar
from sps_jax.compression.bits import FLOATS
from sps_jax.errors import unknown
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
    r"""``base`` with pruning C at any of four places; the shipped model is always pruned, C(server's model).

    Args:
      base: a method whose clients' x is a model: :func:`fedavg`, :func:`proxskip`, :func:`scaffold`, ...
      prune: C, a :class:`sps_jax.Sparsifier` or another ``prune(params, sparsity) -> params``. One that has a true
        ``wants_gradient`` is given the gradient at params as a third argument where there is one: at the clients,
        before the gradient and the message. Its ``code``, where it has one, says how its positions are written.
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      gradient: straight-through, the gradient is taken at C(x) and applied to x.
      iterate: hard, x = C(x) after every local step.
      uplink: the message is made from C(x), and with it what the client computes when the answer comes; control
        variates are updated with the *pruned* vectors that were averaged, else their sum is lost.
      server: ``"naive"`` serves C(model), which breaks the sum of control variates; ``"modified"`` serves the dense
        model, from which each client starts at C(b); ``"none"``.

    Raises:
      ValueError: for an unknown ``server``.

    Example:
      >>> import jax.numpy as jnp

      >>> import sps_jax as sps
      >>> method = pruned(sps.scaffold(stepsize=0.5, prob=0.1), sps.topk, 0.5, server="modified")
      >>> _, b = method.init(jnp.array([[4.0, 2.0]]))
      >>> method.start(b, jnp.zeros((1, 2))).tolist()  # each client starts from C(b)
      [[4.0, 0.0]]
    """
    if server not in SERVER:
        raise unknown("server pruning", server, SERVER)
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
        method = method._replace(serve=lambda state, mean, info: served(base.serve(state, mean, info)), zero_sum=False)
    if server == "modified":
        method = method._replace(start=lambda b, h: cut(base.start(b, h)))
    return method._replace(model=lambda state: cut(base.model(state)))
