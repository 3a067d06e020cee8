"""Simulations whose clients stay in host memory: only the cohort of the current round is on the device.

The data and memory of all clients are NumPy arrays or memory-mapped files (``--stream`` on the command line keeps both
in host memory). While a cohort computes, a thread copies the next cohort's data to the device; the key alone determines
its members. The numbers are those of :func:`sps_jax.simulate`, except that an evaluation sums the clients in another
order.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import Layout, place
from sps_jax.problem import Problem
from sps_jax.simulation.choices import with_shared
from sps_jax.simulation.compiling import in_context
from sps_jax.simulation.evaluation import client_means, control_sum, observe_server
from sps_jax.simulation.footprint import shapes
from sps_jax.simulation.going_on import checked, past_of, run_blocks, with_past
from sps_jax.simulation.history import asked_rounds, healthy
from sps_jax.simulation.host import columns, copied, empty, load, parts, put, rows_of
from sps_jax.simulation.hyperparameters import check_params, dtype_of
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.participation import Member, Participants, Shares, drawn
from sps_jax.simulation.per_client import Values, client_values, spread
from sps_jax.simulation.placement import cohort_of, cohort_plan
from sps_jax.simulation.round import Round, init_clients
from sps_jax.simulation.schedule import round_length, split_key
from sps_jax.simulation.state import State
from sps_jax.simulation.watching import Watched, parted
from sps_jax.tree import Tree


@with_shared()
def stream(
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
    folder: str | os.PathLike[str] | None = None,
    **options: Unpack[Watched],
) -> tuple[State, dict[str, np.ndarray]]:
    """Simulate like :func:`sps_jax.simulate` with a cohort per round, while all other clients stay in host memory.

    Args:
      problem: its ``data`` may be NumPy arrays or ``np.memmap``; one cohort is read at a time.
      cohort: the number of clients per round, or a :class:`sps_jax.Cohort`.
      folder: a folder for memory-mapped files of the clients' memory, which are overwritten; None for host memory.
      state: as in :func:`sps_jax.simulate`; its memory is copied, unless it is memory-mapped in ``folder`` already.
      make, hyper, key, rounds, evaluate_every, params, encoding, layout: as in :func:`sps_jax.simulate`.

    Returns:
      The final state, with the clients' memory in NumPy arrays, and the history.

    Raises:
      ValueError: as :func:`sps_jax.simulate`.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, key = quadratic(clients=4, dimension=1), jax.random.key(0)
      >>> state, history = stream(sps.proxskip, problem, {"stepsize": 0.5}, key, rounds=2, local_steps=2, cohort=2)
      >>> history["uplink_bits"].tolist()
      [64, 128]
    """
    past, (watch, choices) = past_of(state, params), parted(options)
    method = prepare(make, hyper, dtype_of(problem), **choices)
    watch.check(problem, params, method)
    evaluated = asked_rounds(rounds, evaluate_every, past.rounds)
    method.check_rounds(past.rounds + rounds)
    specs = shapes(method, problem)
    layout = cohort_plan(method, problem) if layout is None else layout
    if state is None:
        now = start_streaming(method, problem, key, params, folder)
    else:
        now = checked(state, method, problem)
        own = copied(folder, now.memory)
        now = jax.tree.map(jnp.asarray, now._replace(memory=None))._replace(memory=own)
    ahead = stream_rounds(method, layout, problem, key, evaluated, now)

    def run(block: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal now
        taken: list[dict[str, np.ndarray]] = []
        for now, one in itertools.islice(ahead, len(block)):  # noqa: B007
            taken.append(one)
            if not one["finite"]:
                break
        return healthy(columns(taken), block[: len(taken)])

    history, past = run_blocks(run, evaluated, watch, specs, encoding, past)
    return with_past(now, past), history


def start_streaming(
    method: Method,
    problem: Problem,
    key: jax.Array,
    params: Tree | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> State:
    """Return the state before the first round, with all clients' memory on the host; see :func:`stream`."""
    n = problem.clients
    check_params(problem, params)
    params = jax.jit(problem.init)(split_key(key).init) if params is None else params
    server, some = _enrolled(method, params, jnp.arange(1, dtype=jnp.int32), n)
    leaves, structure = jax.tree.flatten(some)
    rooms = [empty(folder, i, (n, *a.shape[1:]), a.dtype) for i, a in enumerate(leaves)]
    memory = jax.tree.unflatten(structure, rooms)
    for who, _ in parts(n, cohort_of(method).size):
        put(memory, who, _enrolled(method, params, jnp.asarray(who.ids), n)[1])
    return State(server, memory, jnp.int32(0), jnp.int32(0))


def stream_rounds(
    method: Method, layout: Layout, problem: Problem, key: jax.Array, evaluated: np.ndarray, state: State
) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
    """Run rounds from ``state``, and yield the state and the metrics after each.

    The metrics are those of :func:`sps_jax.simulation.simulate.run_rounds`, without those of an evaluation in rounds
    that ``evaluated`` (R,), booleans, does not select. The memory in ``state`` holds NumPy arrays; writable ones are
    updated in place.
    """
    n = problem.clients
    clients = jax.tree.map(jnp.asarray, (problem.examples, problem.weights))
    server, t, done = state.server, state.t, state.round
    memory = jax.tree.map(lambda a: np.require(a, requirements="W"), state.memory)
    precise = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # JAX defines its options at import

    def taking_part(who: Member, shares: Shares) -> Participants:
        with jax.enable_x64(precise):  # this setting is per thread
            return Participants(who, load(layout, problem, who, shares.weights), shares)

    with ThreadPoolExecutor(1) as loader:
        who, shares, end = _cohort(method, *clients, key, t, done, problem.ridge)
        ahead = loader.submit(taking_part, who, shares)
        for number, evaluate in enumerate(evaluated, start=1):
            part, begun = ahead.result(), State(server, place(layout, rows_of(memory, who)), t, done)
            t = end
            if number < len(evaluated):
                who, shares, end = _cohort(method, *clients, key, t, done + 1, problem.ridge)
                ahead = loader.submit(taking_part, who, shares)
            (server, own, _, done, _), metrics = _round(method, layout, n, part, begun, key)
            put(memory, part.who, own)
            state = State(server, memory, t, done)
            metrics |= {"iteration": t, "finite": tree.finite(server)}
            if evaluate:
                metrics |= _evaluate(method, layout, problem, state)
            yield state, jax.tree.map(np.asarray, metrics)


@jax.jit
@in_context
def _cohort(
    method: Method,
    examples: jax.Array,
    weights: jax.Array | None,
    key: jax.Array,
    t: jax.Array,
    done: jax.Array,
    like: jax.Array,
) -> tuple[Member, Shares, jax.Array]:
    """Return the members of the round that begins at iteration ``t``, their weights, and the iteration at its end.

    ``done`` rounds came before; ``like`` is any array of the parameters' dtype.
    """
    keys = split_key(key)
    who, shares = drawn(cohort_of(method), keys, (t, done), examples, weights, like.dtype)
    return who, shares, t + round_length(method.schedule.at(done), keys.coin, t)


@partial(jax.jit, static_argnames=("layout", "clients"))
@in_context
def _round(
    method: Method, layout: Layout, clients: int, part: Participants, state: State, key: jax.Array
) -> tuple[State, dict[str, Any]]:
    return Round(method.algorithm(), part, clients, split_key(key), state.round).run(method.schedule, state, layout)


@partial(jax.jit, static_argnames="layout")
@in_context
def _means(method: Method, layout: Layout, some: Problem, state: State) -> tuple[jax.Array, Tree, Tree, Values]:
    algorithm = method.algorithm()
    own = client_values(algorithm, some, state, layout) if method.per_client else {}
    return *client_means(algorithm, some, state, layout), own


@partial(jax.jit, static_argnames="layout")
@in_context
def _observe_server(method: Method, layout: Layout, problem: Problem, server: Tree) -> dict[str, jax.Array]:
    return observe_server(method.algorithm(), problem, server, layout)


@partial(jax.jit, static_argnames="clients")
@in_context
def _enrolled(method: Method, params: Tree, ids: jax.Array, clients: int) -> tuple[Tree, Tree]:
    algorithm = method.algorithm()
    h, server = algorithm.init(params)
    return server, init_clients(algorithm, h, ids, clients)


def _evaluate(method: Method, layout: Layout, problem: Problem, state: State) -> dict[str, Any]:
    """Evaluate like :func:`sps_jax.simulation.evaluation.observe`, one cohort's number of clients at a time."""
    n, dtype = problem.clients, problem.ridge.dtype
    own = np.full(n, 1 / n) if problem.weights is None else np.asarray(problem.weights)
    total: Any = None
    largest, values = 0.0, []
    for who, real in parts(n, cohort_of(method).size):
        weights = np.where(real, own[who.ids], 0)
        share = weights.sum()
        some = load(layout, problem, who, (weights / share).astype(dtype))
        part = state._replace(memory=place(layout, rows_of(state.memory, who)))
        *means, each, mine = _means(method, layout, some, part)
        values.append(jax.tree.map(lambda a, real=real: np.asarray(a)[real], mine))
        here = jax.tree.map(lambda a, share=share: share * np.asarray(a), means)
        total = here if total is None else jax.tree.map(np.add, total, here)
        largest = max([largest, *(np.max(a) for a in jax.tree.leaves(each))])
    loss, mean = total
    bare = replace(problem, data=(), sizes=None, weights=None, smoothness=None, convexity=None)
    metrics = {"train_loss": np.asarray(loss, dtype)} | _observe_server(method, layout, bare, state.server)
    mean, largest = jax.tree.map(jnp.asarray, (mean, np.asarray(largest, dtype)))
    return metrics | control_sum(n, mean, largest) | spread(jax.tree.map(lambda *a: jnp.concatenate(a), *values))
