"""One iteration at a time: a local step of every client, one common coin, communication under ``lax.cond``."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import lax

from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import VMAP
from sps_jax.problem import Problem
from sps_jax.simulation.choices import Choices, with_shared
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.compiling import in_context
from sps_jax.simulation.hyperparameters import check_params, dtype_of
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.participation import memory_of, remember, taking_part
from sps_jax.simulation.round import Client, Round, start
from sps_jax.simulation.schedule import Keys, Schedule, coin, split_key
from sps_jax.simulation.simulate import own_padding
from sps_jax.simulation.state import State
from sps_jax.tree import Tree


class StepState(NamedTuple):
    """The complete simulation state between any two iterations.

    Attributes:
      x: (C, ...), the iterates of the cohort, in its order; (n, ...) without a cohort.
      server: the server's state.
      memory: (n, ...), the state that each client keeps between rounds.
      t: int32, the number of iterations done.
      round: int32, the number of communications done.
      steps: int32, the number of iterations since the last communication.

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
    round: jax.Array
    steps: jax.Array


def step(
    algorithm: Algorithm,
    problem: Problem,
    schedule: Schedule,
    state: StepState,
    key: jax.Array,
    heads: jax.Array | None = None,
    cohort: Cohort | None = None,
) -> tuple[StepState, jax.Array]:
    """Run one iteration: a local step of every participant, one common coin, communication under ``lax.cond``. Pure.

    Args:
      algorithm, problem, schedule: what to simulate.
      state: from :func:`begin` or the previous step.
      key: the key of the simulation, the same at every iteration; ``state.t`` makes the iterations differ.
      heads: a boolean scalar that replaces the coin.
      cohort: how to sample the clients of a round; None for all clients.

    Returns:
      The next state, and a boolean scalar: whether the clients communicated.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> algorithm, problem, key = sps.gd(stepsize=1.0), quadratic(clients=2, dimension=1), jax.random.key(0)
      >>> one = partial(step, algorithm, problem, Schedule(jnp.float32(1), 1))
      >>> state, heads = lax.scan(lambda state, _: one(state, key), begin(algorithm, problem, key), length=2)
      >>> heads.tolist(), bool(jnp.allclose(state.server["x"], problem.data[0].mean(axis=(0, 1))))
      ([True, True], True)
    """
    keys, b = split_key(key), algorithm.broadcast(state.server)
    heads = coin(schedule.at(state.round), keys.coin, state.t) if heads is None else heads
    part = taking_part(problem, cohort, keys, state.t - state.steps, state.round)
    this, memory = Round(algorithm, part, problem.clients, keys, state.round), memory_of(part.who, cohort, state.memory)
    x = jax.vmap(partial(this.local_step, state.t, b))(state.x, memory, this.members)
    t, steps = state.t + 1, state.steps + 1

    def communicate() -> StepState:
        info = this.round_info(t, steps)

        def send(b: Tree, h: Tree, client: Client, x: Tree) -> tuple[Tree, Tree]:
            message = this.send(info, t, b, x, h, client)
            return message, (x, message)

        mean, sent = this.average(VMAP, send, this.idle(info, t), state.server, memory, x)
        server, after, _ = this.answer(VMAP, info, state.server, mean, memory, sent)
        after = remember(part.who, cohort, state.memory, after)
        return _begun(algorithm, problem, cohort, keys, State(server, after, t, state.round + 1))

    def go_on() -> StepState:
        return StepState(x, state.server, state.memory, t, state.round, steps)

    return lax.cond(heads, communicate, go_on), heads


def begin(
    algorithm: Algorithm, problem: Problem, key: jax.Array, params: Tree | None = None, cohort: Cohort | None = None
) -> StepState:
    """Return the state before the first :func:`step`; ``params`` replaces the problem's starting point.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, start_at = quadratic(clients=3, dimension=2), {"x": jnp.ones((2, 1))}
      >>> state = begin(sps.gd(stepsize=1.0), problem, jax.random.key(0), start_at)
      >>> state.x["x"].ravel().tolist()
      [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return _begun(algorithm, problem, cohort, split_key(key), start(algorithm, problem, key, params))


def _begun(algorithm: Algorithm, problem: Problem, cohort: Cohort | None, keys: Keys, state: State) -> StepState:
    """Begin a round: sample the participants, and start each from the broadcast."""
    who = taking_part(problem, cohort, keys, state.t).who
    own, b = memory_of(who, cohort, state.memory), algorithm.broadcast(state.server)
    x = jax.vmap(algorithm.start, in_axes=(None, 0), axis_size=len(who.ids))(b, own)
    return StepState(x, state.server, state.memory, state.t, state.round, jnp.int32(0))


@with_shared()
def iterate(
    make: Callable[..., Algorithm],
    problem: Problem,
    hyper: Mapping[str, Any],
    key: jax.Array,
    *,
    iterations: int,
    params: Tree | None = None,
    **choices: Unpack[Choices],
) -> tuple[StepState, jax.Array]:
    """Run an algorithm for a number of iterations, one :func:`sps_jax.step` each, under one ``lax.scan``.

    It computes the same numbers as :func:`simulate`; use it to get the state between communications.

    Args:
      iterations: the number of local steps of every client.
      make, problem, hyper, key, params: as in :func:`simulate`.

    Returns:
      The final state, and (iterations,) booleans: whether the clients communicated after each iteration.

    Raises:
      ValueError: as :func:`simulate`, and if ``iterations`` is negative.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, key = quadratic(clients=2, dimension=1), jax.random.key(0)
      >>> state, heads = iterate(sps.proxskip, problem, {"stepsize": 0.5}, key, iterations=4, local_steps=2)
      >>> heads.tolist()
      [False, True, False, True]
    """
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, not {iterations}")
    method = prepare(make, hyper, dtype_of(problem), **choices)
    split_key(key)
    check_params(problem, params)
    return _scan_steps(method, own_padding(problem), key, params, iterations)


@partial(jax.jit, static_argnames="iterations")
@in_context
def _scan_steps(
    method: Method, problem: Problem, key: jax.Array, params: Tree | None, iterations: int
) -> tuple[StepState, jax.Array]:
    algorithm = method.algorithm()
    one = partial(step, algorithm, problem, method.schedule, cohort=method.cohort)
    first = begin(algorithm, problem, key, params, method.cohort)
    return lax.scan(lambda state, _: one(state, key), first, length=iterations)
