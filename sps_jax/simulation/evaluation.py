"""What an evaluation records of a simulation: losses, metrics, densities, the sum of control variates."""

import jax
import jax.numpy as jnp

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import VMAP, Layout, over_clients
from sps_jax.problem import Problem
from sps_jax.simulation.round import State
from sps_jax.tree import Tree


def observe(algorithm: Algorithm, problem: Problem, state: State, layout: Layout = VMAP) -> dict[str, jax.Array]:
    """What an evaluation records, all scalars.

    The problem's losses and metrics of the shipped model; ``density``, its fraction of nonzeros; ``average_density``,
    that of the floats the server broadcasts; and ``control_sum``, :math:`\\max|\\sum_i h_i| / \\max_i|h_i|` where
    the algorithm has control variates (with client weights, :math:`n \\sum_i w_i h_i`).
    """
    seen = observe_server(algorithm, problem, state.server, layout)
    loss, total, each = client_means(algorithm, problem, state, layout)
    return {"train_loss": loss} | seen | control_sum(problem.clients, total, each)


def observe_server(algorithm: Algorithm, problem: Problem, server: Tree, layout: Layout) -> dict[str, jax.Array]:
    """Of an evaluation what needs no client."""
    model, b = algorithm.model(server), algorithm.broadcast(server)
    seen = problem.evaluate_held(model, layout)
    for name, thing in (("density", model), ("average_density", tree.floats(b))):
        seen[name] = tree.nonzeros(thing).astype(problem.ridge.dtype) / tree.size(thing)
    return seen


def client_means(algorithm: Algorithm, problem: Problem, state: State, layout: Layout) -> tuple[jax.Array, Tree, Tree]:
    """Means over clients: f of the shipped model, the control variates, and the largest magnitude of each client's."""

    def control(server: Tree, h: Tree, _: jax.Array) -> tuple[Tree, Tree]:
        variates = algorithm.control(h, server)
        return variates, jax.tree.map(lambda a: jnp.max(jnp.abs(a)), variates)

    # the counts have a clients axis where the memory is empty
    mean, each = over_clients(layout, control, problem.weights, state.server, state.memory, problem.counts)
    return problem.objective(algorithm.model(state.server), layout), mean, each


def control_sum(clients: int, mean: Tree, each: Tree) -> dict[str, jax.Array]:
    """``control_sum`` of n clients' control variates where there are some, see :func:`observe`."""
    if not jax.tree.leaves(mean):
        return {}
    total, largest = clients * tree.largest(mean), tree.largest(each)
    return {"control_sum": jnp.where(largest > 0, total / jnp.where(largest > 0, largest, 1), 0)}
