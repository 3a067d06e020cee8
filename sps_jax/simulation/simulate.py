"""Simulate an algorithm on a problem for a number of rounds, as one compiled program."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import VMAP, Layout, constrain, place, replicate
from sps_jax.problem import Problem
from sps_jax.simulation.choices import with_shared
from sps_jax.simulation.compiling import compiler_options, in_context
from sps_jax.simulation.evaluation import observe
from sps_jax.simulation.footprint import shapes
from sps_jax.simulation.going_on import checked, past_of, run_blocks, with_past
from sps_jax.simulation.history import asked_rounds
from sps_jax.simulation.hyperparameters import check_params, dtype_of
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.placement import choose
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.stacking import foreign_padding, repeat_first
from sps_jax.simulation.state import State
from sps_jax.simulation.watching import Watched, parted
from sps_jax.tree import Tree


@partial(jax.jit, static_argnames="layout", donate_argnames="state", compiler_options=compiler_options())
@in_context
def run_rounds(
    method: Method, layout: Layout, problem: Problem, state: State, key: jax.Array, evaluated: jax.Array
) -> tuple[State, dict[str, jax.Array]]:
    """Run R rounds, and evaluate those that ``evaluated`` (R,), booleans, selects.

    Returns:
      The final state, and metrics (R, ...): ``iteration``; ``up`` and ``down``, the message counts; ``finite``, whether
      the server's state is finite; and the metrics of :func:`observe`, which are zero in rounds not evaluated.
    """
    return _scan_rounds(method, layout, problem, state, key, evaluated)


@partial(jax.jit, static_argnames=("layout", "mesh", "one_coin"), compiler_options=compiler_options())
@in_context
def run_points(
    method: Method, layout: Layout, mesh: Mesh, one_coin: bool, problem: Problem, key: jax.Array, evaluated: jax.Array
) -> dict[str, jax.Array]:
    """Run (D, c) whole simulations that differ in hyperparameters and seed: on D devices, c under one ``vmap`` each.

    The points of a device share everything that a loop's length depends on, so that ``vmap`` does not turn loops and
    branches into masked ones.

    Args:
      method: its numbers have shape (D, c), but ``prob`` and the schedule have shape (D,).
      layout: the layout of a point's clients on its device.
      mesh: a mesh of D devices.
      one_coin: whether the points of a device share the key, which they must if a coin decides when to communicate.
      problem: the problem, the same for all points.
      key: (D,) if ``one_coin``, else (D, c).
      evaluated: as in :func:`run_rounds`.

    Returns:
      The metrics of :func:`run_rounds`, (D, c, R, ...).
    """
    hyper: Any = {name: None if name == "prob" else 0 for name in method.hyper}
    schedule: Any = None
    axes = replace(method, hyper=hyper, schedule=schedule)

    def on_one_device(problem: Problem, own: Any) -> dict[str, jax.Array]:
        methods, key = jax.tree.map(lambda a: a[0], own)

        def point(method: Method, key: jax.Array) -> dict[str, jax.Array]:
            first = start(method.algorithm(), problem, key)
            return _scan_rounds(method, layout, problem, first, key, evaluated)[1]

        metrics = jax.vmap(point, in_axes=(axes, None if one_coin else 0))(methods, key)
        return jax.tree.map(lambda a: a[None], metrics)

    everywhere, split = PartitionSpec(), PartitionSpec(*mesh.axis_names)
    mapped = jax.shard_map(on_one_device, mesh=mesh, check_vma=False, in_specs=(everywhere, split), out_specs=split)
    return mapped(problem, (method, key))


def _scan_rounds(
    method: Method, layout: Layout, problem: Problem, state: State, key: jax.Array, evaluated: jax.Array
) -> tuple[State, dict[str, jax.Array]]:
    algorithm = method.algorithm()

    def body(state: State, evaluated: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        state, metrics = one_round(algorithm, problem, method.schedule, state, key, layout, method.cohort)
        metrics |= {"iteration": state.t, "finite": tree.finite(state.server)}
        evaluate = partial(observe, algorithm, problem, layout=layout, per_client=method.per_client)
        blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(evaluate, state))
        return state, metrics | lax.cond(evaluated, evaluate, lambda _: blank, state)

    state, metrics = lax.scan(body, state, evaluated)
    return state, replicate(layout, metrics)


@partial(jax.jit)
@in_context
def shipped(method: Method, server: Tree) -> Tree:
    """Return the model that the method ships, :func:`sps_jax.model_of`."""
    return method.algorithm().model(server)


def start_rounds(
    method: Method, problem: Problem, key: jax.Array, params: Tree | None = None, layout: Layout = VMAP
) -> State:
    """Return the state before the first round (:func:`start`), with the clients' memory sharded by ``layout``.

    It is jitted, and ``problem.init`` separately, so that all methods share it: for a deep network compiling it takes
    seconds, and running it without jit takes longer.
    """
    check_params(problem, params)
    params = jax.jit(problem.init)(split_key(key).init) if params is None else params
    return _start_rounds(method, layout, problem, key, params)


@partial(jax.jit, static_argnames="layout")
@in_context
def _start_rounds(method: Method, layout: Layout, problem: Problem, key: jax.Array, params: Tree | None) -> State:
    state = start(method.algorithm(), problem, key, params)
    return state._replace(memory=constrain(layout, state.memory))


def shard_problem(layout: Layout, problem: Problem) -> Problem:
    """Return ``problem`` with its clients sharded over the layout's devices, and padded with their own examples.

    Does nothing if both hold already.

    Example:
      >>> from sps_jax.problems import quadratic
      >>> shard_problem(Layout(), quadratic(clients=4, dimension=2)).clients
      4
    """
    stacked = problem.data, problem.counts, problem.sizes, problem.weights
    data, counts, sizes, weights = place(layout, stacked)
    return own_padding(replace(problem, data=data, counts=counts, sizes=sizes, weights=weights))


def own_padding(problem: Problem) -> Problem:
    """Return ``problem`` with each client padded by its own first example, see :class:`sps_jax.problem.Problem`."""
    if not _foreign_padding(problem.data, problem.counts):
        return problem
    return replace(problem, data=_repeat_first(problem.data, problem.counts))


_foreign_padding, _repeat_first = jax.jit(foreign_padding), jax.jit(repeat_first)


@with_shared()
def simulate(
    make: Callable[..., Algorithm],
    problem: Problem,
    hyper: Mapping[str, Any],
    key: jax.Array,
    *,
    rounds: int,
    evaluate_every: int = 1,
    params: Tree | None = None,
    encoding: str = "cheapest",
    layout: Layout | None = None,
    state: State | None = None,
    **options: Unpack[Watched],
) -> tuple[State, dict[str, np.ndarray]]:
    """Run an algorithm on a problem for a number of communication rounds.

    A pure function: the same arguments give the same numbers, bit for bit on one machine.

    Args:
      make: the algorithm's factory, from the table ``ALGORITHMS`` or your own.
      problem: stacked client data with a loss.
      hyper: the factory's keyword arguments, ``dict(stepsize=0.1, prob=0.1, sparsity=0.9)``. Changing a number does not
        recompile. For an algorithm with a sparsity, ``sparsity_rounds=T`` grows it over the first T rounds, see
        :func:`sps_jax.algorithms.ramped.cubic`.
      key: a JAX random key.
      rounds: the number of communication rounds.
      evaluate_every: the number of rounds between evaluations; the last round is always evaluated.
      params: the starting point; None for the problem's.
      encoding: how messages are encoded, see :mod:`sps_jax.compression.bits`.
      layout: how the clients are mapped onto devices and chunks, which never changes what is computed; None for the
        choice of :func:`sps_jax.choose`.
      state: a state that ``simulate`` or :func:`sps_jax.stream` returned for the same arguments, to go on from: rounds,
        bits and random numbers continue, so that the histories joined are those of one simulation. None to begin.

    Returns:
      The final state, and the history of these rounds as NumPy columns, see
      :func:`sps_jax.simulation.history.tabulate` and :func:`sps_jax.simulation.evaluation.observe`.

    Raises:
      ValueError: if a hyperparameter is unknown, missing or out of range, ``state`` is of another simulation, or
        ``stop_at`` or ``best_by`` names no column of the history.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, key = quadratic(clients=2, dimension=1), jax.random.key(0)
      >>> state, history = simulate(sps.proxskip, problem, {"stepsize": 0.5}, key, rounds=3, local_steps=2)
      >>> history["iteration"].tolist(), history["uplink_bits"].tolist()
      ([2, 4, 6], [64, 128, 192])
      >>> simulate(sps.proxskip, problem, {"stepsize": 0.5}, key, rounds=1, local_steps=2, state=state)[1]["round"]
      array([4])
    """
    past, (watch, choices) = past_of(state, params), parted(options)
    method = prepare(make, hyper, dtype_of(problem), **choices)
    watch.check(problem, params, method)
    evaluated = asked_rounds(rounds, evaluate_every, past.rounds)
    method.check_rounds(past.rounds + rounds)
    specs = shapes(method, problem)
    layout = choose(specs, problem) if layout is None else layout
    problem = shard_problem(layout, problem)
    if state is None:
        now = start_rounds(method, problem, key, params, layout)
    else:  # a copy, because the state is donated
        now = jax.tree.map(lambda a: jnp.array(a, copy=True), checked(state, method, problem))
        now = now._replace(memory=place(layout, now.memory))

    def run(block: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal now
        now, metrics = run_rounds(method, layout, problem, now, key, jnp.asarray(block))
        return jax.tree.map(np.asarray, metrics)

    history, past = run_blocks(run, evaluated, watch, specs, encoding, past)
    return with_past(now, past), history
