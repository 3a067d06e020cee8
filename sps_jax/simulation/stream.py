"""Simulations whose clients stay in host memory: only a round's cohort is on the device.

Data and memory of all clients are NumPy arrays or memory-mapped files (``--stream`` on the command line keeps both in
host memory). While a cohort computes, a thread puts the next one's data onto the device; who that is depends on the key
alone. The numbers are those of
:func:`sps_jax.simulate`, but for the order in which an evaluation adds up clients.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import Layout, place
from sps_jax.problem import Problem
from sps_jax.results.files import at_home
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.evaluation import client_means, control_sum, observe_server
from sps_jax.simulation.history import asked_rounds, healthy_history
from sps_jax.simulation.method import Method, in_its_precision, prepare
from sps_jax.simulation.participation import Member, Participants, Shares, drawn
from sps_jax.simulation.placement import choose, shapes
from sps_jax.simulation.round import Round, State, init_clients
from sps_jax.simulation.schedule import round_length, split_key
from sps_jax.tree import Tree


def stream(
    make: Callable[..., Algorithm],
    problem: Problem,
    hyper: Mapping[str, Any],
    key: jax.Array,
    *,
    rounds: int,
    cohort: int | Cohort,
    evaluate_every: int = 1,
    params: Tree | None = None,
    encoding: str = "cheapest",
    layout: Layout | None = None,
    folder: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[State, dict[str, np.ndarray]]:
    """:func:`sps_jax.simulate` of a cohort a round, with all other clients in host memory.

    Args:
      problem: its ``data`` may be NumPy arrays or ``np.memmap``; they are read a cohort at a time.
      cohort: how many clients take part in a round, or a :class:`sps_jax.Cohort`.
      folder: where what clients keep between rounds is in memory-mapped files, written anew; None for host memory.
      options: ``local_steps``, ``transform``, ``transform_on`` and ``matmul_precision``.
      make, hyper, key, rounds, evaluate_every, params, encoding, layout: as for :func:`sps_jax.simulate`.

    Returns:
      The final state, its memory in NumPy arrays, and the history.

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
    method = prepare(make, hyper, problem.ridge.dtype, cohort=cohort, **options)
    asked = asked_rounds(rounds, evaluate_every)
    of = shapes(method, problem)
    layout = cohort_plan(method, problem) if layout is None else layout
    begun, seen = start_streaming(method, problem, key, params, folder), []
    for state, one in stream_rounds(method, layout, problem, key, asked, begun):  # noqa: B007
        seen.append(one)
        if not one["finite"]:
            break
    return state, healthy_history(columns(seen), asked[: len(seen)], of, encoding)[0]


def cohort_of(method: Method) -> Cohort:
    """Who takes part in a round.

    Raises:
      ValueError: for all clients: these are not on the device together.
    """
    if method.cohort is None:
        raise ValueError("cohort must be a number of clients, of whom a round is; without one use simulate")
    return method.cohort


def cohort_plan(method: Method, problem: Problem, **choices: Any) -> Layout:
    """A layout for what is on the device: the cohort. ``choices`` as for :func:`sps_jax.choose`."""
    size = cohort_of(method).size
    data, counts = tuple(a[:size] for a in problem.data), problem.counts[:size]
    some = replace(problem, data=data, counts=counts, sizes=None, weights=None)
    layout = choose(shapes(method, problem)._replace(cohort=None), some, **choices)
    return layout._replace(
        chunk=layout.chunk or size // layout.devices
    )  # None would be all clients to who predicts memory


def columns(seen: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What was seen round by round as arrays (R, ...), zeros where nothing was asked for."""
    shapes = {"train_loss": np.zeros(())} | {name: value for one in seen for name, value in one.items()}
    return {name: np.stack([one.get(name, np.zeros_like(like)) for one in seen]) for name, like in shapes.items()}


def on_host(problem: Problem) -> Problem:
    """``problem`` with the clients' data in NumPy arrays, without a copy where they are on a CPU."""
    return replace(problem, data=tuple(np.asarray(a) for a in problem.data))  # type: ignore[misc]  # one or the other


def start_streaming(
    method: Method,
    problem: Problem,
    key: jax.Array,
    params: Tree | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> State:
    """The state before the first round, every client's memory on the host: see :func:`stream`."""
    n = problem.clients
    params = jax.jit(problem.init)(split_key(key).init) if params is None else params
    server, some = _enrolled(method, params, jnp.arange(1, dtype=jnp.int32), n)
    leaves, structure = jax.tree.flatten(some)
    rooms = [_room(folder, i, (n, *a.shape[1:]), a.dtype) for i, a in enumerate(leaves)]
    memory = jax.tree.unflatten(structure, rooms)
    for who, _ in _parts(n, cohort_of(method).size):
        _put(memory, who, _enrolled(method, params, jnp.asarray(who.ids), n)[1])
    return State(server, memory, jnp.int32(0))


def _room(folder: str | os.PathLike[str] | None, number: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be written: in host memory, or the file of this number in ``folder``."""
    if folder is None or 0 in shape:  # no file can be mapped that is empty
        return np.empty(shape, dtype)
    folder = at_home(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(folder / f"memory-{number}.npy", "w+", dtype, shape)


def stream_rounds(
    method: Method, layout: Layout, problem: Problem, key: jax.Array, asked: np.ndarray, state: State
) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
    """Round after round from ``state``: the state then, and what was seen, as by
    :func:`sps_jax.simulation.simulate.run_rounds`; no evaluation in rounds that are not ``asked`` for one.

    The memory in ``state`` is of NumPy arrays, and changes in its place where these can be written.
    """
    n = problem.clients
    clients = jax.tree.map(jnp.asarray, (problem.examples, problem.weights))
    server, memory, t = state
    memory = jax.tree.map(lambda a: np.require(a, requirements="W"), memory)
    precise = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # options are made at import

    def load(who: Member, shares: Shares) -> Participants:
        with jax.enable_x64(precise):  # a setting of each thread
            return Participants(who, _load(layout, problem, who, shares.weights), shares)

    with ThreadPoolExecutor(1) as loader:
        who, shares, end = _cohort(method, *clients, key, t, problem.ridge)
        ahead = loader.submit(load, who, shares)
        for number, look in enumerate(asked, start=1):
            part, begun = ahead.result(), State(server, place(layout, _rows(memory, who)), t)
            t = end
            if number < len(asked):
                who, shares, end = _cohort(method, *clients, key, t, problem.ridge)
                ahead = loader.submit(load, who, shares)
            (server, own, _), seen = _round(method, layout, n, part, begun, key)
            _put(memory, part.who, own)
            state = State(server, memory, t)
            seen |= {"iteration": t, "finite": tree.finite(server)}
            if look:
                seen |= _evaluate(method, layout, problem, state)
            yield state, jax.tree.map(np.asarray, seen)


@jax.jit
@in_its_precision
def _cohort(
    method: Method, examples: jax.Array, weights: jax.Array | None, key: jax.Array, t: jax.Array, like: jax.Array
) -> tuple[Member, Shares, jax.Array]:
    """Who takes part in the round that begins at iteration ``t``, for how much, and the iteration at which it ends.

    ``like`` is of the dtype of the parameters.
    """
    keys = split_key(key)
    who, shares = drawn(cohort_of(method), keys, t, examples, weights, like.dtype)
    return who, shares, t + round_length(method.schedule, keys.coin, t)


@partial(jax.jit, static_argnames=("layout", "clients"))
@in_its_precision
def _round(
    method: Method, layout: Layout, clients: int, part: Participants, state: State, key: jax.Array
) -> tuple[State, dict[str, Any]]:
    return Round(method.algorithm(), part, clients, split_key(key)).run(method.schedule, state, layout)


@partial(jax.jit, static_argnames="layout")
@in_its_precision
def _means(method: Method, layout: Layout, some: Problem, state: State) -> tuple[jax.Array, Tree, Tree]:
    return client_means(method.algorithm(), some, state, layout)


@partial(jax.jit, static_argnames="layout")
@in_its_precision
def _observe_server(method: Method, layout: Layout, problem: Problem, server: Tree) -> dict[str, jax.Array]:
    return observe_server(method.algorithm(), problem, server, layout)


@partial(jax.jit, static_argnames="clients")
@in_its_precision
def _enrolled(method: Method, params: Tree, ids: jax.Array, clients: int) -> tuple[Tree, Tree]:
    algorithm = method.algorithm()
    h, server = algorithm.init(params)
    return server, init_clients(algorithm, h, ids, clients)


def _rows(stacked: Tree, who: Member) -> Tree:
    ids = np.asarray(who.ids)
    return jax.tree.map(lambda a: a[ids], stacked)


def _put(memory: Tree, who: Member, own: Tree) -> None:
    ids = np.asarray(who.ids)
    for a, new in zip(jax.tree.leaves(memory), jax.tree.leaves(own), strict=True):
        a[ids] = np.asarray(new)


def _load(layout: Layout, problem: Problem, who: Member, weights: Any) -> Problem:
    """The problem of these clients, on the device, with these weights."""
    held = replace(problem, data=(), weights=None, test=None, validation=None, smoothness=None, convexity=None)
    data, counts, sizes = _rows((problem.data, np.asarray(problem.counts), problem.sizes), who)
    data = _own_padding(data, counts)
    data, counts, sizes, weights = place(layout, jax.tree.map(jnp.asarray, (data, counts, sizes, weights)))
    return replace(held, data=data, counts=counts, sizes=sizes, weights=weights)


def _own_padding(data: tuple[np.ndarray, ...], counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows of a cohort, a copy, with each client's first example behind its last one; see :class:`Problem`."""
    padding = np.arange(data[0].shape[1]) >= counts[:, None]
    client, _ = np.nonzero(padding)
    if not len(client):
        return data
    data = tuple(np.require(a, requirements="W") for a in data)
    for a in data:
        a[padding] = a[client, 0]
    return data


def _parts(n: int, size: int) -> Iterator[tuple[Member, np.ndarray]]:
    """All n clients, ``size`` at a time, and which of them count: the last ones are filled up."""
    for first in range(0, n, size):
        ids = np.arange(first, first + size, dtype=np.int32)
        some = np.minimum(ids, n - 1), np.arange(size, dtype=np.int32)
        yield Member(*some), ids < n  # type: ignore[arg-type]  # rows of NumPy arrays


def _evaluate(method: Method, layout: Layout, problem: Problem, state: State) -> dict[str, Any]:
    """:func:`sps_jax.simulation.evaluation.observe`, of as many clients at a time as a cohort has."""
    n, dtype = problem.clients, problem.ridge.dtype
    own = np.full(n, 1 / n) if problem.weights is None else np.asarray(problem.weights)
    total: Any = None
    largest = 0.0
    for who, real in _parts(n, cohort_of(method).size):
        weights = np.where(real, own[who.ids], 0)
        share = weights.sum()
        some = _load(layout, problem, who, (weights / share).astype(dtype))
        part = state._replace(memory=place(layout, _rows(state.memory, who)))
        *means, each = _means(method, layout, some, part)
        here = jax.tree.map(lambda a, share=share: share * np.asarray(a), means)
        total = here if total is None else jax.tree.map(np.add, total, here)
        largest = max([largest, *(np.max(a) for a in jax.tree.leaves(each))])
    loss, mean = total
    bare = replace(problem, data=(), sizes=None, weights=None, smoothness=None, convexity=None)
    seen = {"train_loss": np.asarray(loss, dtype)} | _observe_server(method, layout, bare, state.server)
    mean, largest = jax.tree.map(jnp.asarray, (mean, np.asarray(largest, dtype)))
    return seen | control_sum(n, mean, largest)
