"""Choose a layout: which devices, how many clients at once, and whether that fits in memory."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import psutil

from sps_jax import tree
from sps_jax.compression.bits import MessageSpec
from sps_jax.errors import unknown
from sps_jax.layout import Layout, clients_mesh
from sps_jax.problem import Problem
from sps_jax.simulation.method import Method
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.round import Client, Round, refuse_weights
from sps_jax.simulation.schedule import split_key
from sps_jax.tree import Tree

ONE_BY_ONE = 500_000
"""Multiply-adds of a client's forward pass above which XLA:CPU runs faster client by client.

Below, call overhead dominates, and ``vmap`` shares it; above, a batched matrix product is slower than single ones.
"""
CACHE = 8 * 2**20
"""Bytes that the clients computed at once on a CPU device may touch; more would not fit in its cache."""


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


def choose(
    shapes: Shapes,
    problem: Problem,
    *,
    devices: int | None = None,
    chunk: int | str = "auto",
    memory: int | None = None,
) -> Layout:
    """Choose a layout for these shapes on this machine.

    Args:
      shapes: from :func:`shapes`.
      problem: the problem to simulate.
      devices: the number of JAX devices to use, a divisor of n; None for as many as possible.
      chunk: the number of clients that a device computes at once, ``"all"``, or ``"auto"``.
      memory: the bytes available to this process; None to ask the machine.

    Raises:
      ValueError: if ``devices`` exceeds the available devices or does not divide n, ``chunk`` is out of range, or the
        layout does not fit in memory; the message gives the largest chunk that would.

    Example:
      >>> import jax.numpy as jnp
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem = quadratic(clients=4, dimension=8)
      >>> method = sps.prepare(sps.proxskip, {"stepsize": 0.5, "prob": 0.5}, jnp.float32)
      >>> choose(shapes(method, problem), problem, devices=1, chunk=2)
      Layout(chunk=2, mesh=None)
    """
    n, part, available = problem.clients, shapes.cohort or problem.clients, jax.devices()
    fitting = [d for d in range(1, min(part, len(available)) + 1) if n % d == part % d == 0]
    if devices is not None and devices not in fitting:
        allowed = ", ".join(map(str, fitting))
        clients = f"{n} clients" if n == part else f"{n} clients and the {part} of a cohort"
        shared = f" ({jax.process_count()} processes use all their devices)" if jax.process_count() > 1 else ""
        raise ValueError(f"devices must divide the {clients} and be available: {allowed}; not {devices}{shared}")
    count = devices or fitting[-1]
    mesh = clients_mesh(available[:count]) if count > 1 else None
    here = part // count
    if isinstance(chunk, int) and not 1 <= chunk <= here:
        raise ValueError(f"chunk must be between 1 and the {here} clients of a device, not {chunk}")
    on_cpu = available[0].platform == "cpu"
    named = {"all": here, "auto": _by_cache(shapes, problem, here) if on_cpu else here}
    if isinstance(chunk, str) and chunk not in named:
        raise unknown("chunk", chunk, named)
    wanted = named[chunk] if isinstance(chunk, str) else chunk
    memory = free_memory() if memory is None else memory

    def needed(layout: Layout) -> int:
        return footprint(shapes, problem, layout).total // jax.process_count()

    all_at_once = here if shapes.cohort is None else None  # with a cohort, evaluations need chunks of all clients
    layouts = [Layout(None if size == all_at_once else size, mesh) for size in range(wanted, 0, -1)]
    if memory is None or needed(layouts[0]) <= memory:
        return layouts[0]
    fits = next((layout for layout in layouts if needed(layout) <= memory), None)
    if chunk == "auto" and fits:
        return fits
    hint = f"a chunk of {fits.chunk} would fit" if fits else "no chunk would fit: take fewer clients"
    raise ValueError(f"this needs {_bytes(needed(layouts[0]))} of memory where {_bytes(memory)} are free; {hint}")


def _by_cache(shapes: Shapes, problem: Problem, here: int) -> int:
    if batch_rows(problem) * tree.size(shapes.iterate) >= ONE_BY_ONE:
        return 1
    return _divisor(here, CACHE // at_work(shapes, problem))


def _divisor(n: int, most: int) -> int:
    """Return the largest divisor of ``n`` up to ``most``, at least 1; a remainder would compile a second program."""
    return max((d for d in range(1, n + 1) if n % d == 0 and d <= most), default=1)


def free_memory() -> int | None:
    """Return the bytes available on the first device (on the host, for CPU devices); None if unknown."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return psutil.virtual_memory().available
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def describe(layout: Layout, need: Footprint, clients: int) -> str:
    """Describe the layout in words; ``clients`` is the number of clients per round."""
    here = clients // layout.devices
    how = f"{layout.chunk or here} of {here} clients at once"
    where = "1 device" if layout.devices == 1 else f"{layout.devices} devices, on each"
    return f"{where}: {how}; {_bytes(need.total)} predicted"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def summary(layout: Layout, need: Footprint) -> dict[str, Any]:
    """Return the layout as columns of a record."""
    return {"devices": layout.devices, "chunk": layout.chunk or "all", "predicted_bytes": need.total}
