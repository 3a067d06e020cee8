"""Why TopK at both places? Every combination of the places where ProxSkip can be pruned.

``python benchmarks/paper/places.py``, about 20 minutes of processor time: the gradient at x or at TopK(x)
(straight-through), the iterate dense or pruned after each step, the message dense or pruned, the server that averages,
prunes what it broadcasts, or lets the clients prune it: 2 x 2 x 2 x 3 methods, of which four have names. FEMNIST digits
at 99 %, 100 writers, full gradients, 10 local steps, 60 rounds; every method has the step size of one grid that is best
on validation data, mean over three splits. In all of them the shipped model is TopK of the
server's. ``--full``: 200 rounds, 5 splits. Findings: ``benchmarks/results/README.md``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import common
import numpy as np
import tables
from common import Record

import sps_jax as sps
from sps_jax.algorithms.base import Scalar
from sps_jax.problem import Problem
from sps_jax.problems import femnist
from sps_jax.results.reading import human

SERVERS = ("none", "naive", "modified")
NAMES = {
    (True, False, True, "none"): "sparse_proxskip",
    (False, True, False, "none"): "sparse_proxskip_local",
    (False, False, False, "naive"): "server_pruning",
    (False, False, False, "modified"): "server_pruning_modified",
}
METRIC = "test_accuracy"
Places = tuple[bool, bool, bool, str]


def combination(places: Places) -> Callable[..., sps.Algorithm]:
    """ProxSkip with pruning at these places: gradient, iterate, uplink, server."""
    gradient, iterate, uplink, server = places

    def make(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar) -> sps.Algorithm:
        where = {"gradient": gradient, "iterate": iterate, "uplink": uplink, "server": server}
        return sps.pruned(sps.proxskip(stepsize=stepsize, prob=prob), sps.topk, sparsity, **where)

    return make


def named(places: Places) -> str:
    """The places by name, ``gradient-uplink-none`` for example."""
    at = [place for place, prunes in zip(("gradient", "iterate", "uplink"), places[:3], strict=True) if prunes]
    return "-".join([*at, places[3]])


PLACES = {named(p): p for p in product((False, True), (False, True), (False, True), SERVERS)}
MAKES = {name: combination(p) for name, p in PLACES.items()}


def measure(options) -> dict[str, list[Record]]:
    """For each combination the records of its chosen step size, on all splits."""
    stepsizes = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if options.full else (0.5, 1.0, 2.0, 4.0, 8.0)
    rounds, splits = (200, 5) if options.full else (60, 3)

    def build(split: int) -> Problem:
        return femnist(clients=100, validation=0.1, data_seed=split, manual_dir=str(options.shared / "femnist"))

    grid = sps.grid(stepsize=list(stepsizes), local_steps=10, sparsity=0.99)
    settings = {"rounds": rounds, "evaluate_every": 5, "keep": common.LITTLE}
    found = common.on_splits(options.out / "femnist_digits.jsonl", build, MAKES, grid, splits, **settings)
    return common.groups(found, lambda record: record["algorithm"])


def lines(found: Mapping[str, Sequence[Record]]) -> Iterator[dict[str, str]]:
    """A line a combination, the most accurate first."""
    for name in sorted(found, key=lambda name: -np.mean([common.end(r, METRIC) for r in found[name]])):
        own, (gradient, iterate, uplink, server) = found[name], PLACES[name]
        yield {
            "gradient": "TopK" if gradient else "-",
            "iterate": "TopK" if iterate else "-",
            "uplink": "TopK" if uplink else "-",
            "server": server,
            "name": NAMES.get(PLACES[name], "-"),
            "stepsize": f"{own[0]['stepsize']:.3g}",
            METRIC: tables.described([common.end(record, METRIC) for record in own]),
            "uplink bits": human(float(np.mean([common.end(record, "uplink_bits") for record in own]))),
            "|sum h|": f"{max(max(record['history']['control_sum']) for record in own):.1e}",
        }


def main() -> None:
    """Measure and table."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    text = "ProxSkip on FEMNIST digits at 99 %, by the places that are pruned"
    tables.show(lines(measure(options)), options.out / "femnist_digits.txt", text)


if __name__ == "__main__":
    main()
