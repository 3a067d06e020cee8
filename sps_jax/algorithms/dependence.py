"""What a method's functions depend on, read off their programs."""

from collections.abc import Callable

import jax

from sps_jax.algorithms.base import Algorithm
from sps_jax.tree import Tree


def depends(function: Callable[..., Tree], first: Tree, *others: Tree) -> bool:
    """Returns whether the result of ``function(first, *others)`` can depend on ``first``.

    Example:
      >>> depends(lambda x, y: x * y, 1.0, 2.0), depends(lambda x, y: (y, 3.0), 1.0, 2.0)
      (True, False)
    """
    program = jax.make_jaxpr(function)(first, *others).jaxpr
    reached = {id(v) for v in program.invars[: len(jax.tree.leaves(first))]}
    for equation in program.eqns:
        if any(id(v) in reached for v in equation.invars):
            reached |= {id(v) for v in equation.outvars}
    return any(id(v) in reached for v in program.outvars)


def refuse_unseen(algorithm: Algorithm, params: Tree, change: str) -> None:
    """Raise a ``ValueError`` if clients do not receive the server's model, so that ``change`` of it would be lost.

    >>> import jax.numpy as jnp
    >>> from sps_jax.algorithms.fedavg import fedavg
    >>> refuse_unseen(fedavg(stepsize=0.1, prob=0.5), jnp.ones(2), "pruning at the server")
    >>> deaf = fedavg(stepsize=0.1, prob=0.5)._replace(broadcast=lambda server: jnp.zeros(2))
    >>> refuse_unseen(deaf, jnp.ones(2), "pruning at the server")
    Traceback (most recent call last):
      ...
    ValueError: pruning at the server would not reach this method's clients: they keep the model themselves
    """

    def sent(model: Tree, params: Tree) -> Tree:
        _, server = algorithm.init(params)
        return algorithm.broadcast(algorithm.with_model(server, model))

    if not depends(sent, params, params):
        raise ValueError(f"{change} would not reach this method's clients: they keep the model themselves")
