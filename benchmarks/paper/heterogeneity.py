"""How does each method bear clients that differ? From Dirichlet 0.05 to iid, and by writer.

``python benchmarks/paper/heterogeneity.py``, about 8 minutes of processor time: FEMNIST digits at 99 %, all writers'
images dealt to 100 clients, the same images and the same test part at every level. By writer means whole writers, two
or three a client. Local gradients are taken on batches of 32, 10 local steps a round, 40 rounds; the step size of every
method and level is the one of a common grid that is best on validation data. ``--full``: 300 rounds, a finer grid, 5
seeds. Findings: ``benchmarks/results/README.md``.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import common
import jax.numpy as jnp
import numpy as np
import tables
from common import DENSE, PRUNED, Record
from matplotlib import pyplot as plt

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.problems import femnist
from sps_jax.results.plots import COLOURS
from sps_jax.results.reading import human

LEVELS = {
    "dirichlet 0.05": {"partition": "dirichlet", "dirichlet_alpha": 0.05},
    "dirichlet 0.3": {"partition": "dirichlet", "dirichlet_alpha": 0.3},
    "by writer": {"partition": "by_size"},
    "iid": {"partition": "iid"},
}
METRIC = "test_accuracy"
TARGET = 0.65
ROWS, HELD = 1300, 2200


def build(level: str, folder: str) -> Problem:
    """The problem of a level, all levels in the same shapes: one program serves them all.

    Clients are padded to ``ROWS`` examples, and ``HELD`` of the validation examples are drawn. The training loss, which
    nothing is chosen by, is taken over few examples of each client.
    """
    problem = femnist(clients=100, batch_size=32, validation=0.1, manual_dir=folder, **LEVELS[level])
    missing = ROWS - problem.data[0].shape[1]
    data = tuple(jnp.pad(a, [(0, 0), (0, missing)] + [(0, 0)] * (a.ndim - 2)) for a in problem.data)
    drawn = np.random.default_rng(0).permutation(len(problem.validation[0]))[:HELD]
    validation = tuple(a[drawn] for a in problem.validation)
    return replace(problem, data=data, validation=validation, evaluate_examples=16)


def measure(options) -> dict[str, dict[str, list[Record]]]:
    """level -> algorithm -> the records of the chosen point, all seeds."""
    makes, found = common.algorithms(*PRUNED, *DENSE), {}
    grid = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if options.full else (0.5, 1.0, 2.0, 4.0)
    for level in LEVELS:
        problem = cache(partial(build, level, str(options.shared / "femnist")))
        own = partial(
            common.collect, options.out / "femnist_digits.jsonl", problem, makes, level=level, keep=common.LITTLE
        )
        points = sps.grid(stepsize=grid, local_steps=10, sparsity=0.99, seed=range(5 if options.full else 1))
        rounds = 300 if options.full else 40
        found[level] = common.best(own(points, rounds=rounds, evaluate_every=3, points_chunk=1), "validation_accuracy")
    return found


def accuracy_rows(found: dict[str, dict[str, list[Record]]]):
    """A line a method: accuracy at the end, by level."""
    for name in found["iid"]:
        cells = {level: tables.described([common.end(r, METRIC) for r in own[name]], 3) for level, own in found.items()}
        yield {"method": name} | cells


def bits_rows(found: dict[str, dict[str, list[Record]]]):
    """A line a method: its step size and uplink bits to the target, by level."""
    for name in found["iid"]:
        cells = {
            level: f"{own[name][0]['stepsize']:g}: {human(tables.bits(own[name], METRIC, TARGET))}"
            for level, own in found.items()
        }
        yield {"method": name} | cells


def draw(found: dict[str, dict[str, list[Record]]], levels: Sequence[str], path) -> None:
    """Accuracy against the level, a line a method."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, colour in zip(found["iid"], COLOURS, strict=False):
        ends = np.array([[common.end(r, METRIC) for r in found[level][name]] for level in levels])
        axes.errorbar(levels, ends.mean(1), np.ptp(ends, axis=1) / 2, fmt="o-", color=colour, capsize=3, label=name)
    axes.set(ylabel="test accuracy", title="FEMNIST digits, 100 clients, sparsity 0.99 (proxskip and fedavg: dense)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, table, picture."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    found = measure(options)
    rounds = found["iid"]["fedavg"][0]["rounds"]
    tables.show(accuracy_rows(found), options.out / "accuracy.txt", f"Test accuracy after {rounds} rounds, seeds 0 on")
    tables.show(bits_rows(found), options.out / "bits.txt", f"Chosen step size, and uplink bits to {TARGET:g}")
    draw(found, list(LEVELS), options.out / "accuracy.png")


if __name__ == "__main__":
    main()
