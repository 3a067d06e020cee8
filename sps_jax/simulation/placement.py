"""Choose a layout: which devices, how many clients at once, and whether that fits in memory."""

from dataclasses import replace
from typing import Any

import jax

from sps_jax import tree
from sps_jax.errors import refuse_unknown
from sps_jax.layout import Layout, clients_mesh
from sps_jax.problem import Problem
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.footprint import Footprint, Shapes, at_work, batch_rows, footprint, free_memory, shapes
from sps_jax.simulation.method import Method

ONE_BY_ONE = 500_000
"""Multiply-adds of a client's forward pass above which XLA:CPU runs faster client by client.

Below, call overhead dominates, and ``vmap`` shares it; above, a batched matrix product is slower than single ones.
"""
CACHE = 8 * 2**20
"""Bytes that the clients computed at once on a CPU device may touch; more would not fit in its cache."""

AT_ONCE_ON_TPU = 10
"""Clients at once for which XLA's estimates of whole rounds on a v5e are the least, see :func:`fastest`.

FEMNIST's 100 linear models take 2.5 ms, 100 transformers 130, ten small ResNets 123. With all 100 at once these are 2.9
and 171 ms, in 1.8 and 7.7 times the memory; one by one 17, 258 and 135. They are estimates, not measured times.
"""


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
      chunk: the number of clients that a device computes at once, ``"all"``, or ``"auto"``: as many as are fastest, see
        :func:`fastest`, or fewer where memory is short.
      memory: the bytes that each device may take; None to ask the machine.

    Raises:
      ValueError: if ``devices`` exceeds the available devices or does not divide n, ``chunk`` is out of range, or the
        layout does not fit in memory; the message gives the largest chunk that would.

    Example:
      >>> import sps_jax as sps
      >>> problem = sps.problems.quadratic(clients=4)
      >>> method = sps.prepare(sps.gd, {"stepsize": 0.5}, problem.ridge.dtype)
      >>> choose(sps.shapes(method, problem), problem, devices=1, chunk=2)
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
    if isinstance(chunk, str):
        refuse_unknown("chunk", chunk, ("all", "auto"))
        wanted = here if chunk == "all" else fastest(shapes, problem, here, available[0].platform)
    elif 1 <= chunk <= here:
        wanted = chunk
    else:
        raise ValueError(f"chunk must be between 1 and the {here} clients of a device, not {chunk}")
    memory = free_memory(count) if memory is None else memory

    def needed(layout: Layout) -> int:
        return footprint(shapes, problem, layout).total

    all_at_once = here if shapes.cohort is None else None  # with a cohort, evaluations need chunks of all clients
    layouts = [Layout(None if size == all_at_once else size, mesh) for size in range(wanted, 0, -1)]
    if memory is None or needed(layouts[0]) <= memory:
        return layouts[0]
    fits = next((layout for layout in layouts if needed(layout) <= memory), None)
    if chunk == "auto" and fits:
        return fits
    hint = f"a chunk of {fits.chunk} would fit" if fits else "no chunk would fit: take fewer clients"
    each = "this needs" if count == 1 else f"each of {count} devices needs"
    raise ValueError(f"{each} {_bytes(needed(layouts[0]))} of memory where {_bytes(memory)} are free; {hint}")


def fastest(shapes: Shapes, problem: Problem, here: int, platform: str) -> int:
    """Return how many of a device's ``here`` clients it computes fastest at once, wherever memory is not short.

    On a CPU as many as its cache holds, or one; on a TPU at most ``AT_ONCE_ON_TPU``; on a GPU all, because kernels
    decide there. By XLA's plans for an H100 ("A round by layout" in ``benchmarks/results/compiled/table.md``) FEMNIST's
    100 linear models are 151 kernels and 1.1 GB a round at once, and 15,228 and 2.2 one by one. A small ResNet's ten
    clients are 2,107 kernels and 62 GB at once, and 18,936 and 43 one by one: at 3.35 TB/s this saves 6 ms, and at 1.5
    us a kernel it costs 25.
    """
    if platform == "cpu":
        return _by_cache(shapes, problem, here)
    return min(here, AT_ONCE_ON_TPU) if platform == "tpu" else here


def _by_cache(shapes: Shapes, problem: Problem, here: int) -> int:
    if batch_rows(problem) * tree.size(shapes.iterate) >= ONE_BY_ONE:
        return 1
    return _divisor(here, CACHE // at_work(shapes, problem))


def _divisor(n: int, most: int) -> int:
    """Return the largest divisor of ``n`` up to ``most``, at least 1; a remainder would compile a second program."""
    return max((d for d in range(1, n + 1) if n % d == 0 and d <= most), default=1)


def describe(layout: Layout, need: Footprint, clients: int) -> str:
    """Describe the layout in words; ``clients`` is the number of clients per round."""
    here = clients // layout.devices
    how = f"{layout.chunk or here} of {here} clients at once"
    where = "1 device" if layout.devices == 1 else f"{layout.devices} devices, on each"
    return f"{where}: {how}; {_bytes(need.total)} predicted"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def summary(layout: Layout, need: Footprint) -> dict[str, Any]:
    """Return the layout as columns of a record; the predicted bytes are those of one device."""
    return {"devices": layout.devices, "chunk": layout.chunk or "all", "predicted_bytes": need.total}


def cohort_of(method: Method) -> Cohort:
    """Return the method's cohort.

    Raises:
      ValueError: if there is none: streaming never holds all clients on the device.
    """
    if method.cohort is None:
        raise ValueError("cohort must be the number of clients per round, not None; for all clients use simulate")
    return method.cohort


def cohort_plan(method: Method, problem: Problem, **choices: Any) -> Layout:
    """Choose a layout for the cohort, the only clients on the device; ``choices`` as in :func:`sps_jax.choose`."""
    size = cohort_of(method).size
    data, counts = tuple(a[:size] for a in problem.data), problem.counts[:size]
    some = replace(problem, data=data, counts=counts, sizes=None, weights=None)
    layout = choose(shapes(method, problem)._replace(cohort=None), some, **choices)
    # not None, which footprint would read as all n clients
    return layout._replace(chunk=layout.chunk or size // layout.devices)
