"""Weak scaling: a round's time and its communication on 1 and 2 CPU devices, and what that implies for 8 GPUs.

``python benchmarks/weak_scaling.py --out benchmarks/results/scale`` writes ``weak_scaling.jsonl`` and
``weak_scaling.txt``; about 5 minutes on 2 quiet cores. ProxSkip on the problem of ``scaling.py``, k local steps a
round, equally many clients a device however many there are. A device is a core: a process of its own for each point is
bound to as many cores as it has devices, three times in info with the others; the fastest is kept. Efficiency is the
time of one device by that of D. What is sent between devices is read from the compiled program of a round.

For 8 GPUs there is no measurement but an estimate. A ring over G devices sends 2 (G - 1)/G models of 4 d bytes past
each; the m clients of a device compute 6 b d operations a local step (forward and backward, each weight used once an
example). So communication by computation is

    (LATENCY + 2 (G - 1)/G 4 d / BANDWIDTH) / (6 m k b d / RATE),

with the numbers below, which are assumptions: NVLink of an H100 in one direction, what starting a collective takes, and
what of its 67 TFLOP/s in float32 small batches reach. ``--quick`` tries it all in a minute; its figures mean nothing.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

CLASSES, LOCAL_STEPS, DEVICES = (16, 128, 1_024), (1, 10), (1, 2)
GPUS, BANDWIDTH, LATENCY, RATE = 8, 450e9, 20e-6, 10e12
CLIENTS_A_GPU, BATCH_ON_GPU = 10, 16
SIZES = {"softmax on FEMNIST": 48_670, "LSTM of 1 million": 1_000_000, "ResNet18": 11_200_000, "GPT-2": 124_000_000}


def point(devices: int, classes: int, steps: int, quick: bool) -> dict:
    """One measurement, in this process, which is bound to ``devices`` cores before JAX is imported."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:devices])
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_num_cpu_devices", devices)
    from scaling import BATCH, FEATURES, made, timed

    from sps_jax import Layout, clients_mesh, prepare, proxskip, shard_problem
    from sps_jax.simulation.round import one_round
    from sps_jax.simulation.simulate import start_rounds

    here = 4 if quick else 20 if classes > 500 else 200
    problem = made(here * devices, classes)
    method = prepare(proxskip, {"stepsize": 0.1}, jnp.float32, local_steps=steps)
    layout = Layout(min(here, 10), clients_mesh(jax.devices()) if devices > 1 else None)
    rounds = 2 if quick else max(4, 40_000_000 // (here * steps * classes * (FEATURES + 1)))
    _, seconds = timed(method, layout, problem, rounds)

    key, own = jax.random.key(0), shard_problem(layout, problem)
    state = start_rounds(method, own, key, layout=layout)
    one = jax.jit(lambda own, state: one_round(method.algorithm(), own, method.schedule, state, key, layout)[0])
    return {
        "devices": devices,
        "clients": here * devices,
        "entries": (FEATURES + 1) * classes,
        "local_steps": steps,
        "batch": BATCH,
        "seconds_per_round": seconds / rounds,
        **collectives(one.lower(own, state).compile().as_text()),
    }


def collectives(program: str) -> dict:
    """How many collectives a compiled program has, of which kinds, and the bytes of their float32 results."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf"= (.*) ({kinds})(?:-start)?\(", program)
    shapes = [shape for result, _ in found for shape in re.findall(r"f32\[([\d,]*)\]", result)]
    entries = 0
    for shape in shapes:
        size = 1
        for axis in filter(None, shape.split(",")):
            size *= int(axis)
        entries += size
    return {"collectives": [kind for _, kind in found], "bytes_per_round": 4 * entries}


def estimate(d: int, steps: int) -> float:
    """Communication by computation in a round on GPUs."""
    sent = LATENCY + 2 * (GPUS - 1) / GPUS * 4 * d / BANDWIDTH
    return sent / (6 * CLIENTS_A_GPU * steps * BATCH_ON_GPU * d / RATE)


def tables(records: list[dict]) -> str:
    """What was measured, and what is estimated."""
    from sps_jax import results

    alone = {(r["entries"], r["local_steps"]): r["seconds_per_round"] for r in records if r["devices"] == 1}
    measured = [
        {
            "d": f"{r['entries']:,}",
            "k": str(r["local_steps"]),
            "devices": str(r["devices"]),
            "clients": str(r["clients"]),
            "ms a round": f"{1e3 * r['seconds_per_round']:.3g}",
            "efficiency": f"{alone[r['entries'], r['local_steps']] / r['seconds_per_round']:.2f}",
            "collectives": ", ".join(r["collectives"]) or "-",
            "bytes a round": f"{r['bytes_per_round']:,}",
        }
        for r in records
    ]
    head = (
        f"Estimated for {GPUS} GPUs, not measured: {BANDWIDTH / 1e9:g} GB/s, {1e6 * LATENCY:g} microseconds to begin,\n"
        f"{RATE / 1e12:g} TFLOP/s, {CLIENTS_A_GPU} clients a GPU, batches of {BATCH_ON_GPU}. "
        "Time of the all-reduce by that of the local steps:"
    )
    estimated = [
        {"model": name, "d": f"{d:,}"} | {f"k = {k}": f"{100 * estimate(d, k):.2g} %" for k in (1, 10, 100)}
        for name, d in SIZES.items()
    ]
    return f"{results.aligned(measured)}\n\n{head}\n\n{results.aligned(estimated)}"


def main() -> None:
    """All points, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--point", type=int, nargs=3, metavar=("DEVICES", "CLASSES", "STEPS"))
    options = parser.parse_args()
    if options.point:
        print(json.dumps(point(*options.point, options.quick)))
        return
    fastest: dict[tuple, dict] = {}
    points = list(itertools.product(CLASSES[:1] if options.quick else CLASSES, LOCAL_STEPS, DEVICES))
    for _ in range(1 if options.quick else 3):
        for classes, steps, devices in points:
            command = [sys.executable, __file__, "--point", str(devices), str(classes), str(steps)]
            command += ["--quick"] if options.quick else []
            record = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(json.dumps(record), flush=True)
            where = (classes, steps, devices)
            fastest[where] = min(fastest.get(where, record), record, key=lambda r: r["seconds_per_round"])
    from sps_jax.results import files

    options.out.mkdir(parents=True, exist_ok=True)
    records = [fastest[where] for where in points]
    files.write_jsonl(options.out / "weak_scaling.jsonl", records)
    files.write_text(options.out / "weak_scaling.txt", tables(records) + "\n")
    print(tables(records))


if __name__ == "__main__":
    main()
