"""``sps-jax doctor``: report and check this installation."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from json import dumps
from typing import Any

import jax
import jax.numpy as jnp
import psutil
from packaging.requirements import Requirement

from sps_jax.cli.data import about, megabytes
from sps_jax.cli.job import compiled_folder
from sps_jax.datasets import SETS
from sps_jax.datasets.prepare import root_of
from sps_jax.runs.processes import no_devices

IMPORT = """
import contextlib, time
began = time.perf_counter()
import jax, sps_jax
print(time.perf_counter() - began, flush=True)
with contextlib.suppress(Exception):  # the parent process reports it
    jax.devices()
"""
"""Run in a child process, because XLA ends the process on an unknown flag or a driver that crashes."""


def doctor(json: bool = False) -> int:
    """Check this installation: packages, devices, memory and data.

    Args:
      json: print one JSON document instead of text. With either, the exit status is 1 if a check fails.
    """
    found: dict[str, Any] = {}
    broken: list[str] = []
    for name, value, wrong in looks():
        found[name] = value
        broken += wrong
        if not json:  # each as it comes
            print(f"{name:12}{value}", flush=True)
    if json:
        print(dumps(found | {"broken": broken}, indent=2))
    for sentence in broken:
        print(f"sps-jax: broken: {sentence}", file=sys.stderr)
    return 1 if broken else 0


def looks() -> Iterator[tuple[str, Any, list[str]]]:
    """Yield (name, finding, faults) of one check after another."""
    version = importlib.metadata.version
    yield "sps_jax", f"{version('sps_jax')} in {os.path.dirname(__file__)}", []
    yield "python", f"{platform.python_version()} on {platform.platform()}", []
    installed, wrong = packages(importlib.metadata.requires("sps_jax") or [])
    yield "packages", ", ".join(f"{name} {number}" for name, number in installed.items()), wrong
    child = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    seconds = child.stdout
    yield "import", f"{float(seconds):.2f} s" if seconds else "-", [] if seconds else ["import sps_jax fails"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    yield "machine", f"{cores} cores, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory free", []
    ended = child.returncode != 0 and seconds != ""
    yield "devices", *(("none", [f"XLA ends the process: {last(child.stderr)}"]) if ended else devices())
    cache = compiled_folder()
    yield "compiled", f"{megabytes(cache):.1f} MB in {cache}", []
    there = [name for name in SETS if about(name)["prepared"]]
    yield "data", f"{', '.join(there) or 'none'} in {root_of()}", []


def last(text: str) -> str:
    """Return the last line of ``text`` that is not blank."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "without a message")


def packages(requirements: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the installed versions of the requirements without extras, and a sentence per missing or wrong version."""
    installed, wrong = {}, []
    for wanted in map(Requirement, requirements):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed[wanted.name] = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is not installed")
            continue
        if not wanted.specifier.contains(installed[wanted.name], prereleases=True):
            wrong.append(f"{wanted.name} is {installed[wanted.name]}, sps_jax needs {wanted.specifier}")
    return installed, wrong


def devices() -> tuple[str, list[str]]:
    """Return JAX's devices, with their memory if they report it, and a sentence per fault."""
    if sentence := no_devices():
        return "none", [sentence]
    try:
        right = all(float(jnp.ones(8, device=device) @ jnp.ones(8, device=device)) == 8 for device in jax.devices())
    except RuntimeError as error:
        return "none", [f"JAX cannot compute: {str(error).splitlines()[0]}"]
    kinds = []
    for device in jax.devices():
        limit = (device.memory_stats() or {}).get("bytes_limit")
        kinds.append(f"{device.device_kind}" + (f" ({limit / 1e9:.1f} GB)" if limit else ""))
    said = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return said, [] if right else ["a device computes 1 + ... + 1 wrongly"]
