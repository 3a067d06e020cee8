"""What the compilers of an H100 and of a TPU v5e make of small programs: ``benchmarks/compiled.py``, a process each.

Kernels, submissions, waits and cycles are upper bounds, and what they were when they were last lowered.
"""

from functools import cache

import pytest
from accelerators import compiling, targets

pytestmark = pytest.mark.accelerators

KERNELS = {  # on the H100, of a local step: kernels and copies, submissions of the host, its waits
    "digits": (94, 24, 12),
    "femnist": (96, 27, 12),
    "femnist_dense": (16, 2, 1),
    "femnist_chunks": (106, 24, 12),
    "femnist_4_devices": (104, 27, 12),
    "sweep": (98, 27, 12),
}
CYCLES = {  # on the v5e, of a local step
    "digits": 239_291,
    "femnist": 727_183,
    "femnist_dense": 156_609,
    "femnist_4_devices": 345_040,
    "sweep": 597_979,
}
BOTH = [("cuda", name) for name in KERNELS] + [("tpu", name) for name in CYCLES]


@cache
def record(name, platform):
    """What the compiler made of a program."""
    if absent := targets.missing(platform):
        pytest.skip(absent)
    found = compiling.in_own_process(name, platform)
    assert "error" not in found, found
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_what_the_host_does_in_a_local_step(name):
    step = record(name, "cuda")["step"]
    kernels, submissions, waits = KERNELS[name]
    assert step["kernels"] <= kernels and step["submissions"] <= submissions and step["waits"] <= waits


@pytest.mark.parametrize("name", CYCLES)
def test_what_a_local_step_takes_on_a_tpu(name):
    assert record(name, "tpu")["step"]["cycles"] <= CYCLES[name]


@pytest.mark.parametrize(("platform", "name"), BOTH)
def test_a_program_runs_on_the_device_alone(platform, name):
    found = record(name, platform)
    assert found["float64"] == found["callbacks"] == 0


@pytest.mark.parametrize(("platform", "name"), BOTH)
def test_a_round_is_one_all_reduce(platform, name):
    """If there are several devices: of the mean message."""
    found = record(name, platform)
    assert found["all_reduces_a_round"] == (found["devices"] > 1)
