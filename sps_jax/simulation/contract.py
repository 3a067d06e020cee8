"""Check that your own algorithm keeps the contract of :mod:`sps_jax.algorithms.base`."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
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
from sps_jax.simulation.calls import watched
from sps_jax.simulation.footprint import shapes
from sps_jax.simulation.hyperparameters import parameters
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.schedule import Schedule
from sps_jax.simulation.stacking import stack_clients
from sps_jax.simulation.state import State
from sps_jax.simulation.step import StepState, begin, step
from sps_jax.tree import Tree

DEFAULTS = {"stepsize": 0.1, "prob": 0.4, "sparsity": 0.7}
ROUNDS = 8
CLOSE, ROUGH = 1e-12, 1e-5
"""How close two results are in float64, and in float32 relative to the largest number."""


def check_algorithm(
    make: Callable[..., Algorithm], hyper: Mapping[str, Any] | None = None, problem: Problem | None = None
) -> list[str]:
    r"""Check that an algorithm satisfies what the engine, the bit accounting and ProxSkip's theory rely on.

    The checks run a few rounds in float64, with the coin and minibatches, on least squares over four heterogeneous
    clients, or on ``problem``:

    * ``shapes``: each function takes what it is given and returns something; a round preserves the shapes and dtypes of
      server state, memory and model, in float32 too; ``with_model`` returns a server state like the one it was given.
    * ``steps``: a round equals its steps run one by one, so that ``simulate`` and ``iterate`` agree to 1e-12.
    * ``layouts``: running all clients at once and one after another agrees to 1e-12.
    * ``bits``: the count of every message, uplink and downlink, covers all its floats except zeros and ones (as in a
      mask), and does not exceed their number.
    * ``control variates``: if the algorithm has them and promises ``zero_sum``, :math:`\sum_i h_i` stays zero, to
      1e-12 of the largest.

    Args:
      make: the algorithm, a function of keyword-only hyperparameters.
      hyper: the hyperparameters to check it with. A ``stepsize`` (above 0.5 it may diverge here), ``prob`` or
        ``sparsity`` that it takes and that is not given is 0.1, 0.4 or 0.7.
      problem: a problem of your own, in whose dtype it then runs; in float32, where the last bits of two orders of
        summation differ, 1e-12 becomes 1e-5 of the largest number.

    Returns:
      The names of the checks that passed; ``control variates`` only if the algorithm promises that sum.

    Raises:
      AssertionError: if a check fails; the message says which, and how.
      ValueError: if the algorithm does not take one of the hyperparameters.

    >>> from sps_jax import gd
    >>> def lighter(*, stepsize):
    ...     return gd(stepsize=stepsize)._replace(model=lambda server: {"w": server["w"]})
    >>> try:
    ...     check_algorithm(lighter)
    ... except AssertionError as error:
    ...     print(str(error).partition(":")[0])
    the model differs from the parameters in shape or dtype
    """
    takes = parameters(make)
    hyper = {name: value for name, value in DEFAULTS.items() if name in takes} | dict(hyper or {})
    with nullcontext() if problem is not None else jax.enable_x64(True):
        key = jax.random.key(0)
        for one in (_least_squares(jnp.float32), _least_squares(jnp.float64)) if problem is None else (problem,):
            method = prepare(make, hyper, one.ridge.dtype)
            _check_shapes(method, one, key)
        trial = (method.algorithm(), one, method.schedule, key)
        state, counts = _rounds(*trial, VMAP)
        _check(bool(tree.finite(state.server)), f"the algorithm diverges with {hyper}: try a smaller stepsize")
        _check_close(state, _steps(*trial, int(state.t)), "a round differs from its steps run one by one")
        one_by_one, _ = _rounds(*trial, Layout(chunk=1))
        _check_close(state, one_by_one, "running all clients at once and one after another differs")
        specs = shapes(method, one)
        _check_bits("uplink", counts["up"], specs.up)
        _check_bits("downlink", counts["down"], specs.down)
        return ["shapes", "steps", "layouts", "bits", *_check_control(trial[0], state, one.clients)]


def _check(holds: bool, failure: str) -> None:
    if not holds:
        raise AssertionError(failure)


def _check_shapes(method: Method, problem: Problem, key: jax.Array) -> None:
    """Compare shapes and dtypes by ``eval_shape``, with traced hyperparameters, as in a simulation."""

    def run(method: Method) -> tuple[Tree, Tree, State, State, Any]:
        algorithm, params = watched(method.algorithm()), problem.init(key)
        before = start(algorithm, problem, key)
        after, _ = one_round(algorithm, problem, method.schedule, before, key)
        first = jax.tree.map(lambda a: a[0], after.memory)
        own = algorithm.personal(first, after.server)
        models = algorithm.model(after.server), own if jax.tree.leaves(own) else params
        return params, models, before, after, algorithm.with_model(before.server, params)

    params, (model, own), before, after, other = jax.eval_shape(run, method)
    for what, first, second in (
        ("a round changes the shapes or dtypes of the server state", before.server, after.server),
        ("a round changes the shapes or dtypes of the clients' memory", before.memory, after.memory),
        ("the model differs from the parameters in shape or dtype", params, model),
        ("a client's own model differs from the parameters in shape or dtype", params, own),
        ("with_model changes the shapes or dtypes of the server state", before.server, other),
    ):
        first, second = _described(first), _described(second)
        _check(first == second, f"{what}: {first} became {second}")


def _described(arrays: Tree) -> dict[str, str]:
    """Return the dtype and shape of each leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _rounds(
    algorithm: Algorithm, problem: Problem, schedule: Schedule, key: jax.Array, layout: Layout
) -> tuple[State, dict[str, jax.Array]]:
    """Return the state after some rounds, and per message: values, positions, and the floats that must be counted."""
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


def _check_close(state: State, other: State | StepState, failure: str) -> None:
    found, others = ([np.asarray(a, float) for a in jax.tree.leaves((s.server, s.memory))] for s in (state, other))
    off = max(np.max(np.abs(a - b), initial=0) for a, b in zip(found, others, strict=True))  # also of masks
    close = CLOSE if _is_double(state) else ROUGH * max(np.max(np.abs(a), initial=0) for a in found)
    _check(off <= close, f"{failure}: the results differ by up to {off:.1e}")


def _is_double(state: State) -> bool:
    return any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(state.server))


def _check_bits(link: str, counts: jax.Array, size: MessageSpec) -> None:
    values, _, due = np.moveaxis(np.asarray(counts), -1, 0)
    worst = (due - values).argmax()
    _check(
        (values >= due).all(),
        f"the {link} counts {values.flat[worst]} numbers in a message that contains {due.flat[worst]}",
    )
    _check((values <= size.entries).all(), f"the {link} counts {values.max()} numbers in a message of {size.entries}")


def _check_control(algorithm: Algorithm, state: State, clients: int) -> list[str]:
    variates = jax.vmap(algorithm.control, in_axes=(0, None), axis_size=clients)(state.memory, state.server)
    if not (algorithm.zero_sum and jax.tree.leaves(variates)):
        return []
    off = float(tree.largest(jax.tree.map(lambda a: jnp.sum(a, axis=0), variates)) / tree.largest(variates))
    _check(
        off <= (CLOSE if _is_double(state) else ROUGH),
        f"the control variates do not sum to zero: |sum h| is {off:.1e} of the largest",
    )
    return ["control variates"]


def _least_squares(dtype: Any) -> Problem:
    """Return least squares over clients with different inputs, solutions and example counts; batches of two."""
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
