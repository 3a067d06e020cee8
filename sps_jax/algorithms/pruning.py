"""Where a method prunes: four switches over any method whose server state is the model."""

from collections.abc import Callable

from sps_jax.algorithms.base import Algorithm
from sps_jax.errors import unknown
from sps_jax.tree import Tree

SERVER = ("none", "naive", "modified")


def pruned(
    base: Algorithm,
    prune: Callable[[Tree], Tree],
    *,
    gradient: bool = False,
    iterate: bool = False,
    uplink: bool = False,
    server: str = "none",
) -> Algorithm:
    r"""``base`` with pruning C at any of four places; the shipped model is always pruned, C(server's average).

    Args:
      base: a method that sends and serves its model: :func:`fedavg`, :func:`proxskip`, ...
      prune: C, params -> params.
      gradient: straight-through, the gradient is taken at C(x) and applied to x.
      iterate: hard, x = C(x) after every local step.
      uplink: C(x) goes up, and with it everything the client computes from its message; the control variates are
        updated with the *pruned* vectors that were averaged, else their sum is lost.
      server: ``"naive"`` serves C(mean), which breaks the sum of control variates; ``"modified"`` serves the dense
        mean, from which each client starts at C(b); ``"none"``.

    Raises:
      ValueError: for an unknown ``server``.
    """
    if server not in SERVER:
        raise unknown("server pruning", server, SERVER)
    method = base
    if gradient:
        method = method._replace(direction=lambda x, h, b, g, key: base.direction(x, h, b, lambda p: g(prune(p)), key))
    if iterate:
        method = method._replace(move=lambda x, d: prune(base.move(x, d)))
    if uplink:
        method = method._replace(
            send=lambda x, h, b, turn: base.send(prune(x), h, b, turn),
            receive=lambda x, h, m, b, turn: base.receive(prune(x), h, m, b, turn),
        )
    if server == "naive":
        method = method._replace(serve=lambda state, mean, turn: prune(base.serve(state, mean, turn)))
    if server == "modified":
        method = method._replace(start=lambda b, h: base.start(prune(b), h))
    return method._replace(model=lambda state: prune(base.model(state)))
