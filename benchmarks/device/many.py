"""500 clients of ResNet18 within 24 GB: FedAvg in chunks, and ProxSkip's control variates in the host's memory.

FedAvg's clients keep nothing between rounds, so all of them take part, a chunk at a time. ProxSkip keeps an h of 45 MB
a client, 22 GB, and as much again until the server has answered: ``choose`` refuses that on such a card, and ``stream``
has the cohort of a round alone there. Both layouts are what ``choose`` finds for 24 GB; the process could take more.
"""

import statistics
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import psutil

import sps_jax as sps
from device.common import REPEATS, Record, Settings, attempted, peak, run, spent
from device.resnet import BATCH, STEPSIZE, images_problem, network
from sps_jax import tree
from sps_jax.layout import random_key
from sps_jax.simulation.footprint import footprint
from sps_jax.simulation.host import to_host
from sps_jax.simulation.placement import cohort_plan
from sps_jax.simulation.stream import start_streaming, stream_rounds

COLUMNS = ("way", "method", "clients", "a_round", "clients_at_once", "images_per_second", "predicted_gigabytes")
COLUMNS += ("peak_gigabytes", "holds", "refusal")
CLIENTS, COHORT, BYTES = 500, 50, 24 * 10**9


def records(settings: Settings) -> Iterator[Record]:
    """Streamed, which takes less, and then in chunks: a process's peak never falls."""
    clients, cohort, batch = (6, 2, 2) if settings.small else (CLIENTS, COHORT, BATCH)
    problem = images_problem(network(settings.small), clients, batch, batch)
    what = {"way": "stream", "method": "proxskip", "clients": clients, "a_round": cohort}
    yield attempted(what, lambda: streamed(to_host(problem), cohort, batch))
    what = {"way": "chunks", "method": "fedavg", "clients": clients, "a_round": clients}
    yield attempted(what, lambda: in_chunks(problem, batch))
    yield {"way": "all on the device", "method": "proxskip", "clients": clients, "a_round": clients} | refused(problem)


def within(found: Record) -> Record:
    """Whether the peak is within the memory, where the device tells it."""
    peaks = peak()
    return found | peaks | ({"holds": peaks["peak_gigabytes"] <= BYTES / 1e9} if peaks else {})


def streamed(problem: sps.Problem, cohort: int, batch: int) -> Record:
    """ProxSkip, a cohort a round; the first round compiles."""
    method, key = method_of(sps.proxskip, cohort), random_key(0)
    memory = tree.bytes(sps.shapes(method, problem).memory)
    needed, free = (problem.clients + 3 * cohort) * memory, psutil.virtual_memory().available
    if needed > free:
        return {"absent": f"the host has {free / 1e9:.0f} GB free, where the control variates need {needed / 1e9:.0f}"}
    layout = cohort_plan(method, problem, devices=1, memory=BYTES)
    state = start_streaming(method, problem, key)
    turns = stream_rounds(method, layout, problem, key, np.zeros(1 + REPEATS, bool), state)
    first, *seconds = [spent(lambda: next(turns)[0].server) for _ in range(1 + REPEATS)]
    rate = cohort * batch / statistics.median(seconds)
    found = {"images_per_second": rate, "seconds": seconds, "first_seconds": first, "clients_at_once": layout.chunk}
    need = footprint(sps.shapes(method, problem)._replace(cohort=None), first_of(problem, cohort), layout)
    return within(found | {"predicted_gigabytes": need.total / 1e9})


def in_chunks(problem: sps.Problem, batch: int) -> Record:
    """FedAvg, all clients a round."""
    method = method_of(sps.fedavg, None)
    specs = sps.shapes(method, problem)
    layout = sps.choose(specs, problem, devices=1, memory=BYTES)
    found, _ = run(problem, method, layout, rounds=1)
    need, at_once = footprint(specs, problem, layout), layout.chunk or problem.clients
    found |= {"clients_at_once": at_once, "predicted_gigabytes": need.total / 1e9}
    return within(found | {"images_per_second": problem.clients * batch / found["median_seconds"]})


def refused(problem: sps.Problem) -> Record:
    """What ``choose`` says of ProxSkip with all clients on the device, and what it predicts client by client."""
    specs = sps.shapes(method_of(sps.proxskip, None), problem)
    predicted = {"predicted_gigabytes": footprint(specs, problem, sps.Layout(1)).total / 1e9}
    try:
        layout = sps.choose(specs, problem, devices=1, memory=BYTES)
    except ValueError as error:
        return predicted | {"refusal": str(error)}
    return predicted | {"clients_at_once": layout.chunk or problem.clients}


def method_of(make, cohort: int | None) -> sps.Method:
    """The method with one local step a round: what is asked is memory."""
    return sps.prepare(make, {"stepsize": STEPSIZE}, jnp.float32, local_steps=1, cohort=cohort)


def first_of(problem: sps.Problem, cohort: int) -> sps.Problem:
    """The problem of as many clients as a cohort has."""
    return problem.only(np.arange(cohort))
