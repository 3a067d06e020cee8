"""Whether an algorithm of one's own keeps the contract of :mod:`sps_jax.algorithms.base`."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sps_jax import tree
from sps_jax.algorithms.base import Algorithm
from sps_jax.compression.bits import MessageFormat, MessageSpec
from sps_jax.layout import VMAP, Layout
from sps_jax.problem import Problem
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.placement import shapes
from sps_jax.simulation.round import State, StepState, begin, one_round, start, step
from sps_jax.simulation.schedule import Schedule
from sps_jax.simulation.stacking import stack_clients
from sps_jax.tree import Tree

DEFAULTS = {"stepsize": 0.1, "prob": 0.4, "sparsity": 0.7}
ROUNDS = 8
CLOSE = 1e-12


def check_algorithm(make: Callable[..., Algorithm], hyper: Mapping[str, Any] | None = None) -> list[str]:
    r"""See that an algorithm keeps what the engine, the accounting and ProxSkip's theory rely on.

    In float64, for a few rounds of the coin, on least squares of four clients that differ, with batches:

    * ``shapes``: it can be traced, and a round leaves shapes and dtypes of server, memory and model as they were, those
      of float32 too; ``with_model`` makes a server like the one it was given.
    * ``steps``: a round is its steps one by one, so that ``simulate`` and ``iterate`` agree to 1e-12.
    * ``layouts``: clients at once and one after another agree as well.
    * ``bits``: of every message, up and down, the count covers all floats but zeros, and ones as in a mask, and no
      more than there are.
    * ``control variates``: where it has some and promises it (``zero_sum``), :math:`\sum_i h_i` stays zero, to 1e-12
      of the largest.

    Args:
      make: the algorithm, a function of keyword-only hyperparameters.
      hyper: those to check it with. Where it takes a ``stepsize`` (above 0.5 it may diverge here), ``prob`` or
        ``sparsity`` and none is given, they are 0.1, 0.4 and 0.7.

    Returns:
      The names of what was seen to hold; the last only where that sum is promised.

    Raises:
      AssertionError: with the first promise that is broken, and how.
      ValueError: for hyperparameters that it does not take.

    >>> from sps_jax import gd
    >>> def lighter(*, stepsize):
    ...     return gd(stepsize=stepsize)._replace(model=lambda server: {"w": server["w"]})
    >>> try:
    ...     check_algorithm(lighter)
    ... except AssertionError as error:
    ...     print(str(error).partition(":")[0])
    the model is not like the parameters
    """
    takes = inspect.signature(make).parameters
    hyper = {name: value for name, value in DEFAULTS.items() if name in takes} | dict(hyper or {})
    with jax.enable_x64(True):
        key = jax.random.key(0)
        for dtype in (jnp.float32, jnp.float64):
            method = prepare(make, hyper, dtype)
            problem = _least_squares(dtype)
            _check_shapes(method, problem, key)
        trial = (method.algorithm(), problem, method.schedule, key)
        state, counts = _rounds(*trial, VMAP)
        _see(bool(tree.finite(state.server)), f"it diverges with {hyper}: try a smaller stepsize")
        _check_close(state, _steps(*trial, int(state.t)), "a round is not its steps one by one")
        _check_close(state, _rounds(*trial, Layout(chunk=1))[0], "clients at once and one after another differ")
        of = shapes(method, problem)
        _check_bits("uplink", counts["up"], of.up)
        _check_bits("downlink", counts["down"], of.down)
        return ["shapes", "steps", "layouts", "bits", *_check_control(trial[0], state, problem.clients)]


def _see(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _check_shapes(method: Method, problem: Problem, key: jax.Array) -> None:
    """Nothing is computed; hyperparameters are traced, as in a simulation."""

    def seen(method: Method) -> tuple[Tree, Tree, State, State, Any]:
        algorithm, params = method.algorithm(), problem.init(key)
        before = start(algorithm, problem, key)
        after, _ = one_round(algorithm, problem, method.schedule, before, key)
        return params, algorithm.model(after.server), before, after, algorithm.with_model(before.server, params)

    params, model, before, after, other = jax.eval_shape(seen, method)
    for what, first, second in (
        ("a round changes what the server keeps", before.server, after.server),
        ("a round changes what the clients keep", before.memory, after.memory),
        ("the model is not like the parameters", params, model),
        ("with_model changes what the server keeps", before.server, other),
    ):
        first, second = _described(first), _described(second)
        _see(first == second, f"{what}: {first} became {second}")


def _described(of: Tree) -> dict[str, str]:
    """Dtype and shape of each leaf, by its place."""
    leaves = jax.tree_util.tree_leaves_with_path(of)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _rounds(
    algorithm: Algorithm, problem: Problem, schedule: Schedule, key: jax.Array, layout: Layout
) -> tuple[State, dict[str, jax.Array]]:
    """The state after some rounds; of each message values, positions, and the floats that are to be counted."""
    algorithm = algorithm._replace(uplink=_measured(algorithm.uplink), downlink=_measured(algorithm.downlink))
    one = partial(one_round, algorithm, problem, schedule, key=key, layout=layout)
    return lax.scan(lambda state, _: one(state), start(algorithm, problem, key), length=ROUNDS)


def _measured(code: MessageFormat) -> MessageFormat:
    def count(message: Any, info: Any) -> Any:
        due = sum((jnp.sum((a != 0) & (a != 1), dtype=jnp.int32) for a in tree.floats(message)), start=jnp.int32(0))
        return *code.count(message, info), due

    return code._replace(count=count)


def _steps(algorithm: Algorithm, problem: Problem, schedule: Schedule, key: jax.Array, iterations: int) -> StepState:
    one = partial(step, algorithm, problem, schedule, key=key)
    return lax.scan(lambda state, _: one(state), begin(algorithm, problem, key), length=iterations)[0]


def _check_close(state: State, other: State | StepState, otherwise: str) -> None:
    pairs = zip(*(jax.tree.leaves((s.server, s.memory)) for s in (state, other)), strict=True)
    off = max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs)  # booleans too
    _see(off <= CLOSE, f"{otherwise}: they are up to {off:.1e} apart")


def _check_bits(link: str, counts: jax.Array, size: MessageSpec) -> None:
    values, _, due = np.moveaxis(np.asarray(counts), -1, 0)
    worst = (due - values).argmax()
    _see(
        (values >= due).all(),
        f"the {link} counts {values.flat[worst]} numbers in a message that has {due.flat[worst]}",
    )
    _see((values <= size.entries).all(), f"the {link} counts {values.max()} numbers in a message of {size.entries}")


def _check_control(algorithm: Algorithm, state: State, clients: int) -> list[str]:
    variates = jax.vmap(algorithm.control, in_axes=(0, None), axis_size=clients)(state.memory, state.server)
    if not (algorithm.zero_sum and jax.tree.leaves(variates)):
        return []
    off = float(tree.largest(jax.tree.map(lambda a: jnp.sum(a, axis=0), variates)) / tree.largest(variates))
    _see(off <= CLOSE, f"the control variates do not sum to zero: |sum h| is {off:.1e} of the largest")
    return ["control variates"]


def _least_squares(dtype: Any) -> Problem:
    """Clients with their own inputs, solutions and numbers of examples; two examples a local step."""
    generator = np.random.default_rng(0)
    parts = np.split(np.arange(26), [5, 11, 18])
    a = generator.normal(size=(26, 5)) / 3
    y = np.concatenate([a[part] @ generator.normal(size=(5, 3)) + generator.normal(size=3) for part in parts])
    data, counts = stack_clients((a, y), parts)
    return Problem(
        data=tuple(jnp.asarray(each, dtype) for each in data),
        counts=jnp.asarray(counts),
        test=None,
        ridge=jnp.asarray(0.1, dtype),
        init=lambda key: {"w": jax.random.normal(key, (5, 3), dtype), "b": jnp.zeros(3, dtype)},
        loss=lambda params, a, y: jnp.sum((a @ params["w"] + params["b"][None] - y) ** 2, axis=1) / 2,
        batch_size=2,
    )
