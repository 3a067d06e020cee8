"""sps_jax itself, through its public ``simulate``, on all cores."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import sps_jax as sps
from sps_jax.models import linear
from sps_jax.problems.losses import loss_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs

METHODS = {"fedavg": sps.fedavg, "scaffnew": sps.proxskip, "sparse": sps.sparse_proxskip}


def problem_and_hyper(job: jobs.Job) -> tuple[sps.Problem, dict[str, float]]:
    """The job as a problem and the hyperparameters of its method."""
    n, m, d, c = job.shape
    model = linear(d, c)
    problem = sps.Problem(
        data=(jnp.asarray(job.features), jnp.asarray(job.labels, jnp.int32)),
        counts=jnp.full(n, m, jnp.int32),
        test=None,
        ridge=jnp.zeros((), jnp.float32),
        init=model.init,
        loss=loss_of(model, "softmax"),
        batch_size=job.batch,
        in_order=True,
    )
    hyper = {"stepsize": job.stepsize} | ({"sparsity": 1 - job.kept / (d * c)} if job.method == "sparse" else {})
    return problem, hyper


def solver(job: jobs.Job) -> jobs.Run:
    """The job as a run of the package, its clients on their devices beforehand."""
    problem, hyper = problem_and_hyper(job)
    method = sps.prepare(METHODS[job.method], hyper, jnp.float32, local_steps=job.local_steps)
    layout = sps.choose(sps.shapes(method, problem), problem)
    problem = sps.shard_problem(layout, problem)

    def run():
        state, _ = sps.simulate(
            METHODS[job.method],
            problem,
            hyper,
            jax.random.key(0),
            rounds=job.rounds,
            local_steps=job.local_steps,
            evaluate_every=job.rounds,
            layout=layout,
        )
        params = state.server["params"]
        return np.asarray(params["kernel"]).T, np.asarray(params["bias"])

    return run


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    jobs.main("sps_jax", ["sps_jax", "jax", "jaxlib"], dict.fromkeys(METHODS, solver))
