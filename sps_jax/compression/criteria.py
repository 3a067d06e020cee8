"""Criteria that score a model's weights: functions ``score(params, gradient) -> scores``.

Params, gradient and scores are pytrees with the same structure, shapes and dtypes; ``gradient`` is None if no gradient
is available, as at the server. The scores of largest *magnitude* are kept, and ties go to the lowest index. A criterion
may have two attributes, which are false by default:

* ``wants_gradient``: if true, it gets the client's gradient at params, at the cost of computing that gradient.
* ``shared``: if true, its scores depend on shapes alone, so that all clients and the server keep the same positions and
  need not send them.
"""

from collections.abc import Callable

import jax

from sps_jax.layout import random_key
from sps_jax.tree import Tree

Criterion = Callable[[Tree, Tree | None], Tree]


def magnitude(params: Tree, gradient: Tree | None) -> Tree:
    """Keeps the largest weights: TopK.

    Example:
      >>> import jax.numpy as jnp
      >>> magnitude(jnp.array([-3.0, 2.0]), None).tolist()
      [-3.0, 2.0]
    """
    return params


def weight_gradient(params: Tree, gradient: Tree | None) -> Tree:
    r"""Keeps the largest weight x gradient on the current batch; TopK if no gradient is available, as at the server.

    To first order it is the change of the loss if the weight is set to zero: the connection sensitivity of SNIP (Lee et
    al. 2019, arXiv 1810.02340), the Taylor criterion of Molchanov et al. (2017, arXiv 1611.06440). Clients use it when
    they take a gradient at the pruned model and when they send. After a local step (``iterate`` of
    :func:`sps_jax.pruned`) and at the server no gradient is available, and the magnitude ranks.

    Example:
      >>> import jax.numpy as jnp
      >>> weight_gradient(jnp.array([-3.0, 2.0]), jnp.array([1.0, 5.0])).tolist()
      [-3.0, 10.0]
    """
    return params if gradient is None else jax.tree.map(lambda w, g: w * g, params, gradient)


weight_gradient.wants_gradient = True  # type: ignore[attr-defined]  # the checker knows no attributes of functions


def random(params: Tree, gradient: Tree | None) -> Tree:
    """Keeps the same random weights at all clients, in all rounds and at the server, so that no positions are sent.

    Scores are uniform random numbers from a fixed key; masks of different sparsities are nested. Only nonzeros count as
    sent: a kept weight that is exactly zero, such as that of a pixel that is always black, costs nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> (random(jnp.array([1.0, 2.0]), None) == random(jnp.array([8.0, 9.0]), None)).tolist()
      [True, True]
    """
    leaves, structure = jax.tree.flatten(params)
    keys = (jax.random.fold_in(random_key(0), i) for i in range(len(leaves)))
    scores = [jax.random.uniform(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, scores)


random.shared = True  # type: ignore[attr-defined]  # as above

CRITERIA: dict[str, Criterion] = {criterion.__name__: criterion for criterion in (magnitude, weight_gradient, random)}
"""The one table of criteria, which the command line, tests and README read."""
