"""What the time of a client-step of sps_jax goes to, on one core: ``taskset -c 0 python benchmarks/profile_step.py``.

``--job`` is one of ``job.py``'s. Prints microseconds a client-step by operation of the compiled program, from JAX's own
profiler, and the whole without the profiler. ``ynn_fusion`` and ``dot`` are the two matrix products.
"""

import argparse
import collections
import gzip
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_xprof_traceme=true"

import jax
import jax.numpy as jnp
from job import JOBS, make_job
from peers.ours import METHODS, problem_and_hyper

from sps_jax import Layout, choose, prepare, shapes
from sps_jax.simulation.simulate import run_rounds, start_rounds

ROUNDS = 4


def durations(folder: Path) -> collections.Counter:
    """Microseconds by name of the events of the one trace under ``folder``; loops and bookkeeping left out.

    An event inside one of its own name on the same thread is the same operation, seen twice.
    """
    (path,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    total, ends = collections.Counter(), collections.defaultdict(float)
    for event in sorted((e for e in events if e.get("ph") == "X"), key=lambda e: e["ts"]):
        place = event["tid"], event["name"]
        if event["name"].startswith(("$", "while", "Thunk", "Pjit", "Common", "end: ")) or event["ts"] < ends[place]:
            continue
        ends[place] = event["ts"] + event["dur"]
        total[event["name"]] += event["dur"]
    return total


def main() -> None:
    """Run, trace, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", choices=list(JOBS), default="dense-scaffnew")
    job = make_job(parser.parse_args().job, ROUNDS)
    problem, hyper = problem_and_hyper(job)
    method = prepare(METHODS[job.method], hyper, jnp.float32, local_steps=job.local_steps)
    layout = Layout(choose(shapes(method, problem), problem).chunk)
    key, asked = jax.random.key(0), jnp.zeros(ROUNDS, bool)

    def run():
        state = jax.block_until_ready(start_rounds(method, problem, key))
        begun = time.perf_counter()
        jax.block_until_ready(run_rounds(method, layout, problem, state, key, asked))
        return time.perf_counter() - begun

    steps = problem.clients * job.local_steps * ROUNDS
    whole = min(run() for _ in range(8)) / steps * 1e6
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        parts = durations(Path(folder))
    print(f"{job.name}, chunk {layout.chunk or 'all'}: {whole:.1f} microseconds a client-step")
    for name, spent in parts.most_common(20):
        print(f"{spent / steps:8.2f}  {name}")


if __name__ == "__main__":
    main()
