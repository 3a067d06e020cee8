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

from sps_jax import Plan, Problem, choose, fedavg, prepare, proxskip, sparse_proxskip
from sps_jax.models import linear
from sps_jax.problems.supervised import LOSSES
from sps_jax.simulation import run_rounds, start_rounds

METHODS = {"fedavg": fedavg, "scaffnew": proxskip, "sparse": sparse_proxskip}
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
    n, m, d, c = job.shape
    model = linear(d, c)
    problem = Problem(
        data=(jnp.asarray(job.features), jnp.asarray(job.labels, jnp.int32)),
        counts=jnp.full(n, m, jnp.int32),
        test=None,
        ridge=jnp.zeros((), jnp.float32),
        init=model.init,
        loss=LOSSES["softmax"].of(model),
        batch_size=job.batch,
        in_order=True,
    )
    hyper = {"stepsize": job.stepsize} | ({"sparsity": 1 - job.kept / (d * c)} if job.method == "sparse" else {})
    setup, hyper, schedule = prepare(METHODS[job.method], hyper, jnp.float32, local_steps=job.local_steps)
    plan, key, asked = choose(setup, hyper, problem), jax.random.key(0), jnp.zeros(ROUNDS, bool)
    plan = Plan(plan.chunk)

    def run():
        state = jax.block_until_ready(start_rounds(setup, problem, hyper, key))
        begun = time.perf_counter()
        jax.block_until_ready(run_rounds(setup, plan, problem, hyper, schedule, state, key, asked))
        return time.perf_counter() - begun

    steps = n * job.local_steps * ROUNDS
    whole = min(run() for _ in range(8)) / steps * 1e6
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        parts = durations(Path(folder))
    print(f"{job.name}, chunk {plan.chunk or 'all'}: {whole:.1f} microseconds a client-step")
    for name, spent in parts.most_common(20):
        print(f"{spent / steps:8.2f}  {name}")


if __name__ == "__main__":
    main()
