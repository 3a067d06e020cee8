"""What should be pruned, entries or blocks, and ranked by what? At equal sparsity, and at equal bits.

``python benchmarks/paper/criteria.py``, about 6 minutes on 2 cores: Sparse-ProxSkip on scikit-learn's digits, 10
clients, full gradients, 10 local steps a round, 150 rounds, at 80, 90 and 95 %, with every sparsifier at the step size
of one grid that is best on validation data, 3 splits. Sparsity is of the weights that can be pruned. Blocks need fewer
positions told, so at equal bits they may have more rounds. ``--full``: 600 rounds, a finer grid, 5 splits. Findings:
``benchmarks/results/README.md``.
"""

from functools import partial

import common
import numpy as np
import tables
from common import Record

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.problems import digits
from sps_jax.results.reading import human

SPARSIFIERS = {
    "entries": sps.Sparsifier(),
    "entries, weight x gradient": sps.Sparsifier("weight_gradient"),
    "entries, random": sps.Sparsifier("random"),
    "rows (a class)": sps.Sparsifier(structure="rows"),
    "filters (a pixel)": sps.Sparsifier(structure="filters"),
    "blocks 2 x 4": sps.Sparsifier(structure="blocks:2x4"),
    "groups of 20": sps.Sparsifier(structure="groups:20"),
}
METRIC = "test_accuracy"
SPARSITIES = (0.8, 0.9, 0.95)


def build(split: int) -> Problem:
    """Another part held out, dealt to other clients."""
    return digits(clients=10, validation=0.1, data_seed=split)


def measure(options) -> dict[tuple[float, str], list[Record]]:
    """(sparsity, sparsifier) -> the records of the chosen step size, all splits."""
    grid = np.geomspace(0.1, 10, 9 if options.full else 5).tolist()
    rounds, splits = (600, 5) if options.full else (150, 3)
    makes = {name: partial(sps.sparse_proxskip, prune=prune) for name, prune in SPARSIFIERS.items()}
    records: list[Record] = []
    for split in range(splits):
        records += common.collect(
            options.out / "digits.jsonl",
            partial(build, split),
            makes,
            sps.grid(stepsize=grid, local_steps=10, sparsity=SPARSITIES),
            rounds=rounds,
            evaluate_every=3,
            points_chunk=None,
            keep=common.LITTLE,
            split=split,
        )
    found = {}
    for sparsity, own in common.groups(records, lambda record: record["sparsity"]).items():
        for name, chosen in common.best(own, "validation_accuracy").items():
            found[sparsity, name] = chosen
    return found


def within(records: list[Record], bits: float) -> float:
    """Mean over splits of the accuracy at the last evaluation within so many uplink bits; NaN where there is none."""
    ends = [[row[METRIC] for row in common.rows(record) if row["uplink_bits"] <= bits] for record in records]
    return float(np.mean([own[-1] if own else np.nan for own in ends]))


def lines(found: dict[tuple[float, str], list[Record]]):
    """A line a sparsity and sparsifier."""
    for (sparsity, name), own in found.items():
        budget = min(
            common.end(record, "uplink_bits") for (s, _), other in found.items() if s == sparsity for record in other
        )
        yield {
            "sparsity": f"{sparsity:g}",
            "sparsifier": name,
            "stepsize": f"{own[0]['stepsize']:.3g}",
            METRIC: tables.described([common.end(record, METRIC) for record in own]),
            "uplink": human(float(np.mean([common.end(record, "uplink_bits") for record in own]))),
            "with the bits of the cheapest": f"{within(own, budget):.4f} ({human(budget)})",
            "|sum h|": f"{max(max(record['history']['control_sum']) for record in own):.1e}",
        }


def main() -> None:
    """Measure and table."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    tables.show(lines(measure(options)), options.out / "digits.txt", "Sparse-ProxSkip, digits, by sparsifier")


if __name__ == "__main__":
    main()
