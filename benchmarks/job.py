"""The jobs of the speed benchmark, and the command line that every system shares. NumPy only.

One job is ``rounds`` rounds of federated softmax regression, the same mathematics for every system:

* n clients with m examples of d features each, all float32, labels from a teacher that all clients share plus one of
  their own; parameters a kernel (d, c) and a bias (c,) that start at zero.
* A round is k local steps of every client, then an average with equal weights. Step j of a round takes the batch of
  rows ``(batch * j) % m`` and following, so nothing is random and all systems must end at the same loss.
* ``fedavg``: x <- x - gamma g_i(x), then b = mean x_i and x_i = b.
* ``scaffnew``: x <- x - gamma (g_i(x) - h_i), then b = mean x_i, h_i <- h_i + p/gamma (b - x_i) with p = 1/k, x_i = b.
* ``sparse``: as ``scaffnew`` with g_i(C(x)) for g_i(x), b = mean C(x_i) and h_i <- h_i + p/gamma (b - C(x_i)). C keeps
  the ``kept`` largest magnitudes of the kernel and the whole bias.

A system is a script that calls :func:`main`; see ``peers/``.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

CANNOT = 4  # exit status of a system that has no such algorithm

Params = tuple[Any, Any]  # kernel (d, c) and bias (c,), anything np.asarray takes
Run = Callable[[], Params]


@dataclass(frozen=True)
class Job:
    """What to compute; ``features`` and ``labels`` are the clients' data.

    Attributes:
      name: one of ``JOBS``.
      method: "fedavg", "scaffnew" or "sparse".
      classes: c.
      batch: examples of a local step.
      stepsize: gamma.
      kept: entries of the kernel that C keeps.
      rounds, local_steps: R and k.
      examples: m; a whole number of passes is made in a round.
      features: (n, m, d) float32.
      labels: (n, m) int64 in [0, c).
      device: where a system that can choose computes, "cpu" or "cuda".
    """

    name: str
    method: str
    classes: int
    batch: int
    stepsize: float
    kept: int
    rounds: int = 20
    local_steps: int = 10
    examples: int = 100
    features: np.ndarray | None = None
    labels: np.ndarray | None = None
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, m, d and c."""
        return (*self.features.shape, self.classes)

    @property
    def prob(self) -> float:
        """p = 1/k."""
        return 1 / self.local_steps

    @property
    def starts(self) -> list[int]:
        """The first row of each of a round's batches."""
        return [self.batch * j % self.features.shape[1] for j in range(self.local_steps)]


CLIENTS, FEATURES = 100, 784
# Feature j has the standard deviation SCALE / sqrt(j + 1): a few matter much, so that a sparse kernel can learn, and
# the largest eigenvalue of A'A / (2 m), which bounds a client's curvature, is about 1.
SCALE = 1.2

JOBS = {
    job.name: job
    for job in (
        Job("dense-fedavg", "fedavg", classes=62, batch=20, stepsize=0.5, kept=FEATURES * 62),
        Job("dense-scaffnew", "scaffnew", classes=62, batch=20, stepsize=0.5, kept=FEATURES * 62),
        Job("sparse-topk", "sparse", classes=62, batch=20, stepsize=0.5, kept=max(1, round(0.01 * FEATURES * 62))),
        Job("small-work", "fedavg", classes=10, batch=1, stepsize=0.1, kept=FEATURES * 10, examples=10),
    )
}


@functools.cache
def make_job(name: str, rounds: int = 20, clients: int = CLIENTS) -> Job:
    """The job with its data, the same in every call."""
    job, rng = JOBS[name], np.random.default_rng(2405)
    features = rng.standard_normal((clients, job.examples, FEATURES), np.float32)
    features *= (SCALE / np.sqrt(np.arange(FEATURES) + 1)).astype(np.float32)
    common = rng.standard_normal((FEATURES, job.classes))
    labels = np.empty((clients, job.examples), np.int64)
    for a, y in zip(features, labels, strict=True):
        y[:] = np.argmax(a @ (common + rng.standard_normal(common.shape)), axis=1)
    return replace(job, rounds=rounds, features=features, labels=labels)


def final_loss(job: Job, kernel: np.ndarray, bias: np.ndarray) -> float:
    """Mean cross entropy over all training examples, in float64."""
    kernel, bias, losses = kernel.astype(np.float64), bias.astype(np.float64), []
    for a, y in zip(job.features, job.labels, strict=True):
        logits = a @ kernel + bias
        top = logits.max(axis=1)
        losses.append(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(y)), y])
    return float(np.mean(losses))


def measure(job: Job, run: Run, repeats: int) -> dict[str, Any]:
    """Time ``run``, a whole run from the start state, ``repeats`` times after one that pays for compilation."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        kernel, bias = (np.asarray(a) for a in run())
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    n, _, d, c = job.shape
    if kernel.shape != (d, c) or bias.shape != (c,):
        raise ValueError(f"expected a kernel {(d, c)} and a bias {(c,)}, got {kernel.shape} and {bias.shape}")
    median = statistics.median(seconds[1:])
    return {
        "client_steps_per_second": n * job.local_steps * job.rounds / median,
        "final_loss": final_loss(job, kernel, bias),
        "peak_memory_mb": peak,
        "compile_seconds": max(0.0, seconds[0] - median),
        "seconds": seconds[1:],
    }


def main(
    system: str,
    packages: Sequence[str],
    solvers: dict[str, Callable[[Job], Run]],
    cannot: str = "",
    devices: Sequence[str] = ("cpu",),
) -> None:
    """The command line of a system: a JSON line a job and number of rounds on standard output.

    What the system itself prints goes to standard error.

    Args:
      system: its name.
      packages: the distributions whose versions are recorded.
      solvers: for each METHOD ("fedavg", "scaffnew", "sparse") that the system has, job -> run. The solver prepares
        (not timed); ``run()`` does all rounds from the start state and returns the server's average.
      cannot: why it has no other method; such a job ends with exit status 4.
      devices: what ``--device`` may be; the first is the default.
    """
    parser = argparse.ArgumentParser(description=f"The speed benchmark's jobs in {system}.")
    parser.add_argument("--job", choices=list(JOBS), required=True, nargs="+")
    parser.add_argument("--rounds", type=int, default=[20], nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--device", choices=list(devices), default=devices[0])
    args = parser.parse_args()
    if min(*args.rounds, args.repeats, args.clients) < 1:
        parser.error("--rounds, --repeats and --clients must be at least 1")
    if impossible := [name for name in args.job if JOBS[name].method not in solvers]:
        name, method = impossible[0], JOBS[impossible[0]].method
        print(f"{system}: {name} is not possible: {cannot or f'no {method}'}", file=sys.stderr)
        sys.exit(CANNOT)
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
    for name, rounds in itertools.product(args.job, args.rounds):
        with contextlib.redirect_stdout(sys.stderr):
            job = replace(make_job(name, rounds, args.clients), device=args.device)
            record = {"job": job.name, "system": system, **measure(job, solvers[job.method](job), args.repeats)}
        print(json.dumps(record | {"rounds": rounds, "versions": versions}), flush=True)
