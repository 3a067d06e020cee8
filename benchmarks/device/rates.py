"""Bytes and FLOP a second of two jobs against the device's own large copy and large product, in one process."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from deep import FLOP

import sps_jax as sps
from device import images
from device.common import Record, Settings, attempted, run, timed
from device.resnet import BATCH
from sps_jax.problems.supervised import linear_problem
from sps_jax.simulation.method import MATMUL_PRECISIONS

COLUMNS = ("what", "client_steps_per_second", "gigabytes_per_second", "share_of_copy", "teraflops", "share_of_product")
CLIENTS, EXAMPLES, FEATURES, CLASSES = 100, 100, 784, 10
SPARSITY, LOCAL_STEPS, ROUNDS = 0.99, 10, 50
RESNET18 = 11_173_962  # parameters


def records(settings: Settings) -> Iterator[Record]:
    """The device's own rates, and then the jobs, with their shares of them in float32."""
    size, entries = (256, 2**18) if settings.small else (8192, 2**28)
    own = [attempted({"what": "copy"}, lambda: copied(entries))]
    for precision in MATMUL_PRECISIONS:
        what = {"what": f"product in {precision}"}
        own.append(attempted(what, lambda precision=precision: multiplied(size, precision)))
    yield from own
    limits = {name: own[i].get(name) for i, name in enumerate(("gigabytes_per_second", "teraflops"))}
    for what, job in (("FEMNIST shapes, TopK 99 %", sparse_job), ("ResNet18, one by one", resnet_job)):
        found = attempted({"what": what}, lambda job=job: job(settings.small))
        for name, share in (("gigabytes_per_second", "share_of_copy"), ("teraflops", "share_of_product")):
            found |= {share: found[name] / limits[name]} if name in found and limits[name] else {}
        yield found


def copied(entries: int) -> Record:
    """A copy of float32 numbers with another sign: each is read and written."""
    x, copy = jnp.ones(entries), jax.jit(jnp.negative)
    found = timed(lambda: copy(x))
    return found | {"gigabytes_per_second": 2 * x.nbytes / found["median_seconds"] / 1e9}


def multiplied(size: int, precision: str) -> Record:
    """A product of two square matrices."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size), np.float32))
    multiply = jax.jit(jnp.matmul)
    with jax.default_matmul_precision(precision):
        found = timed(lambda: multiply(a, a))
    return found | {"teraflops": 2 * size**3 / found["median_seconds"] / 1e12}


def sparse_job(small: bool) -> Record:
    """Sparse-ProxSkip, full batches. A step's bytes are the fewest: data read forward and backward, x, h, x written.

    What stays in a cache between steps is counted as if it were read again, so a share can pass 1.
    """
    generator, clients = np.random.default_rng(0), 10 if small else CLIENTS
    x = generator.random((clients * EXAMPLES, FEATURES), np.float32)
    y = generator.integers(0, CLASSES, len(x))
    problem = linear_problem("softmax", (x, y), None, np.split(np.arange(len(x)), clients), outputs=CLASSES)
    hyper = {"stepsize": 0.01, "sparsity": SPARSITY}
    method, rounds = (
        sps.prepare(sps.sparse_proxskip, hyper, jnp.float32, local_steps=LOCAL_STEPS),
        2 if small else ROUNDS,
    )
    found, _ = run(problem, method, sps.Layout(), rounds)
    rate = clients * LOCAL_STEPS * rounds / found["median_seconds"]
    moved = 4 * (2 * EXAMPLES * FEATURES + 3 * FEATURES * CLASSES)
    return found | rates_of(rate, moved, 4 * EXAMPLES * FEATURES * CLASSES)


def resnet_job(small: bool) -> Record:
    """FedAvg as in ``images``, client by client. A step's bytes are the parameters': read twice and written."""
    batch, rounds = (2, 1) if small else (BATCH, images.ROUNDS)
    found = images.one("native", 1, small, batch, rounds)
    rate = found["images_per_second"] / batch
    return found | ({"client_steps_per_second": rate} if small else rates_of(rate, 3 * 4 * RESNET18, batch * FLOP))


def rates_of(rate: float, moved: int, flop: int) -> Record:
    """The figures of so many client-steps a second that move so many bytes and take so many operations."""
    per_step = {"bytes_per_client_step": moved, "flop_per_client_step": flop}
    figures = {"gigabytes_per_second": rate * moved / 1e9, "teraflops": rate * flop / 1e12}
    return {"client_steps_per_second": rate} | per_step | figures
