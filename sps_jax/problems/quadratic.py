"""A quadratic problem for which ProxSkip's rate is known exactly."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.layout import by_client
from sps_jax.problem import Problem
from sps_jax.tree import Tree


def quadratic(
    *, clients: int = 10, dimension: int = 20, mu: float = 1.0, data_seed: int = 0, precision: str = "float32"
) -> Problem:
    r"""f_i(x) = mu/2 ||x - a_i||^2 with a_i ~ N(0, I); every L_i is mu, and x* is the mean of the a_i.

    With step size :math:`\gamma` and :math:`p^2 = 1 - (1 - \gamma\mu)^2`, each iteration multiplies ProxSkip's expected
    Lyapunov function by exactly :math:`(1 - \gamma\mu)^2`. The initial x is 0.

    Args:
      clients: n.
      dimension: number of entries of x.
      mu: curvature, positive.
      data_seed: seed of the a_i.
      precision: float32 or float64.
    """
    for name, value in (("clients", clients), ("dimension", dimension)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not 0 < mu < np.inf:
        raise ValueError(f"mu must be positive and finite, not {mu:g}")
    if mu < jnp.finfo(precision).tiny:
        raise ValueError(f"mu must be positive, but {mu:g} is zero in {precision}")
    centres = np.random.default_rng(data_seed).normal(size=(clients, 1, dimension, 1))
    root = np.sqrt(mu)
    roots = np.full((clients, 1), root)
    return Problem(
        data=by_client(clients, lambda own: tuple(jnp.asarray(a[own], precision) for a in (root * centres, roots))),
        counts=jnp.ones(clients, jnp.int32),
        test=None,
        ridge=jnp.zeros((), precision),
        smoothness=jnp.full(clients, mu, precision),
        convexity=jnp.asarray(mu, precision),
        init=_zero(dimension, precision),
        loss=_half_square,
    )


def _zero(dimension: int, precision: str) -> Callable[[jax.Array], dict[str, jax.Array]]:
    return lambda key: {"x": jnp.zeros((dimension, 1), precision)}


def _half_square(params: Tree, target: jax.Array, root: jax.Array) -> jax.Array:
    # ||root x - target||^2 / 2 with root = sqrt(mu), target = sqrt(mu) a_i: a new mu does not recompile
    return jnp.sum((root[:, None, None] * params["x"][None] - target) ** 2, axis=(1, 2)) / 2
