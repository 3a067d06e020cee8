"""What entries are ranked by. A criterion is one function ``score(params, gradient) -> scores``.

Params, gradient and scores are pytrees of one structure, shapes and dtypes; ``gradient`` is None where there is none,
as at the server. The *magnitude* of a score counts: the largest are kept, ties in favour of the lowest index. Two
attributes say more of a criterion, both false where it has none:

* ``wants_gradient``: it is given the client's gradient at params where there is one, which costs that gradient.
* ``shared``: its scores depend on shapes alone, so that every client and the server keep the same positions and need
  not tell them.
"""

from collections.abc import Callable

import jax

from sps_jax.layout import random_key
from sps_jax.tree import Tree

Criterion = Callable[[Tree, Tree | None], Tree]


def magnitude(params: Tree, gradient: Tree | None) -> Tree:
    """The largest weights: TopK.

    Example:
      >>> import jax.numpy as jnp
      >>> magnitude(jnp.array([-3.0, 2.0]), None).tolist()
      [-3.0, 2.0]
    """
    return params


def weight_gradient(params: Tree, gradient: Tree | None) -> Tree:
    r"""The largest weight x gradient, on the batch at hand; where there is no gradient, as at the server, TopK.

    To first order what the loss changes by if w is set to zero: the connection sensitivity of SNIP (Lee et al. 2019,
    arXiv 1810.02340), the Taylor criterion of Molchanov et al. (2017, arXiv 1611.06440). The clients rank by it when
    they take a gradient at the pruned model and when they send, on the batch at hand; after a local step and at the
    server there is no gradient, and the magnitude ranks.

    Example:
      >>> import jax.numpy as jnp
      >>> weight_gradient(jnp.array([-3.0, 2.0]), jnp.array([1.0, 5.0])).tolist()
      [-3.0, 10.0]
    """
    return params if gradient is None else jax.tree.map(lambda w, g: w * g, params, gradient)


weight_gradient.wants_gradient = True  # type: ignore[attr-defined]  # the checker knows no attributes of functions


def random(params: Tree, gradient: Tree | None) -> Tree:
    """The same random weights for all clients, all rounds and the server, so that no positions are sent.

    Scores are uniform numbers from a fixed key; masks of different sparsities are nested. Only nonzeros are counted as
    sent: a kept weight that is exactly zero, such as that of a pixel that is never lit, costs nothing.

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
"""The one table of criteria: command line, tests and README read it."""
