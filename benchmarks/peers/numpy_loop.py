"""A plain loop over clients in NumPy: buffers allocated once, everything in place, the bias the kernel's last row."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs


def batches(job: jobs.Job, dtype: type) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Each client's batches of a round: features with a column of ones, and one-hot labels."""
    n, m, d, c = job.shape
    features = np.ones((n, m, d + 1), dtype)
    features[:, :, :d] = job.features
    labels = np.eye(c, dtype=dtype)[job.labels]
    parts = [slice(start, start + job.batch) for start in job.starts]
    return [[(a[part], y[part]) for part in parts] for a, y in zip(features, labels, strict=True)]


def make_move(job: jobs.Job, dtype: type) -> Callable[..., None]:
    """A function that moves x by a step along the negative gradient at ``at``, in place."""
    _, _, d, c = job.shape
    logits, one, step = np.empty((job.batch, c), dtype), np.empty((job.batch, 1), dtype), np.empty((d + 1, c), dtype)
    scale = dtype(job.stepsize / job.batch)

    def move(x, at, a, y):
        np.matmul(a, at, out=logits)
        np.max(logits, axis=1, keepdims=True, out=one)
        np.subtract(logits, one, out=logits)
        np.exp(logits, out=logits)
        np.sum(logits, axis=1, keepdims=True, out=one)
        np.divide(logits, one, out=logits)
        np.subtract(logits, y, out=logits)
        np.multiply(logits, scale, out=logits)
        np.matmul(a.T, logits, out=step)
        np.subtract(x, step, out=x)

    return move


def make_prune(job: jobs.Job, dtype: type) -> Callable[..., None]:
    """C: a function that writes x's bias and the largest magnitudes of its kernel (ties too) into ``out``."""
    _, _, d, c = job.shape
    negative = np.empty(d * c, dtype)  # magnitudes, negated: partitions with many equal zeros stay fast

    def prune(x, out):
        flat, target = x.reshape(-1), out.reshape(-1)
        np.abs(flat[: d * c], out=negative)
        np.negative(negative, out=negative)
        kept = np.flatnonzero(negative <= np.partition(negative, job.kept - 1)[job.kept - 1])
        out[:d] = 0
        out[d] = x[d]
        target[kept] = flat[kept]

    return prune


def fedavg(job: jobs.Job, dtype: type = np.float32) -> jobs.Run:
    """FedAvg."""
    n, _, d, c = job.shape
    data, move = batches(job, dtype), make_move(job, dtype)

    def run():
        b, x, total = (np.zeros((d + 1, c), dtype) for _ in range(3))
        for _ in range(job.rounds):
            total[:] = 0
            for own in data:
                x[:] = b
                for a, y in own:
                    move(x, x, a, y)
                total += x
            np.divide(total, n, out=b)
        return b[:d], b[d]

    return run


def scaffnew(job: jobs.Job, dtype: type = np.float32) -> jobs.Run:
    """Scaffnew, its control variates stored times gamma; pruned if the job is sparse."""
    n, _, d, c = job.shape
    sparse, p = job.method == "sparse", dtype(job.prob)
    data, move, prune = batches(job, dtype), make_move(job, dtype), make_prune(job, dtype)

    def run():
        b, total, difference = (np.zeros((d + 1, c), dtype) for _ in range(3))
        x, h, pruned = np.empty((d + 1, c), dtype), np.zeros((n, d + 1, c), dtype), np.empty((d + 1, c), dtype)
        sent = np.empty((n, d + 1, c), dtype)
        for _ in range(job.rounds):
            total[:] = 0
            for own, control, message in zip(data, h, sent, strict=True):
                x[:] = b
                for a, y in own:
                    if sparse:
                        prune(x, pruned)
                    move(x, pruned if sparse else x, a, y)
                    x += control
                if sparse:
                    prune(x, message)
                else:
                    message[:] = x
                total += message
            np.divide(total, n, out=b)
            for control, message in zip(h, sent, strict=True):
                np.subtract(b, message, out=difference)
                difference *= p
                control += difference
        return b[:d], b[d]

    return run


if __name__ == "__main__":
    jobs.main("numpy_loop", ["numpy"], {"fedavg": fedavg, "scaffnew": scaffnew, "sparse": scaffnew})
