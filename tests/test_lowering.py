"""The programs of ``benchmarks/accelerators`` lowered for GPU and TPU, for which no package beside JAX is needed.

What their compilers make of it is in ``accelerators/test_compiled.py``.
"""

import math
import re
from functools import cache

import jax
import pytest
from accelerators.programs import PROGRAMS, placed
from jax import export

from sps_jax import tree

ALLOWED = {"AllocateBuffer"}
"""What a program may call: the array that chunks are written into. Others would be kernels, or calls of the host."""
WHILES = {
    "digits": 10,
    "digits_coin": 11,
    "femnist": 10,
    "femnist_dense": 2,
    "femnist_chunks": 14,
    "sweep": 10,
    "transformer": 12,
    "lstm": 20,
    "resnet18": 12,
}
"""How many loops a program has at most. Each is a wait of the host on a GPU, if its length depends on the data."""
PLATFORMS = ("cuda", "tpu")
each_program = pytest.mark.parametrize("name", WHILES)
each_platform = pytest.mark.parametrize("platform", PLATFORMS)


@cache
def lowered(name, platform):
    """The program in StableHLO, with a smaller network of the same operations."""
    one = placed(PROGRAMS[name].narrowed(), jax.devices())
    return str(export.export(one.function, platforms=[platform])(*one.arguments).mlir_module())


def sort_lengths(text):
    """The lengths of the axes that the program sorts along."""
    sort = r'"stablehlo\.sort"\(.*?dimension = (\d+).*?\}\) : \(tensor<([\dx]+)x\w+>'
    found = re.findall(sort, text, flags=re.DOTALL)
    assert len(found) == text.count('"stablehlo.sort"(')
    return [int(axes.split("x")[int(along)]) for along, axes in found]


@each_platform
@each_program
def test_a_program_runs_on_the_device_alone(name, platform):
    """No float64, which TPUs do not have, and no call of the host."""
    text = lowered(name, platform)
    assert "f64" not in text
    assert set(re.findall(r"custom_call @([\w.$]+)", text)) <= ALLOWED
    assert not re.search(r"stablehlo\.(infeed|outfeed|send|recv)\b", text)
    assert text.count("stablehlo.while") <= WHILES[name]


@each_platform
@each_program
def test_no_sort_of_all_entries(name, platform):
    """TopK sorts a sample of at most max(64, sqrt(d)) of a client's d entries."""
    d = tree.size(jax.eval_shape(PROGRAMS[name].narrowed().problem().init, jax.random.key(0)))
    lengths = sort_lengths(lowered(name, platform))
    assert bool(lengths) == (name != "femnist_dense")
    assert all(length <= max(64, math.isqrt(d)) for length in lengths)


@pytest.mark.xfail(strict=True, reason="models.conv.fastest asks for the default backend, not the one compiled for")
@each_platform
def test_convolutions_are_native(platform):
    """XLA's own, where Winograd's and patches are for CPUs."""
    assert "stablehlo.convolution" in lowered("resnet18", platform)
