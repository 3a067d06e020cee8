"""The engine: one client's functions mapped over clients, and communication.

The same mathematics in two shapes with the same keys and the same numbers:

* :func:`step` is one iteration as a paper writes it: a local step of every client, one common coin, communication
  under ``lax.cond``. It is pure; drive it with ``lax.scan``.
* :func:`one_round` is the iteration unrolled between two communications, and what
  :func:`sps_jax.simulate` scans: the coin's gaps are numbers of local steps, so each client runs its round
  on its own and nothing is paid for the steps without communication.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import fold_in

from sps_jax.algorithms.base import Algorithm, RoundInfo
from sps_jax.layout import VMAP, Layout, over_clients
from sps_jax.problem import Problem
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.participation import SERVER, Member, Participants, memory_of, remember, taking_part
from sps_jax.simulation.schedule import Keys, Schedule, coin, round_length, split_key
from sps_jax.tree import Tree


class State(NamedTuple):
    """A simulation right after a communication: all there is to know to go on.

    Attributes:
      server: what the server keeps.
      memory: (n, ...), what each client keeps between rounds.
      t: int32, iterations done.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> state = start(sps.proxskip(stepsize=0.5, prob=0.5), quadratic(clients=3, dimension=2), jax.random.key(0))
      >>> state.server["x"].shape, state.memory["x"].shape, int(state.t)
      ((2, 1), (3, 2, 1), 0)
    """

    server: Any
    memory: Any
    t: jax.Array


class StepState(NamedTuple):
    """A simulation between any two iterations.

    Attributes:
      x: (C, ...), the iterates of the clients that take part, in the order of the cohort; (n, ...) without one.
      server: what the server keeps.
      memory: (n, ...), what each client keeps between rounds.
      t: int32, iterations done.
      steps: int32, of them since the last communication.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> state = begin(sps.proxskip(stepsize=0.5, prob=0.5), quadratic(clients=3, dimension=2), jax.random.key(0))
      >>> state.x["x"].shape, int(state.t), int(state.steps)
      ((3, 2, 1), 0, 0)
    """

    x: Any
    server: Any
    memory: Any
    t: jax.Array
    steps: jax.Array


class Client(NamedTuple):
    """A client in a round: who it is, its examples, and how many of these rows are examples; or all, stacked."""

    who: Member
    data: tuple[jax.Array, ...]
    examples: jax.Array


class Round(NamedTuple):
    """One round of an algorithm: what its clients and its server do, and with which keys.

    Attributes:
      algorithm: what is simulated.
      part: who takes part.
      clients: how many clients there are in all, n.
      keys: of the simulation.
    """

    algorithm: Algorithm
    part: Participants
    clients: int
    keys: Keys

    @property
    def members(self) -> Client:
        """Those who take part, stacked."""
        problem = self.part.problem
        return Client(self.part.who, problem.data, problem.counts)

    def local_step(self, t: jax.Array, b: Tree, x: Tree, h: Tree, client: Client) -> Tree:
        """One local step of a client at iteration ``t``: its new x."""
        batch, own = jax.random.split(fold_in(fold_in(self.keys.clients, t), client.who.ids))
        gradient = partial(self.part.problem.gradient, client.data, client.examples, t, batch)
        return self.algorithm.move(x, self.algorithm.direction(x, h, b, gradient, own))

    def local_steps(self, t: jax.Array, length: jax.Array, b: Tree, h: Tree, client: Client) -> Tree:
        """The ``length`` local steps of a client from iteration ``t``, starting from the broadcast: its x."""

        def body(j: jax.Array, x: Tree) -> Tree:
            return self.local_step(t + j, b, x, h, client)

        return lax.fori_loop(0, length, body, self.algorithm.start(b, h))

    def round_info(self, t: jax.Array, steps: jax.Array | int) -> Callable[[Member], RoundInfo]:
        """What is known of a client's communication after ``t`` iterations, ``steps`` since the last one."""
        common, steps = fold_in(self.keys.common, t), jnp.asarray(steps, self.part.problem.ridge.dtype)
        facts = self.part.problem.clients, self.clients, self.part.shares.share
        return lambda who: RoundInfo(fold_in(common, who.ids), common, who.slots, steps, *facts)

    def send(
        self, info: Callable[[Member], RoundInfo], t: jax.Array, b: Tree, x: Tree, h: Tree, client: Client
    ) -> Tree:
        """The message of a client after ``t`` iterations; a gradient in it is taken on a batch of its own."""
        batch = fold_in(fold_in(fold_in(self.keys.clients, t), client.who.ids), 2)  # local_step has 0 and 1
        gradient = partial(self.part.problem.gradient, client.data, client.examples, t, batch)
        return self.algorithm.send(x, h, b, gradient, info(client.who))

    def average(
        self, layout: Layout, one: Callable, idle: Callable, server: Tree, memory: Tree, *more: Tree
    ) -> tuple[Tree, Any]:
        """Map a function of one client over those who take part, and average their messages.

        With control variates the weights of the mean add up to one, for that keeps their sum. Without, the mean of all
        clients' messages is estimated, and what the weights lack of one is given to the message of a client that takes
        no step: a message that is the model itself would otherwise shrink or grow with the cohort. Not so where the
        server divides by the weight that it gets.

        Args:
          one: ``b, h, client, *more -> message, kept``.
          idle: ``b, h, client -> message`` without a step.
          memory: of those who take part, (C, ...).
          more: what ``one`` needs beside, (C, ...) each.
        """
        shares, own, b = self.part.shares, (memory, self.members), self.algorithm.broadcast(server)
        if shares.estimate is None or self._has_control(server, memory):
            return over_clients(layout, one, shares.weights, b, *own, *more)
        mean, kept = over_clients(layout, one, shares.estimate, b, *own, *more)
        if self.algorithm.divides:
            return mean, kept
        missing, still = 1 - jnp.sum(shares.estimate), idle(b, *jax.tree.map(lambda a: a[0], own))
        return jax.tree.map(lambda m, s: m + missing.astype(m.dtype) * s, mean, still), kept

    def _has_control(self, server: Tree, memory: Tree) -> bool:
        first = jax.tree.map(lambda a: a[0], memory)
        return bool(jax.tree.leaves(jax.eval_shape(self.algorithm.control, first, server)))

    def answer(
        self, layout: Layout, info: Callable[[Member], RoundInfo], server: Tree, mean: Tree, memory: Tree, sent: Tree
    ) -> tuple[Tree, Tree, jax.Array]:
        """The server takes the mean of the messages and answers, those who take part receive.

        ``sent`` are their iterates and messages, ``memory`` theirs, (C, ...) each.

        Returns:
          The server's state, the memory, and the count of what went down.
        """
        algorithm = self.algorithm
        server = algorithm.serve(server, mean, info(SERVER))
        back = algorithm.broadcast(server)

        def receive(back: Tree, h: Tree, sent: Tree, who: Member) -> tuple[Tree, Tree]:
            return (), algorithm.receive(sent[0], h, sent[1], back, info(who))

        _, memory = over_clients(layout, receive, None, back, memory, sent, self.part.who, update=True)
        return server, memory, jnp.stack(algorithm.downlink.count(back, info(SERVER)))

    def run(self, schedule: Schedule, state: State, layout: Layout) -> tuple[State, dict[str, jax.Array]]:
        """The round from ``state``, whose memory is of those who take part alone: see :func:`one_round`."""
        length = round_length(schedule, self.keys.coin, state.t)
        t = state.t + length
        info = self.round_info(t, length)

        def one(b: Tree, h: Tree, client: Client) -> tuple[Tree, Tree]:
            x = self.local_steps(state.t, length, b, h, client)
            message = self.send(info, t, b, x, h, client)
            return message, ((x, message), jnp.stack(self.algorithm.uplink.count(message, info(client.who))))

        mean, (sent, up) = self.average(layout, one, self.idle(info, t), state.server, state.memory)
        server, memory, down = self.answer(layout, info, state.server, mean, state.memory, sent)
        return State(server, memory, t), {"up": up, "down": down}

    def idle(self, info: Callable[[Member], RoundInfo], t: jax.Array) -> Callable[[Tree, Tree, Client], Tree]:
        """``b, h, client -> message`` of a client that takes no step."""
        return lambda b, h, client: self.send(info, t, b, self.algorithm.start(b, h), h, client)


# --- one iteration -----------------------------------------------------------------------------------------------


def step(
    algorithm: Algorithm,
    problem: Problem,
    schedule: Schedule,
    state: StepState,
    key: jax.Array,
    heads: jax.Array | None = None,
    cohort: Cohort | None = None,
) -> tuple[StepState, jax.Array]:
    """One iteration of all who take part, pure: a local step each, one common coin, communication under ``lax.cond``.

    Args:
      algorithm, problem, schedule: what is simulated.
      state: from :func:`begin`.
      key: the key of the simulation, the same at every iteration; ``state.t`` tells the iterations apart.
      heads: force the coin (a boolean scalar) instead of drawing it.
      cohort: who takes part in a round; None for all clients.

    Returns:
      The next state, and whether the clients communicated.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> algorithm, problem, key = sps.gd(stepsize=1.0), quadratic(clients=2, dimension=1), jax.random.key(0)
      >>> one = partial(step, algorithm, problem, Schedule(jnp.float32(1), jnp.int32(1)))
      >>> state, heads = lax.scan(lambda state, _: one(state, key), begin(algorithm, problem, key), length=2)
      >>> heads.tolist(), bool(jnp.allclose(state.server["x"], problem.data[0].mean(axis=(0, 1))))
      ([True, True], True)
    """
    keys, b = split_key(key), algorithm.broadcast(state.server)
    heads = coin(schedule, keys.coin, state.t) if heads is None else heads
    part = taking_part(problem, cohort, keys, state.t - state.steps)
    this, memory = Round(algorithm, part, problem.clients, keys), memory_of(part.who, cohort, state.memory)
    x = jax.vmap(partial(this.local_step, state.t, b))(state.x, memory, this.members)
    t, steps = state.t + 1, state.steps + 1

    def communicate() -> StepState:
        info = this.round_info(t, steps)

        def send(b: Tree, h: Tree, client: Client, x: Tree) -> tuple[Tree, Tree]:
            message = this.send(info, t, b, x, h, client)
            return message, (x, message)

        mean, sent = this.average(VMAP, send, this.idle(info, t), state.server, memory, x)
        server, after, _ = this.answer(VMAP, info, state.server, mean, memory, sent)
        return _begun(algorithm, problem, cohort, keys, server, remember(part.who, cohort, state.memory, after), t)

    def go_on() -> StepState:
        return StepState(x, state.server, state.memory, t, steps)

    return lax.cond(heads, communicate, go_on), heads


def begin(
    algorithm: Algorithm, problem: Problem, key: jax.Array, params: Tree | None = None, cohort: Cohort | None = None
) -> StepState:
    """The state before the first :func:`step`; ``params`` replaces the problem's starting point.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, start_at = quadratic(clients=3, dimension=2), {"x": jnp.ones((2, 1))}
      >>> state = begin(sps.gd(stepsize=1.0), problem, jax.random.key(0), start_at)
      >>> state.x["x"].ravel().tolist()
      [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return _begun(algorithm, problem, cohort, split_key(key), *start(algorithm, problem, key, params))


def _begun(
    algorithm: Algorithm, problem: Problem, cohort: Cohort | None, keys: Keys, server: Tree, memory: Tree, t: jax.Array
) -> StepState:
    """A round begins: those who take part start from the broadcast."""
    who = taking_part(problem, cohort, keys, t).who
    own, b = memory_of(who, cohort, memory), algorithm.broadcast(server)
    x = jax.vmap(algorithm.start, in_axes=(None, 0), axis_size=len(who.ids))(b, own)
    return StepState(x, server, memory, t, jnp.int32(0))


# --- rounds ------------------------------------------------------------------------------------------------------


def refuse_weights(algorithm: Algorithm, problem: Problem) -> None:
    """Raise a ``ValueError`` for unequal clients where the algorithm cannot have them."""
    if problem.weights is not None and not algorithm.weighted:
        raise ValueError("a method whose coordinates have a few owners each needs clients of equal weights")


def start(algorithm: Algorithm, problem: Problem, key: jax.Array, params: Tree | None = None) -> State:
    """The state before the first round; ``params`` replaces the problem's starting point."""
    refuse_weights(algorithm, problem)
    params = problem.init(split_key(key).init) if params is None else params
    h, server = algorithm.init(params)
    n = problem.clients
    return State(server, init_clients(algorithm, h, jnp.arange(n, dtype=jnp.int32), n), jnp.int32(0))


def init_clients(algorithm: Algorithm, h: Tree, ids: jax.Array, clients: int) -> Tree:
    """The memory that these of n clients begin with, stacked."""
    return jax.vmap(lambda i: algorithm.init_client(h, i, clients))(ids)


def one_round(
    algorithm: Algorithm,
    problem: Problem,
    schedule: Schedule,
    state: State,
    key: jax.Array,
    layout: Layout = VMAP,
    cohort: Cohort | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """Local steps of all who take part up to a communication, and that communication.

    Returns:
      The next state, and the counts of what was sent ``up`` (C, 2) and ``down`` (2,), see
      :class:`sps_jax.MessageCount`.
    """
    keys = split_key(key)
    part = taking_part(problem, cohort, keys, state.t)
    own = state._replace(memory=memory_of(part.who, cohort, state.memory))
    after, counts = Round(algorithm, part, problem.clients, keys).run(schedule, own, layout)
    return after._replace(memory=remember(part.who, cohort, state.memory, after.memory)), counts
