"""ResNet18, images a second of local gradient steps: clients at once, in chunks, one by one; native or as patches."""

from collections.abc import Iterator

import jax.numpy as jnp
from deep import FLOP

import sps_jax as sps
from device.common import Record, Settings, attempted, run, with_gaps
from device.resnet import BATCH, STEPSIZE, images_problem, network

COLUMNS = ("convolution", "clients_at_once", "images_per_second", "teraflops", "work_gigabytes", "loss_gap", "holds")
CLIENTS, EXAMPLES, LOCAL_STEPS, ROUNDS = 10, 64, 2, 5
WAYS = (("native", 10), ("native", 5), ("native", 1), ("patches", 10), ("patches", 1))
TOLERANCE = 1e-3
"""Of the final losses, relative to the first's: that of ``deep.py``, convolutions summing in different orders."""


def records(settings: Settings) -> Iterator[Record]:
    """A record a way; all of them start from the same parameters and see the same batches."""
    batch, rounds = (2, 1) if settings.small else (BATCH, ROUNDS)
    found = []
    for convolution, chunk in WAYS:
        what = {"convolution": convolution, "clients_at_once": chunk, "batch": batch, "rounds": rounds}
        found.append(attempted(what, lambda way=(convolution, chunk): one(*way, settings.small, batch, rounds)))
    yield from with_gaps(found, TOLERANCE)


def one(convolution: str, chunk: int, small: bool, batch: int, rounds: int) -> Record:
    """One way's figures; FLOP are those of direct convolutions, forward and backward."""
    problem = images_problem(network(small, convolution), CLIENTS, EXAMPLES if not small else 4, batch)
    method = sps.prepare(sps.fedavg, {"stepsize": STEPSIZE}, jnp.float32, local_steps=LOCAL_STEPS)
    found, _ = run(problem, method, sps.Layout(None if chunk == CLIENTS else chunk), rounds)
    rate = rounds * LOCAL_STEPS * CLIENTS * batch / found["median_seconds"]
    return found | {"images_per_second": rate} | ({} if small else {"teraflops": rate * FLOP / 1e12})
