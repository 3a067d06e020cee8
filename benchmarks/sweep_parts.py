"""What a client-step of ``sweep.py``'s digits takes alone and with several points under one ``vmap``, on one core.

``taskset -c 0 python benchmarks/sweep_parts.py --json benchmarks/results/speed/sweep_parts.jsonl`` times loops of one
client's gradient, of TopK at 90 %, and of both, for 1, 8 and 32 points that share the client's data, and a large matrix
product; and one ``simulate`` in all and inside its compiled program, 100 rounds of 10 steps of 10 clients. Processor
time, the least of five. A minute. What was found: ``benchmarks/README.md``.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import sps_jax as sps
from sps_jax.layout import Layout
from sps_jax.problems import digits
from sps_jax.simulation.simulate import run_rounds, start_rounds

STEPS, ROUNDS, LOCAL_STEPS = 300, 100, 10
HYPER = {"stepsize": 0.5, "sparsity": 0.9}


def least(work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of processor time, the least of so many, after one that compiles."""
    jax.block_until_ready(work())
    seen = []
    for _ in range(repeats):
        began = time.process_time()
        jax.block_until_ready(work())
        seen.append(time.process_time() - began)
    return min(seen)


def parts() -> list[dict]:
    """Microseconds a client-step of each part, by number of points."""
    problem, prune = digits(), sps.Sparsifier()
    data, count, key = jax.tree.map(lambda a: a[0], problem.data), problem.counts[0], jax.random.key(0)
    params = problem.init(key)
    params = jax.tree.map(lambda a: a + jax.random.normal(key, a.shape, a.dtype), params)

    def pruned(x):
        return prune(x, jnp.float32(HYPER["sparsity"]))

    def step(x, at):
        slope = problem.gradient(data, count, jnp.int32(0), key, at)
        return jax.tree.map(lambda a, g: a - jnp.float32(1e-3) * g, x, slope)

    bodies = {
        "gradient": lambda x: step(x, x),
        "topk": lambda x: jax.tree.map(lambda a, b: a + jnp.float32(1e-3) * b, x, pruned(x)),
        "both": lambda x: step(x, pruned(x)),
    }
    records = []
    for points in (1, 8, 32):
        scales = jnp.linspace(1, 2, points, dtype=jnp.float32)
        start = params if points == 1 else jax.vmap(lambda s: jax.tree.map(lambda a: s * a, params))(scales)
        for name, body in bodies.items():
            one = body if points == 1 else jax.vmap(body)
            loop = jax.jit(lambda x, one=one: jax.lax.fori_loop(0, STEPS, lambda _, x: one(x), x))
            seconds = least(lambda loop=loop, start=start: loop(start))
            records.append({"part": name, "points": points, "microseconds": round(1e6 * seconds / STEPS / points, 2)})
    return records


def whole() -> list[dict]:
    """The same of ``simulate``, with what it does around its compiled program and without."""
    problem, key, layout = digits(), jax.random.key(0), Layout()
    prepared = sps.prepare(sps.sparse_proxskip, HYPER, jnp.float32, local_steps=LOCAL_STEPS)
    asked = jnp.asarray(np.arange(1, ROUNDS + 1) % 10 == 0)
    settings = {"local_steps": LOCAL_STEPS, "rounds": ROUNDS, "evaluate_every": 10, "layout": layout}

    def inside():
        state = start_rounds(prepared, problem, key)
        return run_rounds(prepared, layout, problem, state, key, asked)[1]["train_loss"]

    ways = {
        "simulate": lambda: sps.simulate(sps.sparse_proxskip, problem, HYPER, key, **settings)[0].t,
        "compiled program of simulate": inside,
    }
    steps = ROUNDS * LOCAL_STEPS * problem.clients
    return [{"part": name, "points": 1, "microseconds": round(1e6 * least(f) / steps, 2)} for name, f in ways.items()]


def product() -> dict:
    """GFLOP/s of a large matrix product, and what the products of a client-step take at that rate."""
    a, x = jnp.ones((1024, 1024), jnp.float32), digits().data[0]
    rate = 2 * 1024**3 / least(lambda: a @ a) / 1e9
    flop = 4 * x.shape[1] * x.shape[2] * 10  # forward and gradient, padded rows included
    return {"part": f"two products at {rate:.0f} GFLOP/s", "points": 1, "microseconds": round(flop / rate / 1e3, 2)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    text = "".join(json.dumps(record) + "\n" for record in [product(), *parts(), *whole()])
    print(text, end="")
    if options.json:
        options.json.write_text(text)


if __name__ == "__main__":
    main()
