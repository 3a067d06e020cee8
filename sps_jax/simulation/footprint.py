"""What a simulation needs: the shapes of what clients and server hold, and the memory that these take."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import psutil

from sps_jax import tree
from sps_jax.compression.bits import MessageSpec
from sps_jax.layout import Layout
from sps_jax.problem import Problem
from sps_jax.simulation.method import Method
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.round import Client, Round, refuse_weights
from sps_jax.simulation.schedule import split_key
from sps_jax.tree import Tree


class Footprint(NamedTuple):
    """The predicted memory of a simulation in bytes, summed over all devices.

    Attributes:
      data: the problem's data.
      state: the state of the server and of every client between rounds.
      messages: the iterates and messages that are kept until the server has answered.
      work: temporaries of the clients computed at once: iterate, gradient and the residuals of the forward pass
        (activations); with chunks, a copy of their inputs and outputs; with a cohort, a copy of its data and memory.
    """

    data: int
    state: int
    messages: int
    work: int

    @property
    def total(self) -> int:
        """The sum of all four, in bytes."""
        return sum(self)


class Shapes(NamedTuple):
    """The arrays of one client and of the server, as pytrees of shapes.

    Attributes:
      memory: the state that a client keeps between rounds.
      server: the server's state.
      broadcast: the broadcast b.
      iterate: the iterate x.
      message: the message m that a client sends.
      awaiting: the leaves of iterate and message that a client still reads when it receives the answer.
      answer: the leaves of the broadcast that a client reads when it receives the answer.
      up: the uplink's :class:`sps_jax.MessageSpec`.
      down: the downlink's.
      saved: the residuals that the forward pass of a local gradient keeps for the backward pass.
      cohort: C, the number of clients per round; None for all.
    """

    memory: Any
    server: Any
    broadcast: Any
    iterate: Any
    message: Any
    awaiting: Any
    answer: Any
    up: MessageSpec
    down: MessageSpec
    saved: Any = None
    cohort: int | None = None


def shapes(method: Method, problem: Problem) -> Shapes:
    """Return the shapes of a simulation, by tracing; cached for equal static choices and problems of equal shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem = quadratic(clients=4, dimension=8)
      >>> method = sps.prepare(sps.proxskip, {"stepsize": 0.5, "prob": 0.5}, jnp.float32)
      >>> shapes(method, problem).up.entries
      8
    """
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (method, problem))
    leaves, structure = jax.tree.flatten(abstract)
    return _shapes(structure, tuple(leaves))


@lru_cache(maxsize=100)
def _shapes(structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> Shapes:
    method, problem = structure.unflatten(leaves)

    def trace(method: Method, problem: Problem) -> Shapes:
        algorithm, keys, t = method.algorithm(), split_key(jax.random.key(0)), jax.numpy.int32(0)
        refuse_weights(algorithm, problem)
        h, server = algorithm.init(problem.init(keys.init))
        b = algorithm.broadcast(server)
        this = Round(algorithm, taking_part(problem, method.cohort, keys, t), problem.clients, keys)
        x, info = algorithm.start(b, h), this.round_info(t, 1)
        first: Client = jax.tree.map(lambda a: a[0], this.members)
        m = this.send(info, t, b, x, h, first)
        awaiting = _read(lambda sent: algorithm.receive(sent[0], h, sent[1], b, info(first.who)), (x, m))
        answer = _read(lambda b: algorithm.receive(x, h, m, b, info(first.who)), b)
        return Shapes(h, server, b, x, m, awaiting, answer, algorithm.uplink.size(m), algorithm.downlink.size(b))

    cohort = None if method.cohort is None else method.cohort.size
    return jax.eval_shape(trace, method, problem)._replace(saved=_saved(problem), cohort=cohort)


def _saved(problem: Problem) -> list[Any]:
    """Return the shapes of the residuals of a local gradient that are neither parameters nor data.

    An upper bound: the compiler stores most of them and recomputes some, in transformers most.
    """

    def residuals(
        params: Tree, data: tuple[jax.Array, ...], count: jax.Array, t: jax.Array, key: jax.Array
    ) -> list[jax.Array]:
        return jax.tree.leaves(jax.vjp(problem.local_loss(data, count, t, key), params)[1])

    data, count = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (problem.data, problem.counts))
    t, key = jax.eval_shape(lambda: (jax.numpy.int32(0), jax.random.key(0)))
    params = jax.eval_shape(problem.init, key)
    program = jax.make_jaxpr(residuals)(params, data, count, t, key).jaxpr
    given = {id(v) for v in program.invars}
    kept = {id(v): v.aval for v in program.outvars if id(v) not in given}
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in kept.values()]


def _read(function: Callable, argument: Any) -> list[jax.Array]:
    """Return the leaves of ``argument`` that the result of ``function`` depends on; the compiler drops the others."""
    program = jax.make_jaxpr(function)(argument).jaxpr
    read = {id(v) for v in program.outvars}
    for equation in reversed(program.eqns):
        if any(id(v) in read for v in equation.outvars):
            read |= {id(v) for v in equation.invars}
    return [leaf for leaf, v in zip(jax.tree.leaves(argument), program.invars, strict=True) if id(v) in read]


def batch_rows(problem: Problem) -> int:
    """Return the number of rows in a local gradient, padding included."""
    return problem.batch_size or problem.data[0].shape[1]


def at_work(shapes: Shapes, problem: Problem) -> int:
    """Return the bytes of one client's temporaries in a chunk.

    Full batches copy the client's data; minibatches are already part of ``saved``.
    """
    data = 0 if problem.batch_size else tree.bytes(problem.data) // problem.clients
    return 4 * tree.bytes(shapes.iterate) + tree.bytes(shapes.saved) + data


def footprint(shapes: Shapes, problem: Problem, layout: Layout) -> Footprint:
    """Predict the memory of a simulation with these shapes on ``problem`` under ``layout``."""
    n, part = problem.clients, shapes.cohort or problem.clients
    if layout.chunk is None:  # no chunks: full batches read the data in place
        work = n * (2 * tree.bytes(shapes.iterate) + tree.bytes(shapes.saved))
    else:
        work = min(part, layout.chunk * layout.devices) * at_work(shapes, problem)
    if shapes.cohort is not None:
        work += part * (tree.bytes(problem.data) // n + tree.bytes(shapes.memory))
    state = tree.bytes(shapes.server) + n * tree.bytes(shapes.memory)
    return Footprint(tree.bytes(problem), state, part * tree.bytes(shapes.awaiting), work)


def free_memory() -> int | None:
    """Return the bytes available on the first device (on the host, for CPU devices); None if unknown."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return psutil.virtual_memory().available
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
