"""Go on from the state that a simulation returned, and run its rounds in blocks that end where it is watched."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.errors import described
from sps_jax.problem import Problem
from sps_jax.results import records
from sps_jax.simulation.footprint import Shapes
from sps_jax.simulation.history import advance
from sps_jax.simulation.method import Method
from sps_jax.simulation.round import start
from sps_jax.simulation.state import Past, State
from sps_jax.simulation.watching import Watch
from sps_jax.tree import Tree

History = dict[str, np.ndarray]


def past_of(state: State | None, params: Tree | None) -> Past:
    """Return the rounds and bits before a simulation that begins at ``state``; None begins at ``params``.

    Raises:
      ValueError: if both are given, or ``state`` is not one that ``simulate`` or ``stream`` returned.
    """
    if state is None:
        return Past()
    if params is not None:
        raise ValueError("give either state, to go on from it, or params, a new starting point, not both")
    if not isinstance(state, State) or state.past is None:
        what = "a state without its past" if isinstance(state, State) else described(state)
        raise ValueError(f"state must be one that sps.simulate or sps.stream returned, not {what}")
    return Past(*(np.asarray(number).item() for number in state.past))


def checked(state: State, method: Method, problem: Problem) -> State:
    """Return ``state`` without its past; raise a ``ValueError`` if it is not one of this method and problem."""
    like = jax.eval_shape(lambda key: start(method.algorithm(), problem, key), jax.random.key(0))
    state = state._replace(past=None)
    if str(jax.tree.structure(state)) != str(jax.tree.structure(like)):
        raise ValueError("state is of another algorithm or model than this simulation: its parts have other names")
    for (path, leaf), want in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(like), strict=True):
        if (np.shape(leaf), jnp.result_type(leaf)) != (want.shape, want.dtype):
            name, is_now = jax.tree_util.keystr(path)[1:], f"{jnp.result_type(leaf)}{list(np.shape(leaf))}"
            raise ValueError(f"state is of another simulation: {name} is {is_now}, not {want.dtype}{list(want.shape)}")
    return state


def with_past(state: State, past: Past) -> State:
    """Return the state for the user, with ``past`` as NumPy numbers: unlike Python's they may exceed 32 bits in jit."""
    return state._replace(past=jax.tree.map(lambda number: np.asarray(number)[()], past))


def run_blocks(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    evaluated: np.ndarray,
    watch: Watch,
    shapes: Shapes,
    encoding: str,
    past: Past,
) -> tuple[History, Past]:
    """Run rounds, as one block, or in blocks that end at an evaluation each, until ``watch`` stops them.

    Args:
      run: ``evaluated -> metrics`` of the next rounds, as :func:`sps_jax.simulation.simulate.run_rounds` returns them;
        fewer rounds than asked for end the simulation.
      evaluated: (R,) booleans, the rounds to evaluate, the last of them.
      watch: called after each block.
      shapes, encoding: as in :func:`sps_jax.simulation.history.tabulate`.
      past: the rounds and bits before these rounds.

    Returns:
      The history of these rounds, and the rounds and bits after them.
    """
    ends = np.flatnonzero(evaluated[:-1]) + 1
    histories: list[History] = []
    for block in [evaluated] if watch.idle else np.split(evaluated, ends):
        metrics = run(block)
        done = len(metrics["finite"])
        history, past = advance(metrics, block[:done], shapes, encoding, past)
        histories.append(history)
        if watch(records(history)) or done < len(block):
            break
    some = [history for history in histories if len(history["round"])] or histories
    return {name: np.concatenate([history[name] for history in some]) for name in some[0]}, past
