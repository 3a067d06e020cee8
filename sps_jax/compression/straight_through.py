"""The straight-through estimator."""

from collections.abc import Callable

import jax

from sps_jax.tree import Tree


def straight_through(prune: Callable[[Tree], Tree]) -> Callable[[Tree], Tree]:
    r"""Returns ``prune`` with the identity as its backward pass (Bengio et al. 2013, arXiv 1308.3432).

    For the returned function q and any loss f, :math:`\nabla (f \circ q)(x) = (\nabla f)(q(x))`: the gradient *at* the
    pruned point, unmasked. The algorithms evaluate the right-hand side directly.

    >>> import jax, jax.numpy as jnp
    >>> first = straight_through(lambda x: x * jnp.array([1.0, 0.0]))
    >>> jax.grad(lambda x: jnp.sum(first(x) ** 2 + 3 * first(x)))(jnp.array([1.0, 1.0])).tolist()
    [5.0, 3.0]
    """

    @jax.custom_jvp
    def pruned(params: Tree) -> Tree:
        return prune(params)

    @pruned.defjvp
    def _identity(primals: tuple[Tree], tangents: tuple[Tree]) -> tuple[Tree, Tree]:
        return prune(*primals), tangents[0]

    return pruned
