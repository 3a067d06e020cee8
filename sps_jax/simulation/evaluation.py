"""Evaluation of a simulation: losses, metrics, densities, and the sum of the control variates."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import VMAP, Layout, over_clients
from sps_jax.problem import Problem
from sps_jax.simulation.per_client import client_values, spread
from sps_jax.simulation.state import State
from sps_jax.tree import Tree


def model_of(algorithm: Algorithm, state: Any) -> Tree:
    """Return the parameters of the model that an algorithm ships: the one that is evaluated, C(server's) if it prunes.

    Args:
      algorithm: with the hyperparameters of the simulation, such as ``sps.proxskip(stepsize=0.5, prob=0.1)``.
      state: from :func:`sps_jax.simulate`, :func:`sps_jax.stream` or :func:`sps_jax.iterate`.

    Example:
      >>> import sps_jax as sps
      >>> problem, hyper = sps.problems.quadratic(clients=2, dimension=1), {"stepsize": 0.5, "prob": 1.0}
      >>> state, _ = sps.simulate(sps.proxskip, problem, hyper, jax.random.key(0), rounds=1)
      >>> model_of(sps.proxskip(**hyper), state)["x"].shape
      (1, 1)
    """
    return algorithm.model(state.server)


def observe(
    algorithm: Algorithm, problem: Problem, state: State, layout: Layout = VMAP, per_client: bool = False
) -> dict[str, jax.Array]:
    """Return the metrics of one evaluation, all scalars.

    These are the problem's losses and metrics of the shipped model; ``density``, its fraction of nonzeros;
    ``average_density``, the fraction of nonzeros among the floats that the server broadcasts; and, if the algorithm has
    control variates, ``control_sum``, :math:`\\max|\\sum_i h_i| / \\max_i|h_i|` (with client weights the sum is
    :math:`n \\sum_i w_i h_i`). ``per_client`` adds those of :mod:`sps_jax.simulation.per_client`.
    """
    metrics = observe_server(algorithm, problem, state.server, layout)
    loss, total, each = client_means(algorithm, problem, state, layout)
    each_own = spread(client_values(algorithm, problem, state, layout), layout) if per_client else {}
    return {"train_loss": loss} | metrics | control_sum(problem.clients, total, each) | each_own


def observe_server(algorithm: Algorithm, problem: Problem, server: Tree, layout: Layout) -> dict[str, jax.Array]:
    """Return the metrics of one evaluation that need no client data or memory."""
    model, b = algorithm.model(server), algorithm.broadcast(server)
    # or XLA would merge the products of held-out and training data with the model, and concatenate the data for it
    metrics = problem.evaluate_held(lax.optimization_barrier(model), layout)
    for name, arrays in (("density", model), ("average_density", tree.floats(b))):
        metrics[name] = tree.nonzeros(arrays).astype(problem.ridge.dtype) / tree.size(arrays)
    return metrics


def client_means(algorithm: Algorithm, problem: Problem, state: State, layout: Layout) -> tuple[jax.Array, Tree, Tree]:
    """Return f at the shipped model, the mean control variates, and the largest magnitude of each client's."""

    def control(server: Tree, h: Tree, _: jax.Array) -> tuple[Tree, Tree]:
        variates = algorithm.control(h, server)
        return variates, jax.tree.map(lambda a: jnp.max(jnp.abs(a)), variates)

    # counts gives over_clients a clients axis even if the clients keep no memory
    mean, each = over_clients(layout, control, problem.weights, state.server, state.memory, problem.counts)
    return problem.objective(algorithm.model(state.server), layout), mean, each


def control_sum(clients: int, mean: Tree, each: Tree) -> dict[str, jax.Array]:
    """Return ``control_sum``, see :func:`observe`, or an empty dict if the algorithm has no control variates."""
    if not jax.tree.leaves(mean):
        return {}
    total, largest = clients * tree.largest(mean), tree.largest(each)
    return {"control_sum": jnp.where(largest > 0, total / jnp.where(largest > 0, largest, 1), 0)}
