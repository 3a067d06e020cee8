"""DrJAX: a jitted round of its broadcast, map_fn and reduce_mean, the local steps a ``lax.scan``."""

import sys
from pathlib import Path

import drjax
import jax
import jax.numpy as jnp
from jax import lax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs


def loss(model, a, y):
    """Cross entropy of one client's batch."""
    logits = a @ model["kernel"] + model["bias"]
    picked = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def batches(job: jobs.Job):
    """Each client's distinct batches (n, batches, batch, ...), and which one a step takes."""
    distinct = sorted(set(job.starts))
    rows = jnp.array(distinct)[:, None] + jnp.arange(job.batch)
    data = jnp.asarray(job.features)[:, rows], jnp.asarray(job.labels, jnp.int32)[:, rows]
    return data, jnp.array([distinct.index(start) for start in job.starts])


def new_model(job: jobs.Job):
    """The server's model at zero."""
    _, _, d, c = job.shape
    return {"kernel": jnp.zeros((d, c)), "bias": jnp.zeros(c)}


def prune(model, kept: int):
    """C: the largest magnitudes of the kernel, and the bias."""
    flat = model["kernel"].ravel()
    _, rows = lax.top_k(jnp.abs(flat), kept)
    pruned = jnp.zeros_like(flat).at[rows].set(flat[rows])
    return {"kernel": pruned.reshape(model["kernel"].shape), "bias": model["bias"]}


def make_round(job: jobs.Job, order, prune):
    """A jitted round (b, h, data) -> (b, h); without control variates if h is None."""

    def local_steps(b, h, data):
        def body(x, j):
            g = jax.grad(loss)(prune(x), *jax.tree.map(lambda a: a[j], data))
            direction = g if h is None else jax.tree.map(jnp.subtract, g, h)
            return jax.tree.map(lambda x, v: x - job.stepsize * v, x, direction), None

        return prune(lax.scan(body, b, order)[0])

    def control(b, h, sent):
        return jax.tree.map(lambda b, h, x: h + job.prob / job.stepsize * (b - x), b, h, sent)

    @jax.jit
    @drjax.program(placements={"clients": job.shape[0]})
    def one_round(b, h, data):
        sent = drjax.map_fn(local_steps, (drjax.broadcast(b), h, data))
        b = drjax.reduce_mean(sent)
        return b, None if h is None else drjax.map_fn(control, (drjax.broadcast(b), h, sent))

    return one_round


def solve(job: jobs.Job) -> jobs.Run:
    """FedAvg, or Scaffnew, pruned if the job is sparse."""
    data, order = batches(job)
    one_round = make_round(job, order, (lambda x: prune(x, job.kept)) if job.method == "sparse" else lambda x: x)

    def run():
        b = new_model(job)
        h = None if job.method == "fedavg" else jax.tree.map(lambda a: jnp.zeros((job.shape[0], *a.shape)), b)
        for _ in range(job.rounds):
            b, h = one_round(b, h, data)
        return b["kernel"], b["bias"]

    return run


if __name__ == "__main__":
    jobs.main("drjax_map", ["drjax", "jax", "jaxlib"], {"fedavg": solve, "scaffnew": solve, "sparse": solve})
