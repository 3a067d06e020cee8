"""What do lost messages do to the sum of the control variates, and to the result?

``python benchmarks/paper/lost_messages.py``, a few minutes of processor time: every method whose control variates sum
to zero (four of them on FEMNIST), with 0, 5 and 20 % of the messages up lost, known to the client or not
(``sps.Lost``), three seeds. On quadratics, f_i = ||x - a_i||^2 / 2 of 10 clients, the excess of f over its minimum is
told; on FEMNIST digits by writer, 100 clients, batches of 32, 10 local steps a round, the test accuracy. One step size
for all, no tuning: what is compared is a method with itself. ``--full``: more rounds. Findings:
``benchmarks/results/README.md``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import common
import jax
import numpy as np
import tables
from common import Record

import sps_jax as sps
from sps_jax.problems import femnist, quadratic

FEW = ("proxskip", "scaffold", "feddyn", "sparse_proxskip")
ALL = (*FEW, "sparse_proxskip_local", "fedcomloc_com", "fedcomloc_local", "server_pruning_modified")
METHODS = {"quadratic": (*ALL, "randprox_l1", "randprox_server"), "femnist_digits": FEW}
"""All with a zero sum but compressed_scaffnew and tamuna, which deal coordinates out to clients and refuse losses."""
LOSSES = {
    "none": None,
    "5 % known": sps.Lost(up=0.05),
    "5 % unaware": sps.Lost(up=0.05, known=False),
    "20 % known": sps.Lost(up=0.2),
    "20 % unaware": sps.Lost(up=0.2, known=False),
}
CLIENTS = {"quadratic": 10, "femnist_digits": 100}
POINTS = {
    "quadratic": {"stepsize": 0.1, "local_steps": 5, "sparsity": 0.5, "l1": 1e-3},
    "femnist_digits": {"stepsize": 0.5, "local_steps": 10, "sparsity": 0.9, "l1": 1e-4},
}
METRICS = {"quadratic": "train_loss", "femnist_digits": "test_accuracy"}
SEEDS = 3


def build(data: str, shared) -> sps.Problem:
    """The problem; the training loss, which is not shown, is taken over few examples."""
    if data == "quadratic":
        return quadratic(clients=CLIENTS[data], precision="float64")
    problem = femnist(clients=CLIENTS[data], batch_size=32, manual_dir=str(shared / "femnist"))
    return replace(problem, evaluate_examples=16)


def least(data: str) -> float:
    """The minimum of f, to be taken off what is shown."""
    if data != "quadratic":
        return 0.0
    problem = build(data, None)
    mean = jax.numpy.mean(problem.data[0], axis=(0, 1))
    return float(problem.objective({"x": mean}))


def measure(options, data: str) -> dict[str, list[Record]]:
    """Losses in words -> the records."""
    rounds = {"quadratic": 300, "femnist_digits": 40}[data] * (10 if options.full else 1)
    path, problem = options.out / f"{data}.jsonl", cache(partial(build, data, options.shared))
    points = [POINTS[data] | {"seed": seed} for seed in range(SEEDS)]
    makes, keep = common.algorithms(*METHODS[data]), ("round", METRICS[data], "control_sum")
    settings = {"rounds": rounds, "evaluate_every": rounds // 10, "keep": keep}
    own = partial(common.collect, path, problem, makes, points, **settings)
    return {words: own(losses=words, cohort=sps.Cohort(CLIENTS[data], lost=lost)) for words, lost in LOSSES.items()}


def lines(found: dict[str, list[Record]], data: str) -> Iterator[dict[str, str]]:
    """A line a method: the metric and the sum at the end, for each kind of loss."""
    metric, minimum = METRICS[data], least(data)

    def described(own: Sequence[Record]) -> str:
        ends = np.array([common.end(record, metric) for record in own]) - minimum
        return f"{ends.mean():.2e}" if data == "quadratic" else f"{ends.mean():.4f} +- {ends.std(ddof=1):.4f}"

    for name in METHODS[data]:
        of = {words: [r for r in records if r["algorithm"] == name] for words, records in found.items()}
        sums = {words: max(common.end(record, "control_sum") for record in own) for words, own in of.items()}
        yield {"method": name, **{words: f"{described(own)}, {sums[words]:.0e}" for words, own in of.items()}}


def main() -> None:
    """A table for each data set."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    jax.config.update("jax_enable_x64", True)  # the quadratic is in float64
    for data in POINTS:
        shown = "Excess of f over its minimum, mean" if data == "quadratic" else "Test accuracy, mean and deviation"
        text = f"{shown} over {SEEDS} seeds, and the largest |sum h| / max |h|, at the end, by the messages lost"
        tables.show(lines(measure(options, data), data), options.out / f"{data}.txt", text)


if __name__ == "__main__":
    main()
