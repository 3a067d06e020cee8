"""What a simulation needs: the shapes of what clients and server hold, and the memory that these take."""

import itertools
import math
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
    """The predicted memory of a simulation on ONE device, in bytes.

    Attributes:
      data: its clients' data, and the held-out data, of which every device has a copy.
      state: the state of the server, and of its clients between rounds.
      messages: the iterates and messages that are kept until the server has answered; of a server that needs all
        messages, also its own copy of those of all devices.
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
      everyones: the message again if the server needs those of all clients, else empty.
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
    everyones: Any = ()


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
        part = taking_part(problem, method.cohort, keys, t)
        refuse_weights(algorithm, problem, part.shares)
        h, server = algorithm.init(problem.init(keys.init))
        b = algorithm.broadcast(server)
        this = Round(algorithm, part, problem.clients, keys, t)
        x, info = algorithm.start(b, h), this.round_info(t, 1)
        first: Client = jax.tree.map(lambda a: a[0], this.members)
        m = this.send(info, t, b, x, h, first)
        own = info(first.who)._replace(begun=b)
        awaiting = _read(lambda sent: algorithm.receive(sent[0], h, sent[1], b, own), (x, m))
        answer = _read(lambda b: algorithm.receive(x, h, m, b, own), b)
        all_of_them = m if algorithm.needs_all else ()
        specs = algorithm.uplink.size(m), algorithm.downlink.size(b)
        return Shapes(h, server, b, x, m, awaiting, answer, *specs, everyones=all_of_them)

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
    return sum(map(tree.bytes, _touched(shapes, problem)))


def _touched(shapes: Shapes, problem: Problem) -> tuple[Any, ...]:
    """Return the shapes of one client's temporaries in a chunk."""
    data = () if problem.batch_size else _one(problem.data)
    return (*[shapes.iterate] * 4, shapes.saved, data)


def footprint(shapes: Shapes, problem: Problem, layout: Layout, platform: str | None = None) -> Footprint:
    """Predict what each device needs for a simulation with these shapes on ``problem`` under ``layout``.

    Args:
      shapes: from :func:`shapes`.
      problem: the problem.
      layout: how its clients are laid out.
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``, which stores arrays in tiles; None for that of the default device.

    Example:
      >>> import sps_jax as sps
      >>> problem = sps.problems.quadratic(clients=4, dimension=100)
      >>> specs = sps.shapes(sps.prepare(sps.gd, {"stepsize": 0.5}, problem.ridge.dtype), problem)
      >>> footprint(specs, problem, Layout(), "cpu").state  # the server's 100 float32 numbers; clients keep nothing
      400
    """
    tiled = (platform or jax.devices()[0].platform) == "tpu"
    here = problem.clients // layout.devices
    part = (shapes.cohort or problem.clients) // layout.devices
    mine = (problem.data, problem.counts, problem.sizes, problem.weights)
    common = (problem.test, problem.validation, problem.ridge, problem.smoothness, problem.convexity)

    def held(rows: int, *one: Any) -> int:
        return _held(rows, one, tiled)

    if layout.chunk is None:  # no chunks: full batches read the data in place
        work = held(here, shapes.iterate, shapes.iterate, shapes.saved)
    else:
        work = held(min(part, layout.chunk), *_touched(shapes, problem))
    if shapes.cohort is not None:
        work += held(part, _one(problem.data), shapes.memory)
    data = held(here, _one(mine)) + _held(None, common, tiled)
    state = _held(None, shapes.server, tiled) + held(here, shapes.memory)
    messages = held(part, shapes.awaiting) + held(part * layout.devices, shapes.everyones)
    return Footprint(data, state, messages, work)


def _one(stacked: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), stacked)


def _held(rows: int | None, arrays: Any, tiled: bool) -> int:
    """Return the bytes of arrays, stacked ``rows`` times along a new first axis unless that is None."""
    first = () if rows is None else (rows,)
    return sum(_stored((*first, *a.shape), a.dtype.itemsize, tiled) for a in jax.tree.leaves(arrays))


def _stored(shape: tuple[int, ...], size: int, tiled: bool) -> int:
    """Return the bytes of an array of entries of ``size`` bytes.

    A TPU stores two axes in tiles of 8 x 128 entries (of 4 x 128, 2 x 128 or 128 where there are fewer rows): those two
    of the last three axes that waste least.
    """
    if not tiled or not shape or 0 in shape:
        return math.prod(shape) * size
    if len(shape) == 1:
        return _up(shape[0], 1024 if shape[0] > 512 else 128) * size
    pairs = itertools.permutations(range(len(shape))[-3:], 2)
    least = min(
        _up(shape[i], min(8, 1 << (shape[i] - 1).bit_length())) / shape[i] * _up(shape[j], 128) / shape[j]
        for i, j in pairs
    )
    return round(math.prod(shape) * size * least)


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def free_memory(devices: int = 1) -> int | None:
    """Return the bytes that each of ``devices`` devices may take, all processes' together; None if unknown.

    Devices of a CPU share the memory of their host. Among accelerators the fullest one counts.
    """
    local = jax.local_devices()
    if local[0].platform == "cpu":
        return psutil.virtual_memory().available // max(1, devices // jax.process_count())
    stats = [device.memory_stats() or {} for device in local]
    if not all("bytes_limit" in s for s in stats):
        return None
    return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
