"""Layouts: how the clients are mapped onto devices and into chunks. A layout never changes what is computed.

:func:`over_clients` maps a function of ONE client over all of them; no other code depends on the layout:

| layout | how the clients run |
|---|---|
| `Layout()` | all clients at once, `vmap` |
| `Layout(chunk=1)` | client by client, in a loop |
| `Layout(chunk=c)` | c clients at once, in a loop over chunks |
| `Layout(chunk, mesh)` | any of these on each device of a mesh with the axis `"clients"`, n/D clients per device |

Messages are summed chunk by chunk with compensated summation: n messages are never stacked, and the layouts agree to
the last bits. Float64 results agree to 1e-12, float32 results to 1e-5 of the largest number after a dozen rounds. TopK
is discontinuous, so in long float32 runs a last bit can decide which of two nearly equal weights is kept.

Several GPUs (``pip install -e '.[cuda]'``) are used by default: the clients are sharded over all devices that JAX
finds, each client's data and memory stay on its device, and a round ends with one ``psum`` over devices. A CPU is one
device unless the program calls ``jax.config.update("jax_num_cpu_devices", 2)`` before it computes anything; the tests
check several devices that way. :func:`sps_jax.choose` chooses a layout; for several hosts see
:mod:`sps_jax.runs.processes`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sps_jax import tree
from sps_jax.tree import Tree

AXIS = "clients"

THREEFRY = "threefry2x32"
"""The random number generator of every simulation, whatever JAX's default is. With others, such as rbg, what a client
draws depends on which clients share a ``vmap``, and so on the layout."""


def random_key(seed: jax.Array | np.ndarray | int) -> jax.Array:
    """Return the threefry key of a seed.

    Example:
      >>> random_key(0) == jax.random.key(0, impl="threefry2x32")
      Array(True, dtype=bool)
    """
    return jax.random.key(seed, impl=THREEFRY)


class Layout(NamedTuple):
    """A layout. Hashable, so JAX reuses the compiled program.

    Attributes:
      chunk: how many clients a device computes at once; None for all.
      mesh: a device mesh whose only axis is ``"clients"``; None for one device.

    Example:
      >>> Layout(chunk=10)
      Layout(chunk=10, mesh=None)
      >>> Layout(mesh=clients_mesh(jax.devices()[:1])).devices
      1
    """

    chunk: int | None = None
    mesh: Mesh | None = None

    @property
    def devices(self) -> int:
        """D, the number of devices."""
        return 1 if self.mesh is None else self.mesh.size


VMAP = Layout()


def clients_mesh(devices: list[jax.Device]) -> Mesh:
    """Return the mesh over these devices that :class:`Layout` takes.

    Example:
      >>> clients_mesh(jax.devices()[:1]).axis_names
      ('clients',)
    """
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def by_client(clients: int, rows: Callable[[slice], Tree]) -> Tree:
    """Return arrays (n, ...) sharded by client; each process creates and holds only the rows of its own devices.

    Args:
      clients: n. If the devices do not divide n, or there is one process, the process creates all rows.
      rows: a function from a slice of clients to the arrays' rows of these clients.

    Example:
      >>> import numpy as np
      >>> by_client(3, lambda some: np.arange(5.0, 8.0, dtype=np.float32)[some]).tolist()
      [5.0, 6.0, 7.0]
    """
    if jax.process_count() == 1 or clients % jax.device_count():
        return jax.tree.map(jnp.asarray, rows(slice(0, clients)))
    sharding = _split(clients_mesh(jax.devices()))
    places = sharding.addressable_devices_indices_map((clients,))
    own = [jax.device_put(rows(slice(*at[0].indices(clients)[:2])), device) for device, at in places.items() if at]
    assemble = jax.make_array_from_single_device_arrays
    return jax.tree.map(lambda *a: assemble((clients, *a[0].shape[1:]), sharding, a), *own)


def _split(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXIS))


def place(layout: Layout, stacked: Tree) -> Tree:
    """Return ``stacked``, arrays (n, ...), sharded so that each device of the layout holds n/D clients.

    Example:
      >>> layout = Layout(mesh=clients_mesh(jax.devices()[:1]))
      >>> tuple(place(layout, jnp.ones((4, 2))).sharding.spec)
      ('clients',)
    """
    if layout.mesh is None:
        return stacked
    sharding = _split(layout.mesh)
    if jax.process_count() == 1:
        return jax.device_put(stacked, sharding)

    def own_rows(a: jax.Array) -> jax.Array:  # every process has all rows, and copies those of its devices to them
        return (
            a
            if not a.is_fully_addressable
            else jax.make_array_from_callback(a.shape, sharding, np.asarray(a).__getitem__)
        )

    return jax.tree.map(own_rows, jax.tree.map(jnp.asarray, stacked))


def constrain(layout: Layout, stacked: Tree) -> Tree:
    """Apply :func:`place` under jit, so that no device computes the clients of another.

    Example:
      >>> constrain(Layout(), jnp.ones(2)).tolist()
      [1.0, 1.0]
    """
    return stacked if layout.mesh is None else lax.with_sharding_constraint(stacked, _split(layout.mesh))


def replicate(layout: Layout, values: Tree) -> Tree:
    """Return ``values`` replicated over the layout's devices, so that every process can read them; for use under jit.

    Example:
      >>> replicate(Layout(), jnp.ones(2)).tolist()
      [1.0, 1.0]
    """
    if layout.mesh is None:
        return values
    return lax.with_sharding_constraint(values, NamedSharding(layout.mesh, PartitionSpec()))


def over_clients(
    layout: Layout, one: Callable, weights: jax.Array | None, shared: Any, *stacked: Any, update: bool = False
) -> tuple[Tree, Any]:
    r"""Map a function of one client over all clients, and average their messages.

    Args:
      layout: the layout.
      one: ``one(shared, *own) -> message, kept`` for one client; both may be any pytrees of arrays.
      weights: (n,) client weights that sum to one; None for equal weights.
      shared: the argument that all clients get.
      stacked: pytrees of arrays (n, ...); each client gets its own row.
      update: whether ``kept`` overwrites the first of ``stacked`` in place instead of filling new arrays.

    Returns:
      The mean :math:`\sum_i w_i\, \mathrm{message}_i`, accurate to the last bits, and ``kept`` stacked, (n, ...).

    Raises:
      ValueError: if the layout's chunk is below 1.

    Example:
      >>> one = lambda shared, row: (shared * row, row + 1)
      >>> mean, kept = over_clients(Layout(), one, None, jnp.float32(2), jnp.array([1.0, 3.0]))
      >>> float(mean), kept.tolist()
      (4.0, [2.0, 4.0])
    """
    if layout.chunk is not None and layout.chunk < 1:
        raise ValueError(f"a layout's chunk must be at least 1, or None for all clients at once, not {layout.chunk}")
    clients = len(jax.tree.leaves(stacked)[0])
    if layout.mesh is None:
        return _on_one_device(layout.chunk, one, clients, update, shared, weights, *stacked)

    def on_each_device(shared: Any, own: Any) -> tuple[Tree, Any]:
        mean, kept = _on_one_device(layout.chunk, one, clients, update, shared, *own)
        return lax.psum(mean, AXIS), kept

    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    specs = (everywhere, split)
    mapped = jax.shard_map(on_each_device, mesh=layout.mesh, check_vma=False, in_specs=specs, out_specs=specs)
    return mapped(shared, (weights, *stacked))


def _on_one_device(
    chunk: int | None, one: Callable, clients: int, update: bool, shared: Any, weights: jax.Array | None, *stacked: Any
) -> tuple[Tree, Any]:
    """Return this device's term of the mean, and what its clients keep."""
    here = len(jax.tree.leaves(stacked)[0])
    if chunk is None or chunk >= here:
        share, mean, kept = _chunk(one, clients, shared, weights, *stacked)
        return _scaled(share, mean), kept

    row = jax.tree.map(lambda a: a[0], stacked)
    message, kept = jax.eval_shape(one, shared, *row)
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), message)
    kept = stacked[0] if update else jax.tree.map(lambda a: lax.empty((here, *a.shape), a.dtype), kept)
    read = stacked[1:] if update else stacked

    def some(first: jax.Array | int, size: int, carry: Tree) -> Tree:
        total, kept = carry
        rows = (weights, kept, *read) if update else (weights, *read)  # each row is read before it is overwritten
        own = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, first, size), rows)
        share, mean, new = _chunk(one, clients, shared, *own)
        kept = jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, first, 0), kept, new)
        return tree.add_exactly(total, _scaled(share, mean)), kept

    carry = lax.fori_loop(0, here // chunk, lambda j, carry: some(j * chunk, chunk, carry), ((zero, zero), kept))
    if here % chunk:
        carry = some(here - here % chunk, here % chunk, carry)
    total, kept = carry
    return jax.tree.map(jnp.add, *total), kept


def _scaled(share: jax.Array, mean: Tree) -> Tree:
    return jax.tree.map(lambda m: share.astype(m.dtype) * m, mean)


def _chunk(
    one: Callable, clients: int, shared: Any, weights: jax.Array | None, *stacked: Any
) -> tuple[jax.Array, Tree, Any]:
    """Run one chunk of clients: return their share of the total weight, their mean message, and what they keep."""
    size = len(jax.tree.leaves(stacked)[0])
    if size == 1:  # no vmap: a batch of one matrix product is slower than the product
        message, kept = one(shared, *jax.tree.map(lambda a: a[0], stacked))
        share = jnp.asarray(1 / clients) if weights is None else weights[0]
        return share, message, jax.tree.map(lambda a: a[None], kept)
    messages, kept = jax.vmap(lambda *own: one(shared, *own))(*stacked)
    if weights is None:
        return jnp.asarray(size / clients), tree.mean(messages, None), kept
    share = jnp.sum(weights)
    return share, tree.mean(messages, weights / jnp.where(share > 0, share, 1)), kept
