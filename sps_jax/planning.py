"""Choosing a layout: which devices, how many clients at once, and whether it fits in memory."""

import os
from typing import Any, NamedTuple

import jax

from sps_jax import tree
from sps_jax.engine import message_shapes, start
from sps_jax.hyperparameters import Setup
from sps_jax.plan import Plan, clients_mesh
from sps_jax.problem import Problem

ONE_BY_ONE = 500_000
"""Multiply-adds of a client's forward product from which XLA:CPU is faster client by client.

Below, calls dominate and ``vmap`` shares them; above, a batch of small matrix products is slower than its products.
"""
CACHE = 8 * 2**20
"""Bytes that the clients computed at once on a CPU device may touch: more than these spill the cache."""


class Footprint(NamedTuple):
    """Predicted bytes of a simulation, all devices together.

    Attributes:
      data: the problem.
      state: what the server and each client keep between rounds.
      messages: iterates and messages, kept until the server has answered.
      work: what the clients of a chunk need: four models (iterate, gradient, direction, next) and a batch each.
    """

    data: int
    state: int
    messages: int
    work: int

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(self)


class Sizes(NamedTuple):
    """Bytes of one client's iterate, of iterate and message together, of its batch; entries of a model; batch rows."""

    iterate: int
    sent: int
    batch: int
    entries: int
    rows: int


def sizes(setup: Setup, hyper: dict[str, jax.Array], problem: Problem) -> Sizes:
    """Known from shapes, nothing is computed."""
    x, message = message_shapes(setup, problem, hyper)
    rows = problem.batch_size or problem.data[0].shape[1]
    batch = tree.bytes(problem.data) * rows // (problem.clients * problem.data[0].shape[1])
    return Sizes(tree.bytes(x), tree.bytes(x) + tree.bytes(message), batch, tree.size(x), rows)


def footprint(setup: Setup, hyper: dict[str, jax.Array], problem: Problem, plan: Plan) -> Footprint:
    """What a simulation of ``setup`` on ``problem`` laid out by ``plan`` needs."""
    n, each = problem.clients, sizes(setup, hyper, problem)
    state = jax.eval_shape(lambda h: start(setup.build(h), problem, jax.random.key(0)), hyper)
    if plan.chunk is None:  # all of them are the messages, and full batches are the data
        work = n * each.batch if problem.batch_size else 0
    else:
        work = min(n, plan.chunk * plan.devices) * (4 * each.iterate + each.batch)
    return Footprint(tree.bytes(problem), tree.bytes(state), n * each.sent, work)


def choose(
    setup: Setup,
    hyper: dict[str, jax.Array],
    problem: Problem,
    *,
    devices: int | None = None,
    chunk: int | str = "auto",
    memory: int | None = None,
) -> Plan:
    """A layout for these shapes on this machine.

    Args:
      setup, hyper: from :func:`sps_jax.hyperparameters.prepare`.
      problem: what is simulated.
      devices: how many to use, of those JAX sees and dividing n; None for as many as possible.
      chunk: clients at once on a device, ``"all"``, or ``"auto"``.
      memory: bytes there are; None asks the machine.

    Raises:
      ValueError: for more devices than there are or that do not divide n, a chunk out of range, or a layout that does
        not fit in memory; it names the largest chunk that would.
    """
    n, available = problem.clients, jax.devices()
    fitting = [d for d in range(1, min(n, len(available)) + 1) if n % d == 0]
    if devices is not None and devices not in fitting:
        allowed = ", ".join(map(str, fitting))
        raise ValueError(f"devices must divide the {n} clients and be here: {allowed}; not {devices}")
    count = devices or fitting[-1]
    mesh = clients_mesh(available[:count]) if count > 1 else None
    here = n // count
    if isinstance(chunk, int) and not 1 <= chunk <= here:
        raise ValueError(f"chunk must be between 1 and the {here} clients of a device, not {chunk}")
    each, on_cpu = sizes(setup, hyper, problem), available[0].platform == "cpu"
    wanted = {"all": here, "auto": _by_cache(each, here) if on_cpu else here}.get(chunk, chunk)
    memory = free_memory() if memory is None else memory

    def needed(plan):
        return footprint(setup, hyper, problem, plan).total

    plans = [Plan(None if size == here else size, mesh) for size in range(wanted, 0, -1)]
    if memory is None or needed(plans[0]) <= memory:
        return plans[0]
    fits = next((plan for plan in plans if needed(plan) <= memory), None)
    if chunk == "auto" and fits:
        return fits
    hint = f"a chunk of {fits.chunk} would fit" if fits else "no chunk would fit: take fewer clients"
    raise ValueError(f"this needs {_bytes(needed(plans[0]))} of memory where {_bytes(memory)} are free; {hint}")


def _by_cache(each: Sizes, here: int) -> int:
    if each.rows * each.entries >= ONE_BY_ONE:
        return 1
    return _divisor(here, CACHE // (4 * each.iterate + each.batch))


def _divisor(n: int, most: int) -> int:
    """The largest divisor of ``n`` that is at most ``most``, 1 if there is none: a remainder is compiled twice."""
    return max((d for d in range(1, n + 1) if n % d == 0 and d <= most), default=1)


def free_memory() -> int | None:
    """Bytes free on the first device (of the host for CPU devices), None where it does not say."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def describe(plan: Plan, need: Footprint, clients: int) -> str:
    """The layout in words."""
    here = clients // plan.devices
    how = f"{plan.chunk or here} of {here} clients at once"
    where = "1 device" if plan.devices == 1 else f"{plan.devices} devices, on each"
    return f"{where}: {how}; {_bytes(need.total)} predicted"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def summary(plan: Plan, need: Footprint) -> dict[str, Any]:
    """The layout for a record."""
    return {"devices": plan.devices, "chunk": plan.chunk or "all", "predicted_bytes": need.total}
