"""Logistic regression on any number of synthetic clients."""

from typing import Unpack

import jax.numpy as jnp
import numpy as np

from sps_jax.layout import by_client
from sps_jax.models import linear
from sps_jax.problem import Problem
from sps_jax.problems.losses import LOSSES, loss_of, metrics_of
from sps_jax.problems.shared import Drawn
from sps_jax.problems.supervised import held_in
from sps_jax.simulation.choices import with_shared

BLOCK = 10_000
"""The number of clients that are drawn together, from one seed."""


@with_shared(clients=100)
def synthetic_logistic(
    *,
    examples: int = 10,
    features: int = 40,
    heterogeneity: float = 0.2,
    informative: float = 0.1,
    ridge: float = 1e-3,
    **shared: Unpack[Drawn],
) -> Problem:
    r"""Binary logistic regression on synthetic clients, up to millions.

    An example of client i is a draw :math:`a \sim N(\delta v_i, I)`, scaled to norm one, with :math:`y = 1` with
    probability :math:`\sigma(10 \langle w + \delta u_i, a \rangle)`, sigma being the logistic function, and else 0. The
    :math:`u_i`, :math:`v_i` and the nonzeros of w are drawn from :math:`N(0, I)`. More clients leave the first ones
    unchanged. Up to 10,000 test examples come from other clients. The problem's smoothness is a bound:
    :math:`L_i \le 1/4 + \rho`.

    Args:
      examples: number of examples per client.
      features: d.
      heterogeneity: delta >= 0; with 0 all clients have the same distribution.
      informative: fraction of the features on which w is not zero, in (0, 1].
      ridge: rho >= 0.
      data_seed: seed of everything drawn.
    """
    clients, batch_size = shared["clients"], shared["batch_size"]
    data_seed, precision = shared["data_seed"], shared["precision"]
    counted = {"clients": clients, "examples": examples, "features": features, "batch_size": batch_size}
    for name, value in counted.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    for name, weight in (("heterogeneity", heterogeneity), ("ridge", ridge)):
        if not 0 <= weight < np.inf:
            raise ValueError(f"{name} must be finite and not negative, not {weight:g}")
    if not 0 < informative <= 1:
        raise ValueError(f"informative must be in (0, 1], not {informative:g}")
    dtype, w = held_in(precision), np.zeros(features, np.float32)
    drawn = np.random.default_rng([data_seed, 0]).standard_normal(max(1, round(informative * features)))
    w[: len(drawn)] = drawn

    def rows(own: slice) -> tuple[np.ndarray, np.ndarray]:
        many = own.stop - own.start
        x, y = np.empty((many, examples, features), dtype), np.empty((many, examples), dtype)
        for first in range(own.start - own.start % BLOCK, own.stop, BLOCK):
            here = slice(max(first, own.start), min(first + BLOCK, own.stop))
            block = _block(w, examples, heterogeneity, [data_seed, 1, first // BLOCK])
            for a, made in zip((x, y), block, strict=True):
                a[here.start - own.start : here.stop - own.start] = made[here.start - first : here.stop - first]
        return x, y

    held = _block(w, examples, heterogeneity, [data_seed, 2, 0])
    test = tuple(a.reshape(BLOCK * examples, *a.shape[2:])[:10_000].astype(dtype) for a in held)
    model = linear(features, 1, bias=False, dtype=precision)
    return Problem(
        data=by_client(clients, rows),
        counts=jnp.full(clients, examples, jnp.int32),
        test=tuple(map(jnp.asarray, test)),
        ridge=jnp.asarray(ridge, dtype),
        smoothness=jnp.full(clients, LOSSES["logistic"].curvature + ridge, dtype),
        convexity=jnp.asarray(ridge, dtype) if ridge else None,
        init=model.init,
        loss=loss_of(model, "logistic"),
        metrics=metrics_of(model, "logistic"),
        batch_size=batch_size,
    )


def _block(w: np.ndarray, examples: int, heterogeneity: float, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples of BLOCK clients, (BLOCK, m, d) and (BLOCK, m)."""
    draw = np.random.default_rng(seed)
    u, v = (heterogeneity * draw.standard_normal((BLOCK, len(w)), np.float32) for _ in range(2))
    x = draw.standard_normal((BLOCK, examples, len(w)), np.float32) + v[:, None]
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    chance = 1 / (1 + np.exp(-10 * np.einsum("nmd,nd->nm", x, w + u)))
    return x, (draw.random((BLOCK, examples), np.float32) < chance).astype(np.float32)
