"""Cost of a client-step and peak memory against the number of clients n and the model's size d, at a fixed chunk.

``python benchmarks/scaling.py --out benchmarks/results/speed/scaling`` writes ``scaling.jsonl`` and ``scaling.png``;
8 minutes on 2 cores. ProxSkip on softmax regression with 64 features and d / 65 classes, 16 examples a client, batch 8,
10 local steps a round. Each point is a process of its own, three times in info with the others; the fastest is kept.
What was found: ``benchmarks/README.md``.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from speed import roofline

from sps_jax import Layout, Problem, prepare, proxskip, shard_problem
from sps_jax.models import linear
from sps_jax.problems.losses import loss_of
from sps_jax.simulation.footprint import footprint, shapes
from sps_jax.simulation.method import Method
from sps_jax.simulation.simulate import run_rounds, start_rounds

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FEATURES, EXAMPLES, BATCH, STEPS, CHUNK = 64, 16, 8, 10, 10
CLIENTS, CLASSES = (10, 100, 1_000, 10_000), (2, 16, 128, 1_024)


def timed(method: Method, layout: Layout, problem: Problem, rounds: int):
    """The compiled program of so many rounds without an evaluation, and the seconds of its fastest run of three."""
    problem, key, asked = shard_problem(layout, problem), jax.random.key(0), jnp.zeros(rounds, bool)
    state = start_rounds(method, problem, key, layout=layout)
    run = run_rounds.lower(method, layout, problem, state, key, asked).compile()
    seconds = []
    for _ in range(4):
        state = jax.block_until_ready(start_rounds(method, problem, key, layout=layout))
        begun = time.perf_counter()
        jax.block_until_ready(run(method, problem, state, key, asked))
        seconds.append(time.perf_counter() - begun)
    return run, min(seconds[1:])


def made(n: int, classes: int) -> Problem:
    """Softmax regression of n clients."""
    generator = np.random.default_rng(0)
    model = linear(FEATURES, classes)
    return Problem(
        data=(
            jnp.asarray(generator.normal(size=(n, EXAMPLES, FEATURES)) / 8, jnp.float32),
            jnp.asarray(generator.integers(0, classes, (n, EXAMPLES)), jnp.int32),
        ),
        counts=jnp.full(n, EXAMPLES, jnp.int32),
        test=None,
        ridge=jnp.zeros((), jnp.float32),
        init=model.init,
        loss=loss_of(model, "softmax"),
        batch_size=BATCH,
    )


def point(n: int, classes: int) -> dict:
    """One measurement, in this process."""
    problem = made(n, classes)
    prepared = prepare(proxskip, {"stepsize": 0.1}, jnp.float32, local_steps=STEPS)
    rounds, layout = max(4, 4_000 // n), Layout(min(CHUNK, n))
    run, seconds = timed(prepared, layout, problem, rounds)
    memory, need = run.memory_analysis(), footprint(shapes(prepared, problem), problem, layout)
    step = seconds / (rounds * STEPS * n)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    moved = need.data + 2 * need.state + need.messages  # a round reads all, and writes state and messages once
    return {
        "clients": n,
        "entries": (FEATURES + 1) * classes,
        "chunk": layout.chunk,
        "seconds_per_client_step": step,
        "gflops": 4 * BATCH * FEATURES * classes / step / 1e9,
        "gbs": moved / (step * STEPS * n) / 1e9,
        "data_and_state_bytes": need.data + need.state,
        "messages_bytes": need.messages,
        "working_bytes": memory.temp_size_in_bytes - need.messages,
        "peak_memory_mb": peak,
    } | roofline()


def picture(records: list[dict], path: Path) -> None:
    """Cost and memory against n, a line a model size."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for entries in sorted({r["entries"] for r in records}):
        own = [r for r in records if r["entries"] == entries]
        n = [r["clients"] for r in own]
        axes[0].loglog(n, [1e6 * r["seconds_per_client_step"] for r in own], "o-", label=f"d = {entries:,}")
        axes[1].loglog(n, [r["peak_memory_mb"] for r in own], "o-")
    axes[0].set(xlabel="clients", ylabel="client-step (microseconds)", ylim=(1, None))
    axes[1].set(xlabel="clients", ylabel="peak memory of the process (MB)")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """All points, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--point", type=int, nargs=2, metavar=("CLIENTS", "CLASSES"))
    options = parser.parse_args()
    if options.point:
        print(json.dumps(point(*options.point)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    fastest: dict[tuple[int, int], dict] = {}
    for _ in range(3):
        for classes, n in itertools.product(CLASSES, CLIENTS):
            if n * classes > 2_000_000:  # states and messages of 10,000 models of 66,560 entries are 8 GB
                continue
            command = [sys.executable, __file__, "--point", str(n), str(classes)]
            record = json.loads(subprocess.run(command, check=True, capture_output=True, env=os.environ).stdout)
            print(json.dumps(record), flush=True)
            before = fastest.get((n, classes), record)
            fastest[n, classes] = min(before, record, key=lambda r: r["seconds_per_client_step"])
    records = list(fastest.values())
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (options.out / "scaling.jsonl").write_text(lines, encoding="utf-8")
    picture(records, options.out / "scaling.png")


if __name__ == "__main__":
    main()
