"""FedJAX: its ``fed_avg`` algorithm with the default backend, batches in order (``skip_shuffle``)."""

# ruff: noqa: E402

import sys
from pathlib import Path

import jax

jax.tree_map = jax.tree_util.tree_map  # what FedJAX uses, gone from newer versions of JAX

import fedjax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs


def loss(model, batch, rng):
    """Cross entropy of one client's batch."""
    del rng
    logits = batch["x"] @ model["kernel"] + model["bias"]
    picked = jnp.take_along_axis(logits, batch["y"][:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def fedavg(job: jobs.Job) -> jobs.Run:
    """FedAvg."""
    n, _, d, c = job.shape
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        grad_fn=jax.jit(jax.grad(loss)),
        client_optimizer=fedjax.optimizers.sgd(job.stepsize),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(
            batch_size=job.batch, num_epochs=None, num_steps=job.local_steps, skip_shuffle=True
        ),
    )
    data = zip(job.features, job.labels.astype("int32"), strict=True)
    clients = [
        (i, fedjax.ClientDataset({"x": a, "y": y}), key)
        for i, ((a, y), key) in enumerate(zip(data, jax.random.split(jax.random.key(0), n), strict=True))
    ]

    def run():
        state = algorithm.init({"kernel": jnp.zeros((d, c)), "bias": jnp.zeros(c)})
        for _ in range(job.rounds):
            state, _ = algorithm.apply(state, clients)
        return state.params["kernel"], state.params["bias"]

    return run


if __name__ == "__main__":
    jobs.main(
        "fedjax_fedavg",
        ["fedjax", "jax", "jaxlib"],
        {"fedavg": fedavg},
        cannot="of this family FedJAX has FedAvg only: no Scaffnew, no pruning",
    )
