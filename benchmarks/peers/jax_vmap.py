"""All clients at once in plain JAX: ``vmap`` over clients of a ``lax.scan`` of local steps, a jitted round."""

import sys
from functools import partial
from pathlib import Path

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


def compressor(job: jobs.Job):
    """C of the job: :func:`prune` if it is sparse, else nothing."""
    return partial(prune, kept=job.kept) if job.method == "sparse" else lambda model: model


def local_steps(job: jobs.Job, order, b, h, data):
    """What a client sends: x after the steps of a round from b, pruned if the job is sparse; h None for FedAvg."""
    compress = compressor(job)

    def body(x, j):
        g = jax.grad(loss)(compress(x), *jax.tree.map(lambda a: a[j], data))
        direction = g if h is None else jax.tree.map(jnp.subtract, g, h)
        return jax.tree.map(lambda x, v: x - job.stepsize * v, x, direction), None

    return compress(lax.scan(body, b, order)[0])


def control(job: jobs.Job, b, h, sent):
    """A client's control variate after the round."""
    return jax.tree.map(lambda b, h, x: h + job.prob / job.stepsize * (b - x), b, h, sent)


def solve(job: jobs.Job) -> jobs.Run:
    """FedAvg, or Scaffnew, pruned if the job is sparse."""
    data, order = batches(job)

    @jax.jit
    def one_round(b, h, data):
        with jax.default_matmul_precision("float32"):  # as the other systems; a GPU's default is TF32
            sent = jax.vmap(partial(local_steps, job, order), (None, 0, 0))(b, h, data)
        b = jax.tree.map(lambda a: jnp.mean(a, axis=0), sent)
        return b, None if h is None else jax.vmap(partial(control, job), (None, 0, 0))(b, h, sent)

    def run():
        b = new_model(job)
        h = None if job.method == "fedavg" else jax.tree.map(lambda a: jnp.zeros((job.shape[0], *a.shape)), b)
        for _ in range(job.rounds):
            b, h = one_round(b, h, data)
        return b["kernel"], b["bias"]

    return run


if __name__ == "__main__":
    jobs.main("jax_vmap", ["jax", "jaxlib"], {"fedavg": solve, "scaffnew": solve, "sparse": solve})
