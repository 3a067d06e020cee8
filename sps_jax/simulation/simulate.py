"""Simulations: an algorithm on a problem for a number of rounds, as one compiled program."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm
from sps_jax.layout import VMAP, Layout, constrain, place, replicate
from sps_jax.problem import Problem
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.evaluation import observe
from sps_jax.simulation.history import asked_rounds, tabulate
from sps_jax.simulation.method import Method, in_its_precision, prepare
from sps_jax.simulation.placement import choose, shapes
from sps_jax.simulation.round import State, StepState, begin, one_round, start, step
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.stacking import foreign_padding, repeat_first
from sps_jax.tree import Tree


@partial(jax.jit, static_argnames="layout", donate_argnames="state")
@in_its_precision
def run_rounds(
    method: Method, layout: Layout, problem: Problem, state: State, key: jax.Array, asked: jax.Array
) -> tuple[State, dict[str, jax.Array]]:
    """The rounds of ``asked`` (R,), a boolean each: whether its communication is evaluated.

    Returns:
      The final state and what was seen, arrays (R, ...): ``iteration``; ``up`` and ``down``, counts of what was sent;
      ``finite``, whether the server's state is; and :func:`observe`'s, meaningful where ``asked``.
    """
    return _scan_rounds(method, layout, problem, state, key, asked)


@partial(jax.jit, static_argnames=("layout", "mesh", "one_coin"))
@in_its_precision
def run_points(
    method: Method, layout: Layout, mesh: Mesh, one_coin: bool, problem: Problem, key: jax.Array, asked: jax.Array
) -> dict[str, jax.Array]:
    """Whole simulations of (D, c) points that differ in hyperparameters and seed: D devices, c points under one vmap.

    All that a loop's length depends on is one for the points of a device, so that ``vmap`` leaves loops and branches
    as they are.

    Args:
      method: with numbers (D, c), but ``prob`` and the schedule (D,).
      layout: how a point's clients are computed on its device.
      mesh: of D devices.
      one_coin: whether the points of a device share the key, as they must where the coin decides.
      key: (D,) where ``one_coin``, else (D, c).
      asked: as for :func:`run_rounds`.

    Returns:
      What was seen, as by :func:`run_rounds`, (D, c, R, ...).
    """
    hyper: Any = {name: None if name == "prob" else 0 for name in method.hyper}
    schedule: Any = None
    axes = replace(method, hyper=hyper, schedule=schedule)

    def on_one_device(problem: Problem, own: Any) -> dict[str, jax.Array]:
        methods, key = jax.tree.map(lambda a: a[0], own)

        def point(method: Method, key: jax.Array) -> dict[str, jax.Array]:
            first = start(method.algorithm(), problem, key)
            return _scan_rounds(method, layout, problem, first, key, asked)[1]

        seen = jax.vmap(point, in_axes=(axes, None if one_coin else 0))(methods, key)
        return jax.tree.map(lambda a: a[None], seen)

    whole, split = PartitionSpec(), PartitionSpec(*mesh.axis_names)
    mapped = jax.shard_map(on_one_device, mesh=mesh, check_vma=False, in_specs=(whole, split), out_specs=split)
    return mapped(problem, (method, key))


def _scan_rounds(
    method: Method, layout: Layout, problem: Problem, state: State, key: jax.Array, asked: jax.Array
) -> tuple[State, dict[str, jax.Array]]:
    algorithm = method.algorithm()

    def body(state: State, asked: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        state, seen = one_round(algorithm, problem, method.schedule, state, key, layout, method.cohort)
        seen |= {"iteration": state.t, "finite": tree.finite(state.server)}
        look = partial(observe, algorithm, problem, layout=layout)
        blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(look, state))
        return state, seen | lax.cond(asked, look, lambda _: blank, state)

    state, seen = lax.scan(body, state, asked)
    return state, replicate(layout, seen)


def start_rounds(
    method: Method, problem: Problem, key: jax.Array, params: Tree | None = None, layout: Layout = VMAP
) -> State:
    """:func:`start` for ``method``, compiled; the network's initialisation once for all methods.

    That of a deep one takes seconds to compile, and longer operation by operation. The clients' memory is laid out by
    ``layout``.
    """
    params = jax.jit(problem.init)(split_key(key).init) if params is None else params
    return _start_rounds(method, layout, problem, key, params)


@partial(jax.jit, static_argnames="layout")
@in_its_precision
def _start_rounds(method: Method, layout: Layout, problem: Problem, key: jax.Array, params: Tree | None) -> State:
    state = start(method.algorithm(), problem, key, params)
    return state._replace(memory=constrain(layout, state.memory))


def shard_problem(layout: Layout, problem: Problem) -> Problem:
    """``problem`` with its clients on the devices of the layout, and padded by examples of their own.

    Nothing happens where both are so already.

    Example:
      >>> from sps_jax.problems import quadratic
      >>> shard_problem(Layout(), quadratic(clients=4, dimension=2)).clients
      4
    """
    stacked = problem.data, problem.counts, problem.sizes, problem.weights
    data, counts, sizes, weights = place(layout, stacked)
    return own_padding(replace(problem, data=data, counts=counts, sizes=sizes, weights=weights))


def own_padding(problem: Problem) -> Problem:
    """``problem`` with rows of each client's own behind its examples, see :class:`sps_jax.problem.Problem`."""
    if not _foreign_padding(problem.data, problem.counts):
        return problem
    return replace(problem, data=_repeat_first(problem.data, problem.counts))


_foreign_padding, _repeat_first = jax.jit(foreign_padding), jax.jit(repeat_first)


def simulate(
    make: Callable[..., Algorithm],
    problem: Problem,
    hyper: Mapping[str, Any],
    key: jax.Array,
    *,
    rounds: int,
    local_steps: int | None = None,
    evaluate_every: int = 1,
    transform: optax.GradientTransformation | None = None,
    transform_on: str = "direction",
    cohort: int | Cohort | None = None,
    params: Tree | None = None,
    matmul_precision: str | None = None,
    encoding: str = "cheapest",
    layout: Layout | None = None,
) -> tuple[State, dict[str, np.ndarray]]:
    """Run an algorithm on a problem for a number of communication rounds.

    A pure function of its arguments: the same ones give the same numbers, bit for bit on one machine.

    Args:
      make: the algorithm, a function of the table ``ALGORITHMS`` or one's own.
      problem: stacked client data with a loss.
      hyper: the algorithm's keyword arguments, ``dict(stepsize=0.1, prob=0.1, sparsity=0.9)``. Changing a number
        does not recompile. Where it takes a sparsity, ``sparsity_rounds=T`` lets that grow in the first T rounds, see
        :func:`sps_jax.algorithms.ramped.cubic`.
      key: a JAX random key.
      rounds: communications.
      local_steps: k, local steps between communications; without it a coin with ``hyper["prob"]`` decides.
      evaluate_every: rounds from one evaluation to the next; the last round is always evaluated.
      transform: an optax transform of the local direction, ``optax.clip_by_global_norm(1.0)`` say.
      transform_on: ``"direction"`` or ``"gradient"``, see :func:`sps_jax.algorithms.transformed`.
      cohort: how many clients take part in a round, drawn for it alike, or a :class:`sps_jax.Cohort`; None for
        all of them.
      params: where to start, instead of the problem's own starting point.
      matmul_precision: what a GPU or TPU computes products of float32 numbers in, ``"float32"``, ``"tensorfloat32"``
        or ``"bfloat16"``; None for JAX's setting where there is one, else float32.
      encoding: of the messages, see :mod:`sps_jax.compression.bits`.
      layout: how it is laid out on the machine, never what is computed; None for :func:`sps_jax.choose`'s.

    Returns:
      The final state, and the history: NumPy columns, see :func:`sps_jax.simulation.history.tabulate` and
      :func:`sps_jax.simulation.evaluation.observe`.

    Raises:
      ValueError: for a hyperparameter that is unknown, missing or out of range.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, key = quadratic(clients=2, dimension=1), jax.random.key(0)
      >>> state, history = simulate(sps.proxskip, problem, {"stepsize": 0.5}, key, rounds=3, local_steps=2)
      >>> history["iteration"].tolist(), history["uplink_bits"].tolist()
      ([2, 4, 6], [64, 128, 192])
    """
    method = prepare(
        make,
        hyper,
        problem.ridge.dtype,
        local_steps=local_steps,
        transform=transform,
        transform_on=transform_on,
        cohort=cohort,
        matmul_precision=matmul_precision,
    )
    asked = asked_rounds(rounds, evaluate_every)
    of = shapes(method, problem)
    layout = choose(of, problem) if layout is None else layout
    problem = shard_problem(layout, problem)
    state = start_rounds(method, problem, key, params, layout)
    state, seen = run_rounds(method, layout, problem, state, key, jnp.asarray(asked))
    return state, tabulate(seen, asked, of, encoding)


def iterate(
    make: Callable[..., Algorithm],
    problem: Problem,
    hyper: Mapping[str, Any],
    key: jax.Array,
    *,
    iterations: int,
    local_steps: int | None = None,
    transform: optax.GradientTransformation | None = None,
    transform_on: str = "direction",
    cohort: int | Cohort | None = None,
    params: Tree | None = None,
    matmul_precision: str | None = None,
) -> tuple[StepState, jax.Array]:
    """Run an algorithm for a number of iterations, one :func:`sps_jax.step` each, under one ``lax.scan``.

    The same numbers as :func:`simulate`, for those who want the state between communications.

    Args:
      iterations: local steps of every client; the others as in :func:`simulate`.

    Returns:
      The final state, and (iterations,) booleans: after which iterations the clients communicated.

    Raises:
      ValueError: as :func:`simulate`, and for a negative number of iterations.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, key = quadratic(clients=2, dimension=1), jax.random.key(0)
      >>> state, heads = iterate(sps.proxskip, problem, {"stepsize": 0.5}, key, iterations=4, local_steps=2)
      >>> heads.tolist()
      [False, True, False, True]
    """
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, not {iterations}")
    dtype = problem.ridge.dtype
    method = prepare(
        make,
        hyper,
        dtype,
        local_steps=local_steps,
        transform=transform,
        transform_on=transform_on,
        cohort=cohort,
        matmul_precision=matmul_precision,
    )
    return _scan_steps(method, own_padding(problem), key, params, iterations)


@partial(jax.jit, static_argnames="iterations")
@in_its_precision
def _scan_steps(
    method: Method, problem: Problem, key: jax.Array, params: Tree | None, iterations: int
) -> tuple[StepState, jax.Array]:
    algorithm = method.algorithm()
    one = partial(step, algorithm, problem, method.schedule, cohort=method.cohort)
    first = begin(algorithm, problem, key, params, method.cohort)
    return lax.scan(lambda state, _: one(state, key), first, length=iterations)
