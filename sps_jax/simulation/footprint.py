"""What a simulation needs: the shapes of what clients and server hold, and the memory that these take."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import psutil

from sps_jax.compression.bits import MessageSpec
from sps_jax.layout import Layout
from sps_jax.problem import Problem
from sps_jax.simulation.method import Method
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.round import Client, Round, refuse_weights
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.tiles import ROW, held, up
from sps_jax.simulation.work import Abstract, of_held_out, of_loss, of_step, resized

VECTOR_MEMORY = 128 * 2**20
"""Bytes of a TPU v5e's vector memory."""


class Footprint(NamedTuple):
    """The predicted memory of a simulation on ONE device, in bytes.

    Attributes:
      data: its clients' data, and the held-out data, of which every device has a copy; on a TPU also a copy of full
        batches in its vector memory, where they fit.
      state: the state of the server, and of its clients between rounds.
      messages: the iterates and messages that are kept until the server has answered, beside the work of chunks; of a
        server that needs all messages, also its own copy of those of all devices.
      work: what the clients computed at once hold in a local step, or in an evaluation where that is more: the iterate,
        and the arrays of :mod:`sps_jax.simulation.liveness`; with chunks, a copy of their memory and full batches; with
        a cohort, a copy of its data and memory.
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
      everyones: the message again if the server needs those of all clients, else empty.
      traced: the method and the problem, as shapes.
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
    everyones: Any
    traced: Abstract
    cohort: int | None


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
    return _shapes(Abstract.of(method, problem))


@lru_cache(maxsize=100)
def _shapes(abstract: Abstract) -> Shapes:
    method, problem = abstract.both

    def trace(method: Method, problem: Problem) -> tuple:
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
        specs, all_of_them = (algorithm.uplink.size(m), algorithm.downlink.size(b)), m if algorithm.needs_all else ()
        return h, server, b, x, m, awaiting, answer, *specs, all_of_them

    cohort = None if method.cohort is None else method.cohort.size
    traced: Any = jax.eval_shape(trace, method, problem)
    return Shapes._make([*traced, abstract, cohort])


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
    """Return the bytes that a local step of one client among many touches on a CPU, its data and memory included."""
    return _step(shapes, problem, "cpu", 2, copied=True) // 2


def footprint(
    shapes: Shapes, problem: Problem, layout: Layout, platform: str | None = None, points: int = 1
) -> Footprint:
    """Predict what each device needs for a simulation with these shapes on ``problem`` under ``layout``.

    XLA reserves arguments, results and temporaries; its ``peak_memory_in_bytes`` is what of these is in use at once.
    On a TPU that counts the vector memory as well, into which a program copies what it reads again and again.

    Args:
      shapes: from :func:`shapes`.
      problem: the problem.
      layout: how its clients are laid out.
      platform: ``"cpu"``, ``"gpu"`` (CUDA), ``"rocm"`` or ``"tpu"``, which stores arrays in tiles; None for that of the
        default device.
      points: the number of points of a sweep that a device computes at once; they share the data.

    Example:
      >>> import sps_jax as sps
      >>> problem = sps.problems.quadratic(clients=4, dimension=100)
      >>> specs = sps.shapes(sps.prepare(sps.gd, {"stepsize": 0.5}, problem.ridge.dtype), problem)
      >>> footprint(specs, problem, Layout(), "cpu").state  # the server's 100 float32 numbers; clients keep nothing
      400
    """
    platform = platform or jax.devices()[0].platform
    platform = "cuda" if platform == "gpu" else platform
    tiled = platform == "tpu"
    here = problem.clients // layout.devices
    part = (shapes.cohort or problem.clients) // layout.devices
    mine = (problem.data, problem.counts, problem.sizes, problem.weights)
    common = (problem.test, problem.validation, problem.ridge, problem.smoothness, problem.convexity)
    rows = min(part, layout.chunk or part)
    data = held(here, _one(mine), tiled) + held(None, common, tiled)
    again = held(here, _one(problem.data), tiled)
    if tiled and rows == here and not problem.batch_size and again <= VECTOR_MEMORY:
        data += again
    state = held(points, shapes.server, tiled) + held(points * here, shapes.memory, tiled)
    sent = held(points * part, shapes.awaiting, tiled)
    step = _step(shapes, problem, platform, points * rows, copied=rows < part)
    work = max(step, _evaluation(shapes, problem, layout, platform, points))
    if shapes.cohort is not None:
        work += held(part, (_one(problem.data), shapes.memory), tiled)
    everyones = held(points * part * layout.devices, shapes.everyones, tiled)
    if rows == part:  # the iterates and messages of all take the place of the step's arrays
        return Footprint(data, state, everyones, max(work, sent))
    return Footprint(data, state, sent + everyones, work)


def _step(shapes: Shapes, problem: Problem, platform: str, rows: int, copied: bool) -> int:
    """Return the bytes of a local step of ``rows`` clients, or of sending their messages where that is more.

    ``copied``: their memory and full batches are copies.
    """
    tiled, many = platform == "tpu", rows > 1
    stepping = held(None, resized(of_step(shapes.traced, platform, many), rows), tiled)
    sending = held(None, resized(of_step(shapes.traced, platform, many, sends=True), rows), tiled)
    if platform == "cpu":  # flags of the nonzeros, which are counted
        sending += held(rows, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, "int32"), shapes.message), tiled)
    copies = (shapes.memory, () if problem.batch_size else _one(problem.data)) if copied else ()
    return max(stepping, sending + held(rows, shapes.message, tiled)) + held(rows, (shapes.iterate, copies), tiled)


def _evaluation(shapes: Shapes, problem: Problem, layout: Layout, platform: str, points: int) -> int:
    """Return the bytes of an evaluation: of the clients' losses, or of the held-out data."""
    tiled, here = platform == "tpu", problem.clients // layout.devices
    rows = min(here, layout.chunk or here)
    losses = resized(of_loss(shapes.traced, platform, rows > 1), points * rows)
    bytes_ = held(None, losses, tiled) + (held(rows, _one(problem.data), tiled) if rows < here else 0)
    if tiled and points > 1:  # the outputs of all points' models on the shared data have the points as tiles' rows
        outputs = max(held(None, array, tiled=False) for array in losses)
        bytes_ += outputs * (up(points, ROW) - points) // points
    return max(bytes_, points * held(None, list(of_held_out(shapes.traced, platform, layout.devices)), tiled))


def _one(stacked: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), stacked)


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
