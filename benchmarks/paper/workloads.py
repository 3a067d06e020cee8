"""The workloads of the scoreboard: a problem, how long it is run, and the level that is to be reached.

Targets were fixed before the methods were compared: that of ``quadratic`` from its exact solution, those of the others
where the published tables of ``benchmarks/results`` have several pruned methods.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sps_jax.compression.scopes import kept
from sps_jax.problem import Problem
from sps_jax.problems import blog_feedback, cifar10, femnist, libsvm, quadratic, shakespeare


@dataclass(frozen=True)
class Workload:
    """A problem, and what is asked of a method.

    Attributes:
      build: (data seed, folder of the data sets) -> problem.
      metric: whose ``target`` is to be reached; an accuracy is to rise to it, a loss to fall.
      tuned_by: the metric by which a point is chosen.
      stepsizes: the range of the step size.
      seeds: of the chosen point.
      clip: the norm at which the local direction is clipped, None for no clipping.
    """

    build: Callable[[int, Path], Problem]
    metric: str
    tuned_by: str
    target: float | Callable[[Problem, float], float]
    sparsity: float
    rounds: int
    stepsizes: tuple[float, float]
    local_steps: int = 10
    evaluate_every: int = 1
    seeds: int = 3
    points_chunk: int | None = 2
    clip: float | None = None


def sparse_optimum(problem: Problem, sparsity: float) -> float:
    """A loss that K weights can reach on a quadratic: its best with K weights, and 1 % of the way from there to f(0).

    f(x) = f* + mu/2 ||x - a||^2 with a the mean of the centres, so the best K weights are the K largest entries of a.
    """
    zero = problem.init(jax.random.key(0))
    slope = np.abs(np.concatenate([np.ravel(g) for g in jax.tree.leaves(jax.grad(problem.objective)(zero))]))
    mu, start = float(problem.smoothness[0]), float(problem.objective(zero))
    left = np.sort(slope)[: -int(kept(sparsity, len(slope)))]
    return start - (1 - 0.01) * float(np.sum(slope**2) - np.sum(left**2)) / (2 * mu)


def hundred(make: Callable[..., Problem], folder: str, **settings: Any) -> Callable[[int, Path], Problem]:
    """A problem of 100 clients, a tenth of whose examples is for validation."""
    return lambda seed, shared: make(
        clients=100, validation=0.1, data_seed=seed, manual_dir=str(shared / folder), **settings
    )


WORKLOADS = {
    "quadratic": Workload(
        lambda seed, shared: quadratic(clients=20, dimension=200, data_seed=seed),
        metric="train_loss",
        tuned_by="train_loss",
        target=sparse_optimum,
        sparsity=0.5,
        rounds=100,
        stepsizes=(0.01, 1.0),
        points_chunk=None,
    ),
    "mushrooms": Workload(
        lambda seed, shared: libsvm(
            kappa=300.0, partition="by_label", validation=0.1, data_seed=seed, manual_dir=str(shared / "libsvm")
        ),
        metric="test_accuracy",
        tuned_by="validation_accuracy",
        target=0.95,
        sparsity=0.8,
        rounds=100,
        stepsizes=(0.03, 3.0),
        points_chunk=None,
    ),
    "blog_feedback": Workload(
        hundred(blog_feedback, "blogfeedback"),
        metric="test_loss",
        tuned_by="validation_loss",
        target=0.325,
        sparsity=0.9,
        rounds=300,
        stepsizes=(2e-4, 4e-3),
        evaluate_every=3,
    ),
    "femnist_digits": Workload(
        hundred(femnist, "femnist"),
        metric="test_accuracy",
        tuned_by="validation_accuracy",
        target=0.66,
        sparsity=0.99,
        rounds=60,
        stepsizes=(0.25, 8.0),
    ),
    "femnist_all": Workload(
        hundred(femnist, "femnist", classes="all"),
        metric="test_accuracy",
        tuned_by="validation_accuracy",
        target=0.53,
        sparsity=0.99,
        rounds=40,
        stepsizes=(0.25, 8.0),
        seeds=2,
    ),
    "shakespeare_lstm": Workload(
        lambda seed, shared: shakespeare(
            model="lstm",
            width=128,
            depth=1,
            clients=20,
            validation=0.1,
            data_seed=seed,
            manual_dir=str(shared / "tiny_shakespeare"),
        ),
        metric="test_accuracy",
        tuned_by="validation_accuracy",
        target=0.36,
        sparsity=0.9,
        rounds=30,
        stepsizes=(1.0, 100.0),
        seeds=2,
        clip=1.0,
    ),
    "cifar10_resnet20": Workload(
        lambda seed, shared: cifar10(
            model="resnet20",
            width=8,
            clients=10,
            partition="dirichlet",
            validation=0.1,
            batch_size=20,
            data_seed=seed,
            manual_dir=str(shared / "cifar10"),
        ),
        metric="test_accuracy",
        tuned_by="validation_accuracy",
        target=0.3,
        sparsity=0.9,
        rounds=100,
        stepsizes=(0.1, 10.0),
        evaluate_every=5,
        seeds=2,
        clip=1.0,
    ),
}
