"""From 20 to 99.5 % of the weights pruned: which method loses least, and how should the mask be kept?

``python benchmarks/paper/sparsity.py``, about 35 minutes of processor time: FEMNIST digits, 100 writers, full
gradients, 10 local steps, 60 rounds, sparsity 20, 40, 60, 80, 90, 95, 99 and 99.5 %. Beside the methods that prune at
the clients and at the server it has the ways to keep a mask: straight-through (``sparse_proxskip``), hard
(``sparse_proxskip_local``), chosen once (``mask_proxskip``), moving every 10 rounds (``mask_proxskip-every-10``). At
each sparsity every method has the step size of one grid that is best on validation data, mean over three splits.
``--full``: 200 rounds, 5 splits. Findings: ``benchmarks/results/README.md``.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import common
import numpy as np
import tables
from common import PRUNED, Record
from matplotlib import pyplot as plt

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.problems import femnist
from sps_jax.results.plots import COLOURS

SPARSITIES = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.995)
METRIC = "test_accuracy"
Found = Mapping[tuple[str, float], Sequence[Record]]


def makes() -> dict:
    """The methods that prune, and the masks chosen together."""
    once = partial(sps.mask_proxskip, score="step")  # |weight x gradient| says nothing at a start at zero
    return common.algorithms(*PRUNED) | {"mask_proxskip": once, "mask_proxskip-every-10": partial(once, every=10)}


def measure(options) -> Found:
    """(method, sparsity) -> the records of the chosen step size, on all splits."""
    stepsizes = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if options.full else (0.5, 1.0, 2.0, 4.0, 8.0)
    rounds, splits = (200, 5) if options.full else (60, 3)

    def build(split: int) -> Problem:
        return femnist(clients=100, validation=0.1, data_seed=split, manual_dir=str(options.shared / "femnist"))

    grid = sps.grid(stepsize=list(stepsizes), local_steps=10, sparsity=list(SPARSITIES))
    settings = {"rounds": rounds, "evaluate_every": 5, "keep": common.LITTLE}
    found = common.on_splits(options.out / "femnist_digits.jsonl", build, makes(), grid, splits, **settings)
    return common.groups(found, lambda record: (record["algorithm"], record["sparsity"]))


def lines(found: Found) -> Iterator[dict[str, str]]:
    """A line a method: accuracy by sparsity."""
    for name in dict.fromkeys(name for name, _ in found):
        ends = {s: [common.end(record, METRIC) for record in found[name, s]] for s in SPARSITIES}
        yield {"method": name} | {f"{100 * s:g} %": tables.described(own, 3) for s, own in ends.items()}


def draw(found: Found, path) -> None:
    """Accuracy against the share of weights that is kept, a line a method, bars from worst to best split."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, colour in zip(dict.fromkeys(name for name, _ in found), COLOURS, strict=False):
        ends = np.array([[common.end(record, METRIC) for record in found[name, s]] for s in SPARSITIES])
        mean = ends.mean(1)
        bars = np.stack([mean - ends.min(1), ends.max(1) - mean])
        axes.errorbar(1 - np.array(SPARSITIES), mean, bars, fmt="o-", color=colour, capsize=3, label=name)
    axes.set(xscale="log", xlabel="share of the weights that is kept", ylabel="test accuracy")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, table, picture."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    found = measure(options)
    text = "Test accuracy on FEMNIST digits by sparsity, mean and deviation over splits"
    tables.show(lines(found), options.out / "femnist_digits.txt", text)
    draw(found, options.out / "femnist_digits.png")


if __name__ == "__main__":
    main()
