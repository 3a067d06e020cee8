"""The engine: one client's functions mapped over clients, and communication.

The same mathematics in two shapes with the same keys and the same numbers:

* :func:`step` is one iteration as a paper writes it: a local step of every client, one common coin, communication
  under ``lax.cond``. It is pure; drive it with ``lax.scan``.
* :func:`one_round` is the iteration unrolled between two communications, and what
  :func:`sps_jax.simulation.simulate` scans: the coin's gaps are numbers of local steps, so each client runs its round
  on its own and nothing is paid for the steps without communication.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm, Turn
from sps_jax.plan import VMAP, Plan, over_clients
from sps_jax.problem import Problem
from sps_jax.tree import Tree


class Schedule(NamedTuple):
    """When the clients communicate: after a step with probability ``prob``, or after every ``local_steps`` steps.

    Attributes:
      prob: p in (0, 1], a scalar.
      local_steps: k >= 1, an int32 scalar, or None for the coin.
    """

    prob: jax.Array
    local_steps: jax.Array | None = None


class State(NamedTuple):
    """A simulation right after a communication: all there is to know to go on.

    Attributes:
      server: what the server keeps.
      memory: (n, ...), what each client keeps between rounds.
      t: int32, iterations done.
    """

    server: Any
    memory: Any
    t: jax.Array


class StepState(NamedTuple):
    """A simulation between any two iterations.

    Attributes:
      x: (n, ...), the clients' iterates.
      server: what the server keeps.
      memory: (n, ...), what each client keeps between rounds.
      t: int32, iterations done.
      steps: int32, of them since the last communication.
    """

    x: Any
    server: Any
    memory: Any
    t: jax.Array
    steps: jax.Array


class Keys(NamedTuple):
    """One key a purpose, all from the key of the simulation."""

    init: jax.Array
    clients: jax.Array
    coin: jax.Array
    common: jax.Array


def split_key(key: jax.Array) -> Keys:
    """The keys of a simulation; client i at iteration t draws from ``fold_in(fold_in(clients, t), i)``."""
    return Keys(*jax.random.split(key, len(Keys._fields)))


# --- one iteration -----------------------------------------------------------------------------------------------


def local_step(algorithm: Algorithm, problem: Problem, keys: Keys, t, b, x, h, i, data, count):
    """One local step of client ``i`` at iteration ``t``: its new x."""
    batch, own = jax.random.split(fold_in(fold_in(keys.clients, t), i))
    gradient = partial(problem.gradient, data, count, t, batch)
    return algorithm.move(x, algorithm.direction(x, h, b, gradient, own))


def send_one(algorithm: Algorithm, problem: Problem, keys: Keys, turn: Callable, t, b, x, h, i, data, count):
    """The message of client ``i`` after ``t`` iterations; a gradient in it is taken on a batch of its own."""
    batch = fold_in(fold_in(fold_in(keys.clients, t), i), 2)  # local_step has 0 and 1
    return algorithm.send(x, h, b, partial(problem.gradient, data, count, t, batch), turn(i))


def turns(problem: Problem, keys: Keys, t, steps) -> Callable[[jax.Array], Turn]:
    """What the engine knows of client i's communication after ``t`` iterations, ``steps`` since the last one."""
    common, n = fold_in(keys.common, t), problem.clients
    steps = jnp.asarray(steps, problem.ridge.dtype)
    return lambda i: Turn(fold_in(common, i), common, i, steps, n, n)


def answer(algorithm: Algorithm, plan: Plan, turn: Callable, server, mean, memory, sent, clients):
    """The server takes the mean of the messages and answers, all clients receive: new server, memory, what went down.

    ``sent`` are the clients' iterates and messages, (n, ...) each.
    """
    whole = turn(jnp.int32(-1))
    server = algorithm.serve(server, mean, whole)
    back = algorithm.broadcast(server)

    def receive(back, h, sent, i):
        return (), algorithm.receive(sent[0], h, sent[1], back, turn(i))

    _, memory = over_clients(plan, receive, None, back, memory, sent, clients, update=True)
    return server, memory, jnp.stack(algorithm.downlink.count(back, whole))


def coin(schedule: Schedule, key: jax.Array, t: jax.Array) -> jax.Array:
    """Whether iteration ``t`` (from 0) ends with a communication; one coin for all clients."""
    if schedule.local_steps is None:
        return jax.random.bernoulli(fold_in(key, t), schedule.prob)
    return (t + 1) % schedule.local_steps == 0


def step(
    algorithm: Algorithm,
    problem: Problem,
    schedule: Schedule,
    state: StepState,
    key: jax.Array,
    heads: jax.Array | None = None,
) -> tuple[StepState, jax.Array]:
    """One iteration of all clients, pure: a local step each, one common coin, communication under ``lax.cond``.

    Args:
      algorithm, problem, schedule: what is simulated.
      state: from :func:`begin`.
      key: the key of the simulation, the same at every iteration; ``state.t`` tells the iterations apart.
      heads: force the coin (a boolean scalar) instead of drawing it.

    Returns:
      The next state, and whether the clients communicated.

    Example::

        one = functools.partial(step, algorithm, problem, schedule)
        state, heads = jax.lax.scan(lambda state, _: one(state, key), begin(algorithm, problem, key), length=1000)
    """
    keys, clients = split_key(key), jnp.arange(problem.clients, dtype=jnp.int32)
    heads = coin(schedule, keys.coin, state.t) if heads is None else heads
    b = algorithm.broadcast(state.server)
    one = partial(local_step, algorithm, problem, keys, state.t, b)
    x = jax.vmap(one)(state.x, state.memory, clients, problem.data, problem.counts)
    t, steps = state.t + 1, state.steps + 1

    def meet():
        turn = turns(problem, keys, t, steps)

        def send(b, x, h, i, data, count):
            message = send_one(algorithm, problem, keys, turn, t, b, x, h, i, data, count)
            return message, (x, message)

        own = (x, state.memory, clients, problem.data, problem.counts)
        mean, sent = over_clients(VMAP, send, problem.weights, b, *own)
        server, memory, _ = answer(algorithm, VMAP, turn, state.server, mean, state.memory, sent, clients)
        return StepState(_start(algorithm, problem, server, memory), server, memory, t, jnp.int32(0))

    def skip():
        return StepState(x, state.server, state.memory, t, steps)

    return lax.cond(heads, meet, skip), heads


def begin(algorithm: Algorithm, problem: Problem, key: jax.Array, params: Tree | None = None) -> StepState:
    """The state before the first :func:`step`; ``params`` replaces the problem's starting point."""
    server, memory, t = start(algorithm, problem, key, params)
    return StepState(_start(algorithm, problem, server, memory), server, memory, t, jnp.int32(0))


def _start(algorithm: Algorithm, problem: Problem, server, memory):
    b = algorithm.broadcast(server)
    return jax.vmap(algorithm.start, in_axes=(None, 0), axis_size=problem.clients)(b, memory)


# --- rounds ------------------------------------------------------------------------------------------------------


def start(algorithm: Algorithm, problem: Problem, key: jax.Array, params: Tree | None = None) -> State:
    """The state before the first round; ``params`` replaces the problem's starting point."""
    params = problem.init(split_key(key).init) if params is None else params
    h, server = algorithm.init(params)
    n = problem.clients
    memory = jax.vmap(lambda i: algorithm.enroll(h, i, n))(jnp.arange(n, dtype=jnp.int32))
    return State(server, memory, jnp.int32(0))


def round_length(schedule: Schedule, key: jax.Array, t: jax.Array) -> jax.Array:
    """Local steps from iteration ``t`` to the next communication, an int32 >= 1."""
    if schedule.local_steps is not None:
        return schedule.local_steps
    tails = lax.while_loop(lambda j: ~coin(schedule, key, t + j), lambda j: j + 1, jnp.int32(0))
    return tails + 1


def local_round(algorithm: Algorithm, problem: Problem, keys: Keys, t, length, b, h, i, data, count):
    """The ``length`` local steps of client ``i`` from iteration ``t``, starting from the broadcast: its x."""

    def body(j, x):
        return local_step(algorithm, problem, keys, t + j, b, x, h, i, data, count)

    return lax.fori_loop(0, length, body, algorithm.start(b, h))


def one_round(
    algorithm: Algorithm, problem: Problem, schedule: Schedule, state: State, key: jax.Array, plan: Plan = VMAP
):
    """Local steps of all clients up to a communication, and that communication.

    Returns:
      The next state, and the counts of what was sent ``up`` (n, 2) and ``down`` (2,), see
      :class:`sps_jax.communication.Count`.
    """
    keys, clients = split_key(key), jnp.arange(problem.clients, dtype=jnp.int32)
    length = round_length(schedule, keys.coin, state.t)
    t = state.t + length
    turn = turns(problem, keys, t, length)

    def one(b, h, i, data, count):
        x = local_round(algorithm, problem, keys, state.t, length, b, h, i, data, count)
        message = send_one(algorithm, problem, keys, turn, t, b, x, h, i, data, count)
        return message, ((x, message), jnp.stack(algorithm.uplink.count(message, turn(i))))

    own = (state.memory, clients, problem.data, problem.counts)
    mean, (sent, up) = over_clients(plan, one, problem.weights, algorithm.broadcast(state.server), *own)
    server, memory, down = answer(algorithm, plan, turn, state.server, mean, state.memory, sent, clients)
    return State(server, memory, t), {"up": up, "down": down}


def observe(algorithm: Algorithm, problem: Problem, state: State, plan: Plan = VMAP) -> dict[str, jax.Array]:
    """What an evaluation records, all scalars.

    The problem's losses and metrics of the shipped model; ``density``, its fraction of nonzeros; ``average_density``,
    that of the floats the server broadcasts; and ``control_sum``, :math:`\\max|\\sum_i h_i| / \\max_i|h_i|` where
    the algorithm has control variates (with client weights, :math:`n \\sum_i w_i h_i`).
    """
    model, b = algorithm.model(state.server), algorithm.broadcast(state.server)
    seen = problem.evaluate(model, plan)
    for name, thing in (("density", model), ("average_density", tree.floats(b))):
        seen[name] = tree.nonzeros(thing).astype(problem.ridge.dtype) / tree.size(thing)

    def control(server, h, _):
        variates = algorithm.control(h, server)
        return variates, jax.tree.map(lambda a: jnp.max(jnp.abs(a)), variates)

    # the counts have a clients axis where the memory is empty
    total, each = over_clients(plan, control, problem.weights, state.server, state.memory, problem.counts)
    if jax.tree.leaves(total):
        total, each = problem.clients * tree.largest(total), tree.largest(each)
        seen["control_sum"] = jnp.where(each > 0, total / jnp.where(each > 0, each, 1), 0)
    return seen
