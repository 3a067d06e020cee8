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
from sps_jax.simulation.tiles import held
from sps_jax.simulation.work import Abstract, of_held_out, of_loss, of_step, resized


class Footprint(NamedTuple):
    """The predicted memory of a simulation on ONE device, in bytes.

    Attributes:
      data: its clients' data, and the held-out data, of which every device has a copy.
      state: the state of the server, and of its clients between rounds.
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
      abstract: the method and the problem that these are the shapes of.
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
    abstract: Abstract | None = None
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
    return _shapes(Abstract.of(method, problem))


@lru_cache(maxsize=100)
def _shapes(abstract: Abstract) -> Shapes:
    method, problem = abstract.both

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
    return jax.eval_shape(trace, method, problem)._replace(abstract=abstract, cohort=cohort)


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


def at_work(shapes: Shapes, problem: Problem, platform: str = "cpu") -> int:
    """Return the bytes that a local step of one client among many touches, its data and memory included."""
    return _step(shapes, problem, platform, 2, copied=True) // 2


def footprint(
    shapes: Shapes, problem: Problem, layout: Layout, platform: str | None = None, points: int = 1
) -> Footprint:
    """Predict what each device needs for a simulation with these shapes on ``problem`` under ``layout``.

    Args:
      shapes: from :func:`shapes`.
      problem: the problem.
      layout: how its clients are laid out.
      platform: ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``, which stores arrays in tiles; None for that of the
        default device.
      points: the number of points of a sweep that a device computes at once; they share the data.

    Example:
      >>> import sps_jax as sps
      >>> problem = sps.problems.quadratic(clients=4, dimension=100)
      >>> specs = sps.shapes(sps.prepare(sps.gd, {"stepsize": 0.5}, problem.ridge.dtype), problem)
      >>> footprint(specs, problem, Layout(), "cpu").state  # the server's 100 float32 numbers; clients keep nothing
      400
    """
    platform = platform or jax.default_backend()
    platform = "cuda" if platform == "gpu" else platform
    tiled = platform == "tpu"
    here = problem.clients // layout.devices
    part = (shapes.cohort or problem.clients) // layout.devices
    mine = (problem.data, problem.counts, problem.sizes, problem.weights)
    common = (problem.test, problem.validation, problem.ridge, problem.smoothness, problem.convexity)
    data = held(here, _one(mine), tiled) + held(None, common, tiled)
    state = held(points, shapes.server, tiled) + held(points * here, shapes.memory, tiled)
    sent = held(points * part, shapes.awaiting, tiled)
    rows = min(part, layout.chunk or part)
    work = _step(shapes, problem, platform, points * rows, copied=rows < part)
    assert shapes.abstract is not None
    evaluated = min(here, layout.chunk or here)
    loss = resized(of_loss(shapes.abstract, platform, evaluated > 1), points * evaluated)
    test = of_held_out(shapes.abstract, platform, layout.devices)
    evaluation = max(held(None, loss, tiled), points * held(None, test, tiled))
    if evaluated < here:
        evaluation += held(evaluated, _one(problem.data), tiled)
    if rows == part:  # iterates and messages take the place of the step's arrays
        return Footprint(data, state, 0, max(work, sent, evaluation))
    cohort = 0 if shapes.cohort is None else held(part, (_one(problem.data), shapes.memory), tiled)
    return Footprint(data, state, sent, cohort + max(work, evaluation))


def _step(shapes: Shapes, problem: Problem, platform: str, rows: int, copied: bool) -> int:
    assert shapes.abstract is not None
    tiled = platform == "tpu"
    own = resized(of_step(shapes.abstract, platform, rows > 1), rows)
    data = () if problem.batch_size else _one(problem.data)
    return held(None, own, tiled) + held(rows, (shapes.iterate, (shapes.memory, data) if copied else ()), tiled)


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
