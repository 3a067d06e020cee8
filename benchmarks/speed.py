"""Client-steps per second of sps_jax and its peers on the same jobs, the same cores, one after another.

``python benchmarks/speed.py --json benchmarks/results/speed/speed.jsonl`` runs every system on every job it can do
(``--peers``, ``--jobs`` choose; ``--environments DIR`` says where each peer's environment is made, once, from its
requirements in ``peers/``). A peer that cannot be installed is named as such. It ends with status 1 where final losses
differ by more than 1e-4. An hour with installation, 10 minutes without. Results: ``benchmarks/README.md``.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from job import CANNOT, JOBS

PEERS = Path(__file__).parent / "peers"
NAMES = {
    "numpy": "numpy_loop",
    "torch": "torch_loop",
    "torch-vmap": "torch_vmap",
    "fedjax": "fedjax_fedavg",
    "pfl": "pfl_fedavg",
    "flower": "flower_fedavg",
    "fedlab": "fedlab_fedavg",
    "drjax": "drjax_map",
}
TOLERANCE = 1e-4


def environment(peer: str, folder: Path) -> str | None:
    """The interpreter of a peer's own environment, made if it is not there; None if that fails."""
    python = folder / peer / "bin" / "python"
    done = folder / peer / "installed"
    if not done.exists():
        steps = [
            [sys.executable, "-m", "venv", folder / peer],
            [python, "-m", "pip", "install", "-q", "-r", PEERS / f"{NAMES[peer]}.txt"],
        ]
        if any(subprocess.run(step, stdout=sys.stderr).returncode for step in steps):
            return None
        done.touch()
    return str(python)


def measure(script: Path, python: str, job: str, threads: int | None, limit: int) -> dict:
    """One line of a system, or {"job", "system", "failed": why}; ``threads`` for OpenMP, None for its default."""
    variables = dict(os.environ) | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    command = [python, str(script), "--job", job, "--repeats", "5"]
    nothing = {"job": job, "system": script.stem}
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=limit)
    except subprocess.TimeoutExpired:
        return nothing | {"failed": f"more than {limit} s"}
    if run.returncode:
        return nothing | {"failed": run.stderr.strip().splitlines()[-1], "cannot": run.returncode == CANNOT}
    return json.loads(run.stdout) | {"threads": threads or "default"}


def fastest(script: Path, python: str, job: str, limit: int) -> dict:
    """The better of one thread and the default: a small product on two threads can be slower than on one."""
    tried = [measure(script, python, job, threads, limit) for threads in (None, 1)]
    return max(tried, key=lambda line: line.get("client_steps_per_second", 0))


def roofline(size: int = 2048, megabytes: int = 256) -> dict:
    """What a large matrix product (GFLOP/s) and a large copy (GB/s, read and written) reach here, best of ten."""

    def best(run):
        times = []
        for _ in range(10):
            begun = time.perf_counter()
            run()
            times.append(time.perf_counter() - begun)
        return min(times)

    a, b = np.ones((size, size), np.float32), np.ones(megabytes * 2**18, np.float32)
    c = np.empty_like(b)
    return {
        "matmul_gflops": round(2 * size**3 / best(lambda: a @ a) / 1e9, 1),
        "copy_gbs": round(2 * b.nbytes / best(lambda: np.copyto(c, b)) / 1e9, 1),
    }


def achieved(line: dict) -> float:
    """GFLOP/s of the two matrix products of a client-step, (b, d) with (d, c) forward and back."""
    job = JOBS[line["job"]]
    return line["client_steps_per_second"] * 4 * job.batch * 784 * job.classes / 1e9


def table(lines: list[dict]) -> str:
    """A row a job, a column a system: client-steps a second, and ours over it."""
    rates = {(r["job"], r["system"]): r.get("client_steps_per_second") for r in lines}
    jobs, systems = (list(dict.fromkeys(r[key] for r in lines)) for key in ("job", "system"))
    rows = ["| system | " + " | ".join(jobs) + " |", "|---" * (len(jobs) + 1) + "|"]
    for system in systems:
        cells = []
        for job in jobs:
            rate, ours = rates.get((job, system)), rates[job, "sps_jax"]
            ratio = "" if system == "sps_jax" or not rate else f" ({ours / rate:.1f})"
            cells.append(f"{rate:,.0f}{ratio}" if rate else "-")
        rows.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def check_losses(lines: list[dict], tolerance: float) -> int:
    """The exit status: 1, with a sentence on standard error, where the final losses of a job differ by more."""
    for job in dict.fromkeys(line["job"] for line in lines):
        losses = [line["final_loss"] for line in lines if line["job"] == job and "final_loss" in line]
        if losses and max(losses) - min(losses) > tolerance:
            print(f"error: the final losses of {job} differ by more than {tolerance}: {losses}", file=sys.stderr)
            return 1
    return 0


def main() -> int:
    """Run, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "sps_jax_peers")
    parser.add_argument("--limit", type=int, default=300, help="seconds that one run of a system may take")
    parser.add_argument("--json", type=Path, help="write one JSON line a job and system to this file")
    options = parser.parse_args()
    pythons = {peer: environment(peer, options.environments) for peer in options.peers}
    lines = []
    for job in options.jobs:
        of_job = [measure(PEERS / "ours.py", sys.executable, job, None, options.limit) | {"system": "sps_jax"}]
        for peer, python in pythons.items():
            script = PEERS / f"{NAMES[peer]}.py"
            if python is None:
                of_job.append({"job": job, "system": script.stem, "failed": "could not be installed"})
            else:
                of_job.append(fastest(script, python, job, options.limit))
        for line in of_job:
            known = {"gflops": round(achieved(line), 2)} if "client_steps_per_second" in line else {}
            lines.append(line | known)
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    machine = roofline() | {  # at the end: a process inherits the peak memory of the one that starts it
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
    }
    lines = [line | machine for line in lines]
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(table(lines))
    print(
        f"\na large matrix product reaches {machine['matmul_gflops']} GFLOP/s, a large copy {machine['copy_gbs']} GB/s"
    )
    return check_losses(lines, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
