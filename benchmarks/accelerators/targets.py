"""Accelerators to compile for without having one: JAX takes a compiler's description of a chip for the chip."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
from jax.experimental import topologies

PACKAGES = {
    "cuda": ("jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-nvvm", "nvidia-cuda-nvcc"),
    "tpu": ("libtpu",),
    "cpu": (),
}
"""What each platform's compiler comes in beside JAX; no driver and no cuDNN."""
NAMES = {"cuda": "h100", "tpu": "v5e:2x2", "cpu": "this machine"}
H100 = Path(__file__).with_name("h100.txtpb")
"""What XLA wants to know of an H100. Without ``driver_version`` command buffers silently leave out WHILE."""
TPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
"""Without these libtpu asks the cloud where it runs, and lets only one process load it."""


def missing(platform: str) -> str | None:
    """Return a sentence that says which packages of the platform's compiler are missing, or None."""
    absent = [name for name in PACKAGES[platform] if _version(name) is None]
    if not absent:
        return None
    return f"compiling for {platform} needs {', '.join(absent)}: pip install -e '.[accelerators]'"


def versions(platform: str) -> dict[str, str | None]:
    """Return the versions of JAX and of the platform's compiler."""
    return {name: _version(name) for name in ("jax", "jaxlib", *PACKAGES[platform])}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def devices(platform: str, count: int) -> list[jax.Device]:
    """Return the first ``count``, at most 4, of the platform's devices, which can be compiled for and nothing else.

    ``JAX_PLATFORMS`` must be ``cpu``, or JAX would look for the devices that these compilers usually come with.

    Raises:
      RuntimeError: if packages are missing; the message says which, and how to install them.
    """
    absent = missing(platform)
    if absent:
        raise RuntimeError(absent)
    if platform == "cpu":
        return jax.devices("cpu")[:count]
    described = {"topology": "1x1x4", "target_config": H100.read_text(encoding="utf-8")} if platform == "cuda" else {}
    if platform == "tpu":
        os.environ.update(TPU_ENVIRONMENT)
    topology = topologies.get_topology_desc(platform=platform, topology_name=NAMES[platform], **described)
    return list(topology.devices)[:count]
