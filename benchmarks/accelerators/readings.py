"""What reading one large array takes: a copy, a sum, and the passes of TopK over it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from accelerators import plans
from accelerators.hlo import Module
from sps_jax.compression import topk_mask

SHAPE = (10, 11_164_352)
"""The entries of ResNet18's kernels, of 10 clients: rows too long for TopK's kernel."""
DENSE = (80, 1_395_544)
"""As many in rows of which a TPU stores 8 together: 10 rows would be padded to 16. TopK's passes are over pieces of the
rows, which are not padded either."""


def run_copy(x: jax.Array) -> jax.Array:
    """Every entry is read and written."""
    return jnp.copy(x)


def run_sum(x: jax.Array) -> jax.Array:
    """Every entry is read, and a number a row written."""
    return jnp.sum(x, axis=1)


def run_topk(x: jax.Array) -> jax.Array:
    """The masks of the tenth of each row that is largest, by a fixed number of passes."""
    return jax.vmap(topk_mask, in_axes=(0, None))(x, jnp.int32(SHAPE[1] // 10))


READINGS: dict[str, tuple[Callable, tuple[int, int]]] = {
    "reading_copy": (run_copy, DENSE),
    "reading_sum": (run_sum, DENSE),
    "reading_topk": (run_topk, SHAPE),
}
"""Programs of one array by name: the function, and the array's shape."""


def program(name: str, device: jax.Device) -> tuple[Callable, tuple[jax.ShapeDtypeStruct]]:
    """The jitted function and its argument, on a device."""
    function, shape = READINGS[name]
    return jax.jit(function), (jax.ShapeDtypeStruct(shape, jnp.float32, sharding=SingleDeviceSharding(device)),)


def readings(module: Module) -> list[dict]:
    """Return what moves as many bytes as the array has: its function, the bytes, and on a TPU estimated cycles."""
    every = [
        {"function": module.function(one), "bytes": plans.traffic(one, module), "cycles": one.cycles}
        for one in module.computations[module.entry]
        if one.opcode in ("fusion", "reduce", "copy")
    ]
    return [one for one in every if one["bytes"] >= 4 * math.prod(SHAPE)]
