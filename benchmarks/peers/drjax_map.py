"""DrJAX: a jitted round of its broadcast, map_fn and reduce_mean over the clients of ``jax_vmap.py``."""

import sys
from functools import partial
from pathlib import Path

import drjax
import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs
from jax_vmap import batches, control, local_steps, new_model


def make_round(job: jobs.Job, order):
    """A jitted round (b, h, data) -> (b, h); without control variates if h is None."""

    @jax.jit
    @drjax.program(placements={"clients": job.shape[0]})
    def one_round(b, h, data):
        sent = drjax.map_fn(partial(local_steps, job, order), (drjax.broadcast(b), h, data))
        b = drjax.reduce_mean(sent)
        return b, None if h is None else drjax.map_fn(partial(control, job), (drjax.broadcast(b), h, sent))

    return one_round


def solve(job: jobs.Job) -> jobs.Run:
    """FedAvg, or Scaffnew, pruned if the job is sparse."""
    data, order = batches(job)
    one_round = make_round(job, order)

    def run():
        b = new_model(job)
        h = None if job.method == "fedavg" else jax.tree.map(lambda a: jnp.zeros((job.shape[0], *a.shape)), b)
        for _ in range(job.rounds):
            b, h = one_round(b, h, data)
        return b["kernel"], b["bias"]

    return run


if __name__ == "__main__":
    jobs.main("drjax_map", ["drjax", "jax", "jaxlib"], {"fedavg": solve, "scaffnew": solve, "sparse": solve})
