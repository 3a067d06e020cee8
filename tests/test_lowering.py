"""The programs of ``benchmarks/accelerators`` lowered for GPU and TPU, for which no package beside JAX is needed.

What their compilers make of it is in ``accelerators/test_compiled.py``.
"""

import re
from functools import cache

import jax
import jax.numpy as jnp
import pytest
from accelerators.programs import PROGRAMS, placed
from jax import export

from sps_jax.compression import topk_mask

KERNELS = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}
"""How a program calls the kernel of TopK."""
CHECKS = [export.DisabledSafetyCheck.custom_call(call) for call in KERNELS.values()]
WHILES = {
    "digits": 2,
    "digits_coin": 3,
    "femnist": 2,
    "femnist_dense": 2,
    "femnist_chunks": 6,
    "sweep": 2,
    "transformer": 4,
    "lstm": 12,
    "resnet18": 4,
}
"""How many loops a program has: over rounds and local steps, over chunks, over layers and positions of a network, in
evaluations over batches, and over tosses of a coin, the only one whose length the data decide."""
PLATFORMS = ("cuda", "tpu")
each_program = pytest.mark.parametrize("name", WHILES)
each_platform = pytest.mark.parametrize("platform", PLATFORMS)


@cache
def lowered(name, platform):
    """The program in StableHLO, with a smaller network of the same operations."""
    one = placed(PROGRAMS[name].narrowed(), jax.devices())
    return str(export.export(one.function, platforms=[platform], disabled_checks=CHECKS)(*one.arguments).mlir_module())


@pytest.mark.slow
@each_platform
@each_program
def test_a_program_runs_on_the_device_alone(name, platform):
    """No float64, which TPUs do not have, and no call of the host."""
    text = lowered(name, platform)
    assert "f64" not in text
    kernels = set(re.findall(r"custom_call @([\w.$]+)", text)) - {"AllocateBuffer"}  # which chunks are written into
    assert kernels == (set() if name == "femnist_dense" else {KERNELS[platform]})
    assert not re.search(r"stablehlo\.(infeed|outfeed|send|recv|sort)\b", text)
    assert text.count("stablehlo.while") == WHILES[name]
    assert ("stablehlo.convolution" in text) == (name == "resnet18")  # XLA's own: Winograd's and patches are for CPUs


@each_platform
def test_rows_too_long_for_a_kernel_take_a_fixed_number_of_passes(platform):
    """A million float32 weights per client, 31 bits: 8 passes of 4 bits on a GPU, 11 of 3 on a TPU, and no loop."""
    shapes = jax.ShapeDtypeStruct((3, 10**6), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    masks = jax.jit(jax.vmap(topk_mask, in_axes=(0, None)))
    text = str(export.export(masks, platforms=[platform])(*shapes).mlir_module())
    assert "stablehlo.while" not in text and "sort" not in text and "custom_call" not in text
    wide = [int(n) for n in re.findall(r"= stablehlo\.reduce\(.*?tensor<3x(\d+)x4096xi32>", text)]
    assert wide == [-(-(10**6) // 4096)] * {"cuda": 8, "tpu": 11}[platform]


def test_float64_needs_a_platform_that_has_it(x64, monkeypatch):
    """XLA cannot read the bits of a float64 on a TPU."""
    shapes = jax.ShapeDtypeStruct((3, 100), jnp.float64), jax.ShapeDtypeStruct((), jnp.int32)
    masks = jax.jit(jax.vmap(topk_mask, in_axes=(0, None)))
    assert KERNELS["cuda"] in str(
        export.export(masks, platforms=["cuda"], disabled_checks=CHECKS)(*shapes).mlir_module()
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(ValueError, match="TopK of float64 numbers is not possible on a TPU"):
        topk_mask(jnp.ones(3), 1)
