"""Compile a program for an accelerator that is not there, and record what it became."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import sps_jax
from accelerators import bundles, hlo, plans, readings, targets
from accelerators.programs import PROGRAMS, Placed, placed

STEP, ROUND = "Round.local_steps", "_scan_rounds"
"""The functions of the package that have the loops over local steps and over rounds."""
TOPK = "topk_mask"
COUNTED = ("cuda", "tpu")
"""The platforms whose compilers say what an iteration costs; XLA:CPU does not."""
SCRIPT = Path(__file__).parents[1] / "compiled.py"
MEMORY = ("argument_size", "output_size", "alias_size", "temp_size", "peak_memory")


def record(name: str, platform: str, options: Mapping[str, str] | None = None) -> dict:
    """Compile the program ``name`` in this process, and return the record that ``compiled.py`` writes."""
    options, begun = dict(options or {}), time.monotonic()
    devices = PROGRAMS[name].devices if name in PROGRAMS else 1
    one = _placed(name, targets.devices(platform, devices))
    lowered = one.lowered()
    traced = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_module_re": "jit_run_.*"} if platform == "cuda" else {}
        compiled = lowered.compile(compiler_options=options | dump or None)
        module = hlo.parse(compiled.as_text())
        plan = plans.read(Path(folder)) if platform == "cuda" and name in PROGRAMS else None
    memory = compiled.memory_analysis()
    return {
        "program": name,
        "platform": platform,
        "target": targets.NAMES[platform],
        "devices": devices,
        "step": iteration(STEP, module, plan) if platform in COUNTED else None,
        "round": iteration(ROUND, module, plan) if platform in COUNTED else None,
        "topk": topk(module) if platform == "tpu" else None,
        "readings": readings.readings(module) if name in readings.READINGS else None,
        "all_reduces_a_round": _rounds_sum(module),
        "predicted_bytes": one.predicted,
        **{f"{part.removesuffix('_size')}_bytes": getattr(memory, f"{part}_in_bytes") for part in MEMORY},
        **hlo.facts(module),
        "padding": hlo.padding(module) if platform == "tpu" else None,
        "seconds": {"trace": round(traced - begun, 1), "compile": round(time.monotonic() - traced, 1)},
        "options": options,
        "source": source(),
        "versions": targets.versions(platform),
    }


def _placed(name: str, devices: list) -> Placed:
    if name in PROGRAMS:
        return placed(PROGRAMS[name], devices)
    return Placed(*readings.program(name, devices[0]), None)


def source() -> str:
    """A digest of the package and of the programs: records of one digest are of the same code."""
    files = sorted([*Path(sps_jax.__file__).parent.rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def iteration(function: str, module: hlo.Module, plan: list[plans.Thunk] | None) -> dict[str, int] | None:
    """Return what one iteration of the first loop of a function costs; None without such a loop.

    On a TPU these are cycles, estimated by XLA and of TopK's kernels scheduled by libtpu; on a GPU the numbers of
    :class:`accelerators.plans.Cost`.
    """
    loops = module.loops(function)
    if not loops:
        return None
    if plan is None:
        return {"cycles": module.iteration(loops[0], lambda one: one.cycles + kernel(one))}
    return plans.iteration(loops[0], plan, module)._asdict()


def topk(module: hlo.Module) -> dict[str, int] | None:
    """Return the cycles of a local step on a TPU that are TopK's: in its kernels, and in what XLA puts around them."""
    loops = module.loops(STEP)
    if not loops:
        return None

    def around(one: hlo.Instruction) -> int:
        return one.cycles if TOPK in module.functions(one) else 0

    return {"kernel": module.iteration(loops[0], kernel), "around": module.iteration(loops[0], around)}


def kernel(one: hlo.Instruction) -> int:
    """Return the cycles of an instruction that is TopK's kernel on a TPU, whose masks are bytes; 0 for another."""
    masks = re.match(r"s8\[(\d+),(\d+)\]", one.shape) if one.target == "tpu_custom_call" else None
    return bundles.kernel(*map(int, masks.groups())) if masks else 0


def _rounds_sum(module: hlo.Module) -> int:
    """How many all-reduces and other collectives a round has."""
    return sum(module.iteration(loop, hlo.collective) for loop in module.loops(ROUND))


def in_own_process(
    name: str, platform: str, options: Mapping[str, str] | None = None, minutes: float | None = None
) -> dict:
    """Return the same from a process of its own, with no flags of XLA and JAX on the CPU; or the record of an error.

    To take more than so many ``minutes`` is one.
    """
    given = [f"{key}={value}" for key, value in (options or {}).items()]
    command = [sys.executable, str(SCRIPT), "--one", name, platform, "--compiler-options", *given]
    flags = "--xla_force_host_platform_device_count=4" if platform == "cpu" else ""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    wrong = {"program": name, "platform": platform, "options": dict(options or {}), "source": source()}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=minutes and 60 * minutes
        )
    except subprocess.TimeoutExpired:
        return wrong | {"error": f"did not finish in {minutes:g} minutes"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
    return wrong | {"error": said[-1], "status": done.returncode}
