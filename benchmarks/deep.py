"""Images per second through ResNet18: sps_jax, a PyTorch loop over clients, and flax's Conv under ``vmap``.

``python benchmarks/deep.py --torch PYTHON --json benchmarks/results/speed/deep.jsonl``, PYTHON an interpreter that has
torch (``speed.py`` makes one from ``peers/torch_loop.txt``). Two jobs of 10 clients, batches of 16 random images,
float32, all 11.2 million parameters: ``gradient``, local gradient steps (FedAvg), and ``sparse``, Sparse-ProxSkip with
TopK at 90 % in every step. Each system is a process of its own, one after another; all start from the same parameters
and see the same batches; ``sps_jax_bfloat16`` is ``--precision bfloat16``. It ends with status 1 where final losses of
PyTorch and sps_jax differ by more than 1e-3. 22 minutes on 2 cores, of which flax's Conv takes 15. What was found:
``benchmarks/README.md``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from speed import check_losses, roofline

CLIENTS, EXAMPLES, BATCH, STEPSIZE, SPARSITY = 10, 64, 16, 0.01, 0.9
FLOP = 3 * 2 * 555_422_720  # of an image, forward and backward: multiply-adds of all convolutions and the head
TOLERANCE = 1e-3
JOBS = {"gradient": {"method": "fedavg", "local_steps": 2}, "sparse": {"method": "sparse_proxskip", "local_steps": 2}}
SYSTEMS = ("sps_jax", "sps_jax_bfloat16", "torch_loop", "flax_conv_vmap")


def data() -> tuple[np.ndarray, np.ndarray]:
    """Standardised images (n, m, 32, 32, 3), each with something of its class, and labels (n, m)."""
    generator = np.random.default_rng(18)
    labels = generator.integers(0, 10, (CLIENTS, EXAMPLES)).astype(np.int32)
    patterns = generator.normal(size=(10, 32, 32, 3))
    images = generator.normal(size=(CLIENTS, EXAMPLES, 32, 32, 3)) + 0.5 * patterns[labels]
    return images.astype(np.float32), labels


def ours(job: str, conv: str, rounds: int, repeats: int, precision: str = "float32") -> dict:
    """One measurement of sps_jax, in this process."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)) if conv == "Conv" else 1)
    _, problem, method, key = build(job, conv, precision)
    from sps_jax import Layout, choose, shapes
    from sps_jax.simulation.simulate import run_rounds, shard_problem, start_rounds

    layout = choose(shapes(method, problem), problem) if conv == "Conv" else Layout()
    asked = jnp.zeros(rounds, bool)

    def begin():
        return shard_problem(layout, problem), start_rounds(method, problem, key, layout=layout)

    own, state = begin()
    begun = time.perf_counter()
    run = run_rounds.lower(method, layout, own, state, key, asked).compile()
    compiled, seconds = time.perf_counter() - begun, []
    for _ in range(repeats):
        own, state = jax.block_until_ready(begin())
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(run(method, own, state, key, asked))
        seconds.append(time.perf_counter() - begun)
    images, labels = data()
    params = method.algorithm().broadcast(state.server)
    one = jax.jit(problem.loss)
    loss = float(np.mean([np.mean(one(params, x, y)) for x, y in zip(images, labels, strict=True)]))
    done = rounds * JOBS[job]["local_steps"] * CLIENTS * BATCH
    memory = run.memory_analysis()
    return {
        "images_per_second": done / statistics.median(seconds),
        "final_loss": loss,
        "seconds": seconds,
        "compile_seconds": compiled,
        "chunk": layout.chunk,
        "devices": layout.devices,
        "memory_mb": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20,
        "versions": {"jax": jax.__version__},
    }


def build(job: str, conv: str, precision: str = "float32"):
    """Network, problem and prepared method of a job."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from sps_jax import ALGORITHMS, prepare
    from sps_jax.models import conv as convolutions
    from sps_jax.models import resnet18
    from sps_jax.problems.supervised import network_problem

    model = resnet18(conv=convolutions.Conv if conv == "Conv" else nn.Conv, dtype=precision)
    images, labels = data()
    parts = [np.arange(EXAMPLES) + i * EXAMPLES for i in range(CLIENTS)]
    flat = images.reshape(-1, *images.shape[2:]), labels.reshape(-1)
    problem = network_problem("softmax", model, flat, None, parts, batch_size=BATCH, in_order=True, precision=precision)
    hyper = {"stepsize": STEPSIZE} | ({"sparsity": SPARSITY} if job == "sparse" else {})
    make = ALGORITHMS[JOBS[job]["method"]]
    chosen = prepare(make, hyper, jnp.float32, local_steps=JOBS[job]["local_steps"])
    return model, problem, chosen, jax.random.key(0)


def torchs(job: str, python: str, rounds: int, repeats: int) -> dict:
    """One measurement of the PyTorch loop, in a process of its own."""
    from sps_jax.compression import Sparsifier, kept
    from sps_jax.simulation.schedule import split_key

    model, *_, key = build(job, "Conv")
    params = model.init(split_key(key).init)["params"]
    blocks = [params[f"Block_{i}"] for i in range(8)]
    layers = [(params["first"], params["GroupNorm_0"])]
    layers += [(b[f"Conv_{i}"], b[f"GroupNorm_{i}"]) for b in blocks for i in range(3) if f"Conv_{i}" in b]
    arrays = [a for c, g in layers for a in (c["kernel"].transpose(3, 2, 0, 1), g["scale"], g["bias"])]
    arrays += [params["last"]["kernel"].T, params["last"]["bias"]]
    entries = sum(Sparsifier().leaves(params).values())
    images, labels = data()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            Path(folder) / "job.npz",
            **{f"p{i}": np.ascontiguousarray(a) for i, a in enumerate(arrays)},
            images=np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3)),
            labels=labels.astype(np.int64),
            batch=BATCH,
            stepsize=STEPSIZE,
            local_steps=JOBS[job]["local_steps"],
            control=int(job == "sparse"),
            kept=int(kept(SPARSITY, entries)) if job == "sparse" else entries,
            rounds=rounds,
            repeats=repeats,
        )
        script = Path(__file__).parent / "peers" / "torch_resnet18.py"
        done = subprocess.run([python, script, Path(folder) / "job.npz"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(system: str, job: str, python: str, rounds: int, repeats: int) -> dict:
    """One line."""
    if system == "torch_loop":
        line = torchs(job, python, rounds, repeats)
    elif system == "sps_jax":
        line = ours(job, "Conv", rounds, repeats)
    elif system == "sps_jax_bfloat16":
        line = ours(job, "Conv", rounds, repeats, "bfloat16")
    else:
        line = ours(job, "nn.Conv", 1, 1)
    return {"job": job, "system": system, "gflops": line["images_per_second"] * FLOP / 1e9} | line


def main() -> int:
    """Every system on every job, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("SYSTEM", "JOB"), help="measure in this process, print one line")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.torch, options.rounds, options.repeats)))
        return 0
    lines = []
    for job in JOBS:
        for system in options.systems:
            if system in ("flax_conv_vmap", "sps_jax_bfloat16") and job != "gradient":
                continue
            asked = ["--torch", options.torch, "--rounds", str(options.rounds), "--repeats", str(options.repeats)]
            command = [sys.executable, __file__, "--one", system, job, *asked]
            lines.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
            print(json.dumps(lines[-1]), flush=True)
    machine = roofline()
    if options.json:
        options.json.write_text("".join(json.dumps(line | machine) + "\n" for line in lines), encoding="utf-8")
    print(f"a large matrix product reaches {machine['matmul_gflops']} GFLOP/s")
    alike = [line for line in lines if line["system"] in ("sps_jax", "torch_loop")]  # the others: one round, coarser
    return check_losses(alike, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
