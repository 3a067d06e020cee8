"""The engine: it maps one client's functions over all clients, and lets them communicate.

The same mathematics comes in two forms, which use the same keys and compute the same numbers:

* :func:`sps_jax.step` is one iteration as a paper writes it: a local step of every client, one common coin,
  communication under ``lax.cond``. It is pure; drive it with ``lax.scan``.
* :func:`one_round` runs all iterations up to and including a communication; :func:`sps_jax.simulate` scans it. The
  gaps between the coin's heads are the numbers of local steps, so each client runs its whole round independently, and
  steps without communication cost nothing extra.
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
from sps_jax.simulation.participation import SERVER, Member, Participants, Shares, memory_of, remember, taking_part
from sps_jax.simulation.schedule import Keys, Schedule, round_length, split_key
from sps_jax.simulation.state import State
from sps_jax.tree import Tree


class Client(NamedTuple):
    """A client in a round: its ids, its padded data, and its number of examples; or all participants, stacked."""

    who: Member
    data: tuple[jax.Array, ...]
    examples: jax.Array


class Round(NamedTuple):
    """One round of an algorithm: what its clients and its server do.

    Attributes:
      algorithm: the algorithm.
      part: the participants.
      clients: n, the total number of clients.
      keys: the keys of the simulation.
      number: the number of rounds before this one.
    """

    algorithm: Algorithm
    part: Participants
    clients: int
    keys: Keys
    number: jax.Array

    @property
    def members(self) -> Client:
        """The participating clients, stacked."""
        problem = self.part.problem
        return Client(self.part.who, problem.data, problem.counts)

    def local_step(self, t: jax.Array, b: Tree, x: Tree, h: Tree, client: Client) -> Tree:
        """Return the new iterate of a client after one local step at iteration ``t``."""
        batch, own = jax.random.split(fold_in(fold_in(self.keys.clients, t), client.who.ids))
        gradient = partial(self.part.problem.gradient, client.data, client.examples, t, batch)
        return self.algorithm.move(x, self.algorithm.direction(x, h, b, gradient, own))

    def local_steps(self, t: jax.Array, length: jax.Array | int, b: Tree, h: Tree, client: Client) -> Tree:
        """Return the iterate of a client after ``length`` local steps from iteration ``t`` and the broadcast ``b``."""

        def body(j: jax.Array, x: Tree) -> Tree:
            return self.local_step(t + j, b, x, h, client)

        return lax.fori_loop(0, length, body, self.algorithm.start(b, h))

    def round_info(self, t: jax.Array, steps: jax.Array | int) -> Callable[[Member], RoundInfo]:
        """Return a function that builds a client's :class:`RoundInfo` after iteration ``t``.

        ``steps`` is the number of local steps since the last communication.
        """
        common, steps = fold_in(self.keys.common, t), jnp.asarray(steps, self.part.problem.ridge.dtype)
        sizes = self.part.problem.clients, self.clients, self.part.shares.share
        return lambda who: RoundInfo(fold_in(common, who.ids), common, who.slots, steps, *sizes, self.number)

    def send(
        self, info: Callable[[Member], RoundInfo], t: jax.Array, b: Tree, x: Tree, h: Tree, client: Client
    ) -> Tree:
        """Return the message of a client after ``t`` iterations; gradients in it use a fresh batch."""
        batch = fold_in(fold_in(fold_in(self.keys.clients, t), client.who.ids), 2)  # local_step uses 0 and 1
        gradient = partial(self.part.problem.gradient, client.data, client.examples, t, batch)
        return self.algorithm.send(x, h, b, gradient, info(client.who))

    def average(
        self, layout: Layout, one: Callable, idle: Callable, server: Tree, memory: Tree, *more: Tree
    ) -> tuple[Tree, Any]:
        """Map a function of one client over the participants, and average their messages.

        With control variates the weights of the mean sum to one, which preserves the sum of the control variates.
        Otherwise the weights estimate the mean over all clients, and the weight that is missing to one goes to the
        message of a client that takes no step: without it, a message that is the model itself would shrink or grow
        with the cohort. If the server divides by the weight that it receives, no weight is added.

        Args:
          layout: the layout.
          one: ``b, h, client, *more -> message, kept``.
          idle: ``b, h, client -> message`` of a client that takes no step.
          server: the server's state.
          memory: the participants' memory, (C, ...).
          more: further arguments of ``one``, (C, ...) each.

        Returns:
          The mean message, and ``kept`` stacked.
        """
        refuse_weights(self.algorithm, self.part.problem, self.part.shares)
        shares, own, b = self.part.shares, (memory, self.members), self.algorithm.broadcast(server)
        if shares.estimate is None or self._has_control(server, memory):
            return over_clients(layout, one, shares.weights, b, *own, *more)
        mean, kept = over_clients(layout, one, shares.estimate, b, *own, *more)
        if self.algorithm.divides:
            return mean, kept
        missing, at_rest = 1 - jnp.sum(shares.estimate), idle(b, *jax.tree.map(lambda a: a[0], own))
        return jax.tree.map(lambda m, s: m + missing.astype(m.dtype) * s, mean, at_rest), kept

    def _has_control(self, server: Tree, memory: Tree) -> bool:
        first = jax.tree.map(lambda a: a[0], memory)
        return bool(jax.tree.leaves(jax.eval_shape(self.algorithm.control, first, server)))

    def answer(
        self, layout: Layout, info: Callable[[Member], RoundInfo], server: Tree, mean: Tree, memory: Tree, sent: Tree
    ) -> tuple[Tree, Tree, jax.Array]:
        """Update the server from the mean message, and let the participants receive its broadcast.

        Args:
          layout: the layout.
          info: from :meth:`round_info`.
          server: the server's state.
          mean: the mean message.
          memory: the participants' memory, (C, ...).
          sent: the participants' iterates and messages, (C, ...) each.

        Returns:
          The new server state, the participants' new memory, and the downlink count (2,).
        """
        algorithm, begun = self.algorithm, self.algorithm.broadcast(server)
        served = algorithm.serve(server, sent[1] if algorithm.needs_all else mean, info(SERVER))
        share = self.part.shares.share
        if self.part.who.updates is not None and share is not None:
            served = _where(share > 0, served, server)  # nothing may have arrived
        back = algorithm.broadcast(served)

        def receive(b: tuple[Tree, Tree], h: Tree, sent: Tree, who: Member) -> tuple[Tree, Tree]:
            back, begun = b
            new = algorithm.receive(sent[0], h, sent[1], back, info(who)._replace(begun=begun))
            return (), new if who.updates is None else _where(who.updates, new, h)

        _, memory = over_clients(layout, receive, None, (back, begun), memory, sent, self.part.who, update=True)
        return served, memory, jnp.stack(algorithm.downlink.count(back, info(SERVER)))

    def run(self, schedule: Schedule, state: State, layout: Layout) -> tuple[State, dict[str, jax.Array]]:
        """Run the round from ``state``, whose memory holds the participants only; see :func:`one_round`."""
        length = round_length(schedule.at(state.round), self.keys.coin, state.t)
        t = state.t + length
        info = self.round_info(t, length)

        def one(b: Tree, h: Tree, client: Client) -> tuple[Tree, Tree]:
            x = self.local_steps(state.t, length, b, h, client)
            message = self.send(info, t, b, x, h, client)
            return message, ((x, message), jnp.stack(self.algorithm.uplink.count(message, info(client.who))))

        mean, (sent, up) = self.average(layout, one, self.idle(info, t), state.server, state.memory)
        server, memory, down = self.answer(layout, info, state.server, mean, state.memory, sent)
        return State(server, memory, t, state.round + 1), {"up": up, "down": down}

    def idle(self, info: Callable[[Member], RoundInfo], t: jax.Array) -> Callable[[Tree, Tree, Client], Tree]:
        """Return a function ``b, h, client -> message`` for a client that takes no step."""
        return lambda b, h, client: self.send(info, t, b, self.algorithm.start(b, h), h, client)


def _where(condition: jax.Array, one: Tree, other: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


# --- one iteration -----------------------------------------------------------------------------------------------


def refuse_weights(algorithm: Algorithm, problem: Problem, shares: Shares | None = None) -> None:
    """Raise a ``ValueError`` if the clients, or a cohort's ``shares``, are unequal and the algorithm forbids that."""
    own = problem.weights if shares is None or shares.weights is None else shares.weights
    if algorithm.needs_all and (own is not None or (shares is not None and shares.estimate is not None)):
        raise ValueError(
            "a method whose serve takes all messages has no weights for them: it needs clients of equal weights, and a "
            "cohort drawn uniformly without losses"
        )
    if own is not None and not algorithm.weighted:
        raise ValueError(
            "a method that sends each coordinate from a few clients only needs clients of equal weights, and no losses"
        )


def start(algorithm: Algorithm, problem: Problem, key: jax.Array, params: Tree | None = None) -> State:
    """Return the state before the first round; ``params`` replaces the problem's starting point."""
    refuse_weights(algorithm, problem)
    params = problem.init(split_key(key).init) if params is None else params
    h, server = algorithm.init(params)
    n = problem.clients
    return State(server, init_clients(algorithm, h, jnp.arange(n, dtype=jnp.int32), n), jnp.int32(0), jnp.int32(0))


def init_clients(algorithm: Algorithm, h: Tree, ids: jax.Array, clients: int) -> Tree:
    """Return the initial memory of the clients ``ids`` (of n clients), stacked."""
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
    """Run one round: the participants' local steps up to a communication, and that communication.

    Returns:
      The next state, and the message counts ``up`` (C, 2) and ``down`` (2,), see :class:`sps_jax.MessageCount`.
    """
    keys = split_key(key)
    part = taking_part(problem, cohort, keys, state.t, state.round)
    own = state._replace(memory=memory_of(part.who, cohort, state.memory))
    after, counts = Round(algorithm, part, problem.clients, keys, state.round).run(schedule, own, layout)
    return after._replace(memory=remember(part.who, cohort, state.memory, after.memory)), counts
