"""Powerpropagation: weights that are powers of what is trained, for any method, so that small ones stay small."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm, Gradient, RoundInfo, Scalar
from sps_jax.compression.leaves import Prunable, chosen
from sps_jax.tree import Tree


def powerpropagated(algorithm: Algorithm, beta: Scalar, prunable: Prunable = None) -> Algorithm:
    r"""Returns ``algorithm`` run on t, where the weights are :math:`w = \mathrm{sign}(t) |t|^\beta`, entry by entry.

    Powerpropagation (Schwarz et al. 2021, arXiv 2110.00296), which SparsyFed (Guastella et al. 2025, arXiv 2504.05153)
    uses in federated learning: the gradient in t is :math:`\beta |t|^{\beta - 1} \nabla f_i(w)`, so large weights move
    faster than small ones, and a weight that is zero stays zero for beta > 1.

    A reading: all that the method does is done with t. Clients send t, the server averages t, control variates are
    means of gradients in t, and their sum is what it was, as the method minimises :math:`t \mapsto f(w(t))`. Only
    gradients and the shipped model see w. The largest |t| are the largest |w|, so a method that prunes keeps the same
    weights: ``powerpropagated(sparse_proxskip(...), beta)`` has both. A run starts from the w that the problem gives.

    Args:
      algorithm: any method, pruned or not.
      beta: at least 1; with 1 it is ``algorithm`` itself.
      prunable: the leaves that are powers, see :class:`sps_jax.Sparsifier`; the default is the weights, not biases.

    Raises:
      ValueError: for a Python number ``beta`` below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import sps_jax as sps
      >>> method = powerpropagated(sps.gd(stepsize=0.5), beta=2.0)
      >>> _, t = method.init(jnp.array([[4.0, -9.0, 0.0]]))
      >>> t.tolist(), method.model(t).tolist()
      ([[2.0, -3.0, 0.0]], [[4.0, -9.0, 0.0]])
      >>> method.direction(t, (), t, lambda w: jnp.ones((1, 3)), None).tolist()  # 2 |t|
      [[4.0, 6.0, 0.0]]
    """
    if isinstance(beta, float | int) and not beta >= 1:
        raise ValueError(f"beta must be at least 1, not {beta:g}: the gradient would be infinite at zero")

    def on_weights(change: Callable[..., jax.Array], tree: Tree, *more: Tree) -> Tree:
        """Change the leaves of ``tree`` that are powers, with those of ``more``."""
        (leaves, structure), others = jax.tree.flatten(tree), map(jax.tree.leaves, more)
        rows = zip(chosen(tree, prunable), leaves, *others, strict=True)
        return jax.tree.unflatten(structure, [change(leaf, *own) if yes else leaf for yes, leaf, *own in rows])

    def weights(t: Tree) -> Tree:
        return on_weights(lambda t: jnp.sign(t) * jnp.abs(t) ** beta, t)

    def roots(w: Tree) -> Tree:
        return on_weights(lambda w: jnp.sign(w) * jnp.abs(w) ** (1 / beta), w)

    def in_t(gradient: Gradient) -> Gradient:
        return lambda t: on_weights(lambda g, t: beta * jnp.abs(t) ** (beta - 1) * g, gradient(weights(t)), t)

    def direction(x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        return algorithm.direction(x, h, b, in_t(gradient), key)

    def send(x: Tree, h: Tree, b: Tree, gradient: Gradient, info: RoundInfo) -> Tree:
        return algorithm.send(x, h, b, in_t(gradient), info)

    return algorithm._replace(
        init=lambda params: algorithm.init(roots(params)),
        direction=direction,
        send=send,
        model=lambda server: weights(algorithm.model(server)),
        with_model=lambda server, params: algorithm.with_model(server, roots(params)),
    )
