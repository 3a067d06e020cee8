r"""How the models serve each client: quantiles, worst decile and variance of the metrics over the clients.

With ``per_client=True`` (``--per-client``) an evaluation also computes each metric on each client's own training data
(on as many examples as the training loss), without the ridge, and records of its n values, each client counting once:

* ``per_client_p10_<metric>``, ``p50`` and ``p90``: the 10, 50 and 90 % quantiles, interpolated linearly;
* ``per_client_worst_<metric>``: the mean over the worst tenth of the clients, :math:`\lceil n/10 \rceil` of them;
* ``per_client_<metric>_variance``: :math:`\frac1n \sum_i (v_i - \bar v)^2`.

They are those of the shipped model. A personalised method, one with ``personal``, has them too of each client's own
model, as ``per_client_own_p10_<metric>`` and so on. Tables, pictures, ``--target`` and ``--stop-at`` take these names.
The n values exist on the device, during an evaluation only.

Source: the statistics are those of Li et al. 2020, Fair resource allocation in federated learning, arXiv 1905.10497.
"""

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import VMAP, Layout, over_clients, replicate
from sps_jax.problem import Problem
from sps_jax.results import larger_is_better
from sps_jax.simulation.method import Method
from sps_jax.simulation.round import start
from sps_jax.simulation.state import State
from sps_jax.simulation.work import Abstract
from sps_jax.tree import Tree

QUANTILES = (10, 50, 90)
"""In percent."""
Values = dict[str, dict[str, jax.Array]]
"""Prefix of the names -> metric -> (n,), a number for each client."""


def client_values(algorithm: Algorithm, problem: Problem, state: State, layout: Layout = VMAP) -> Values:
    """Return each client's metrics on its own data: of the shipped model and, if the method is personal, of its own."""

    def one(shared: tuple[Tree, Tree], h: Tree, data: tuple[jax.Array, ...], count: jax.Array) -> tuple[Tree, Values]:
        server, model = shared
        models, own = {"per_client": model}, algorithm.personal(h, server)
        if jax.tree.leaves(own):
            models["per_client_own"] = own
        return (), {whose: problem.client_metrics(params, data, count) for whose, params in models.items()}

    shared = state.server, algorithm.model(state.server)
    return over_clients(layout, one, None, shared, state.memory, *problem.evaluated)[1]


def spread(values: Values, layout: Layout = VMAP) -> dict[str, jax.Array]:
    """Return the statistics over the clients, scalars by name; see the module.

    Example:
      >>> found = spread({"per_client": {"accuracy": jnp.arange(21.0) / 20}})
      >>> [round(float(found[f"per_client_{name}_accuracy"]), 3) for name in ("p10", "p50", "p90", "worst")]
      [0.1, 0.5, 0.9, 0.05]
    """
    found: dict[str, jax.Array] = {}
    for whose, metrics in values.items():
        for metric, each in metrics.items():
            each = jnp.sort(replicate(layout, each))
            worst = -(-len(each) // 10)
            shares = jnp.asarray(QUANTILES, each.dtype) / 100
            named = dict(zip(QUANTILES, jnp.quantile(each, shares), strict=True))
            found |= {f"{whose}_p{percent}_{metric}": value for percent, value in named.items()}
            few = each[:worst] if larger_is_better(metric) else each[len(each) - worst :]
            found[f"{whose}_worst_{metric}"] = jnp.mean(few)
            # the square of a large finite loss overflows, and JSON has no infinity
            found[f"{whose}_{metric}_variance"] = jnp.minimum(jnp.var(each), jnp.finfo(each.dtype).max)
    return found


def names(method: Method, problem: Problem) -> list[str]:
    """Return the names of the statistics that a simulation records, none unless asked for; nothing is computed.

    Example:
      >>> import sps_jax as sps
      >>> problem = sps.problems.quadratic(clients=3, dimension=2)
      >>> names(sps.prepare(sps.gd, {"stepsize": 0.5}, jnp.float32, per_client=True), problem)[-1]
      'per_client_worst_loss'
    """
    if not method.per_client:
        return []

    def trace(method: Method, problem: Problem) -> dict[str, jax.Array]:
        algorithm = method.algorithm()
        return spread(client_values(algorithm, problem, start(algorithm, problem, jax.random.key(0))))

    return list(jax.eval_shape(trace, *Abstract.of(method, problem).both))
