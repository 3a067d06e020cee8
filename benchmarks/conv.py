"""GFLOP/s of a convolution, forward and backward, by ResNet18's layers: ours against XLA's own.

``python benchmarks/conv.py --json benchmarks/results/speed/conv.jsonl``; batches of 16, float32, a kernel of its own a
client: client by client in a loop (``loop``), and 4 clients under ``vmap`` in a loop (``vmap``). The result of every
system is compared with XLA's. 5 minutes on 2 cores, most of them XLA's. What was found: ``benchmarks/README.md``.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from speed import roofline

from sps_jax.models.conv import convolution, native_conv, patches_conv

BATCH, CLIENTS = 16, 4
LAYERS = [  # height and width, inputs, features, kernel, stride
    (32, 3, 64, 3, 1),
    (32, 64, 64, 3, 1),
    (32, 64, 128, 3, 2),
    (32, 64, 128, 1, 2),
    (16, 128, 128, 3, 1),
    (8, 256, 256, 3, 1),
    (4, 512, 512, 3, 1),
]
SYSTEMS = {
    "ours": convolution,
    "patches": patches_conv,
    "xla": native_conv,
}


def gradient_step(conv, strides, x, kernel):
    """One client: x and kernel moved against the gradients of half the squared result."""
    y, back = jax.vjp(lambda x, kernel: conv(x, kernel, strides), x, kernel)
    dx, dkernel = back(y)
    return x - 1e-3 * dx, kernel - 1e-3 * dkernel / x.size


def looped(conv, strides, layout, steps, x, kernel):
    """``steps`` of them for every client: x (n, b, H, W, c), kernel (n, kh, kw, c, features)."""
    one = partial(gradient_step, conv, strides)

    def client(x, kernel):
        return lax.fori_loop(0, steps, lambda _, own: one(*own), (x, kernel))

    return jax.vmap(client)(x, kernel) if layout == "vmap" else lax.map(lambda own: client(*own), (x, kernel))


def measure(layer, system, layout, x, kernel):
    """One line, and the result."""
    side, inputs, features, size, stride = layer
    steps = 1 if system == "xla" else 5
    run = jax.jit(partial(looped, SYSTEMS[system], (stride, stride), layout, steps))
    seconds = []
    for _ in range(2 if system == "xla" else 6):
        begun = time.perf_counter()
        jax.block_until_ready(run(x, kernel))
        seconds.append(time.perf_counter() - begun)
    flop = 3 * 2 * CLIENTS * steps * BATCH * (-(-side // stride)) ** 2 * size**2 * inputs * features
    line = {
        "side": side,
        "inputs": inputs,
        "features": features,
        "kernel": size,
        "stride": stride,
        "layout": layout,
        "system": system,
        "gflops": flop / statistics.median(seconds[1:]) / 1e9,
    }
    one = jax.jit(partial(looped, SYSTEMS[system], (stride, stride), layout, 1))
    return line, one(x, kernel)


def main() -> None:
    """Every layer, layout and system."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine, lines = roofline(), []
    generator = np.random.default_rng(0)
    for layer in LAYERS:
        side, inputs, features, size, _ = layer
        x = jnp.asarray(generator.normal(size=(CLIENTS, BATCH, side, side, inputs)), jnp.float32)
        kernel = generator.normal(size=(CLIENTS, size, size, inputs, features)) / np.sqrt(size**2 * inputs)
        kernel = jnp.asarray(kernel, jnp.float32)
        for layout in ("loop", "vmap"):
            results = {}
            for system in SYSTEMS:
                line, results[system] = measure(layer, system, layout, x, kernel)
                lines.append(line | machine)
            for one, two, other in zip(*results.values(), strict=True):
                differ = max(float(jnp.abs(a - other).max()) for a in (one, two))
                if differ > 1e-5 * float(jnp.abs(other).max()):
                    raise SystemExit(f"{layer} {layout}: the results differ")
            speed = ", ".join(f"{line['system']} {line['gflops']:.1f}" for line in lines[-3:])
            print(f"{layer!s:<22} {layout}: {speed} GFLOP/s", flush=True)
    print(f"a large matrix product reaches {machine['matmul_gflops']} GFLOP/s")
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
