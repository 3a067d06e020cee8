"""How much the level on FEMNIST digits at 99 % depends on which tenth of each writer's images is held out.

``python benchmarks/femnist_splits.py --manual-dir DIR --out benchmarks/results/femnist_digits/splits.jsonl`` runs the
settings of ``benchmarks/results/femnist_digits`` and two dense references for 8 splits; 20 minutes on 2 cores.
What was found is in ``benchmarks/results/README.md``.
"""

import argparse
import inspect
import json

import jax

from sps_jax import ALGORITHMS, simulate
from sps_jax.problems import femnist

SPARSE = ("sparse_proxskip", "server_pruning", "fedavg_server_pruning", "fedavg_client_pruning")
SETTINGS = [(name, 2.0) for name in SPARSE] + [("sparse_proxskip", 0.5), ("proxskip", 0.5), ("fedavg", 0.5)]


def best_accuracy(name: str, stepsize: float, problem) -> float:
    """The best test accuracy of 60 rounds of 10 local steps."""
    takes = inspect.signature(ALGORITHMS[name]).parameters
    hyper = {"stepsize": stepsize} | ({"sparsity": 0.99} if "sparsity" in takes else {})
    _, history = simulate(ALGORITHMS[name], problem, hyper, jax.random.key(0), rounds=60, local_steps=10)
    return round(float(history["test_accuracy"].max()), 4)


def main() -> None:
    """Append a line for each split and setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manual-dir", required=True)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    with open(options.out, "w", encoding="utf-8") as out:
        for split in range(options.splits):
            problem = femnist(clients=100, data_seed=split, manual_dir=options.manual_dir)
            for name, stepsize in SETTINGS:
                best = best_accuracy(name, stepsize, problem)
                record = {"data_seed": split, "algorithm": name, "stepsize": stepsize, "best_test_accuracy": best}
                print(json.dumps(record), file=out, flush=True)


if __name__ == "__main__":
    main()
