"""The four jobs of ``speed.py``: client-steps a second of sps_jax, plain JAX and torch on the same card."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jax
from job import CLIENTS, JOBS, make_job, measure
from peers import jax_vmap, ours

from device.common import REPEATS, Record, Settings, attempted, relative_gap

COLUMNS = ("job", "rounds", "system", "client_steps_per_second", "final_loss", "loss_gap", "holds")
TOLERANCE = 1e-4
FEW, MANY = 5, 200
"""Rounds of a run. After few the losses must agree; many hide what a call costs, and let last bits of TopK grow."""

SOLVERS = {"sps_jax": ours.solver, "jax_vmap": jax_vmap.solve}


def records(settings: Settings) -> Iterator[Record]:
    """A record a job, number of rounds and system; sps_jax comes first, and its loss is what the others are held to."""
    clients, few, many = (4, 1, 2) if settings.small else (CLIENTS, FEW, MANY)
    lines = list(with_jax((few, many), clients))
    # A loop over clients would take minutes for many rounds.
    for system, rounds in {"torch_loop": (few,), "torch_vmap": (few, many)}.items():
        lines += with_torch(system, rounds, clients, settings.torch)
    losses = {(r["job"], r["rounds"]): r["final_loss"] for r in lines if r["system"] == "sps_jax" and "final_loss" in r}
    for line in sorted(lines, key=lambda r: (list(JOBS).index(r["job"]), r.get("rounds", 0))):
        if "final_loss" in line and (line["job"], line["rounds"]) in losses:
            line["loss_gap"] = relative_gap(line["final_loss"], losses[line["job"], line["rounds"]])
            if line["rounds"] == few:
                line["holds"] = line["loss_gap"] <= TOLERANCE
        yield line


def with_jax(rounds: tuple[int, ...], clients: int) -> Iterator[Record]:
    """The systems of this process."""
    for name in JOBS:
        for many in rounds:
            for system, solver in SOLVERS.items():
                job = make_job(name, many, clients)
                what = {"job": name, "rounds": many, "system": system}
                yield attempted(what, lambda job=job, solver=solver: measure(job, solver(job), REPEATS))


def with_torch(system: str, rounds: tuple[int, ...], clients: int, python: str) -> list[Record]:
    """The lines of a torch peer, a process of its own beside this one, or a line a job that says why there are none.

    JAX has taken three quarters of a GPU by now, and torch needs a few percent. Whether a card lets two processes in,
    which its owner can forbid, shows only there; where not, the lines say what CUDA says.
    """
    device, why = torch_device(python)
    if device is None:
        return [{"job": job, "system": system, "absent": why} for job in JOBS]
    script = Path(__file__).parents[1] / "peers" / f"{system}.py"
    command = [python, str(script), "--job", *JOBS, "--rounds", *map(str, rounds), "--repeats", str(REPEATS)]
    command += ["--clients", str(clients), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        failed = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return [{"job": job, "system": system, "failed": failed} for job in JOBS]
    return [json.loads(line) | {"torch_device": device} for line in done.stdout.splitlines()]


def torch_device(python: str) -> tuple[str | None, str]:
    """Where torch computes beside this process, or None and why it does not."""
    if jax.default_backend() == "tpu":
        return None, "torch computes on no TPU"
    probe = [python, "-c", "import torch; print(torch.cuda.is_available())"]
    try:
        done = subprocess.run(probe, capture_output=True, text=True)
    except OSError:
        return None, f"torch is not installed: there is no interpreter {python}"
    if done.returncode:
        return None, "torch is not installed"
    if jax.default_backend() == "cpu":
        return "cpu", ""
    # A ROCm build of torch calls its device "cuda" too.
    return ("cuda", "") if done.stdout.strip() == "True" else (None, "torch is installed without CUDA")
