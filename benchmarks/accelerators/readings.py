"""What reading one large array takes: a copy, a sum, and the passes of TopK over it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from accelerators import plans
from accelerators.hlo import Instruction, Module, size
from sps_jax.compression import topk_mask

SHAPE = (10, 11_164_352)
"""The entries of ResNet18's kernels, of 10 clients: rows too long for TopK's kernel."""
NO_READING = {"parameter", "tuple", "get-tuple-element", "bitcast", "copy-done"}


def run_copy(x: jax.Array, k: jax.Array) -> jax.Array:
    """Every entry is read and written."""
    return jnp.copy(x)


def run_sum(x: jax.Array, k: jax.Array) -> jax.Array:
    """Every entry is read, and a number a row written."""
    return jnp.sum(x, axis=1)


def run_topk(x: jax.Array, k: jax.Array) -> jax.Array:
    """The masks of the k entries of largest magnitude of each row, by a fixed number of passes."""
    return jax.vmap(topk_mask, in_axes=(0, None))(x, k)


READINGS: dict[str, Callable] = {"reading_copy": run_copy, "reading_sum": run_sum, "reading_topk": run_topk}
"""Programs of one array, by name."""


def arguments(device: jax.Device) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The array and k, on a device."""
    on = SingleDeviceSharding(device)
    return jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=on), jax.ShapeDtypeStruct((), jnp.int32, sharding=on)


def readings(module: Module) -> list[dict]:
    """Return what reads as many bytes as the array has: its function, bytes moved, and on a TPU estimated cycles."""
    whole = 4 * math.prod(SHAPE)
    return [
        {"function": module.function(one), "bytes": plans.traffic(one, module), "cycles": one.cycles}
        for one in module.computations[module.entry]
        if one.opcode not in NO_READING and any(size(given) >= whole for given in _given(one, module))
    ]


def _given(one: Instruction, module: Module) -> list[str]:
    """The shapes of its operands."""
    return [module.instructions[name].shape for name in one.operands if name in module.instructions]
