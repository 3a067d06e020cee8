"""Do the control variates sum to zero? The largest max|sum h| / max|h| of all runs of the other scripts here.

``python benchmarks/paper/invariant.py`` reads what they left: every method, data set and sparsity, all step sizes,
numbers of local steps, starts and splits of their grids, runs that diverged left out. The methods with control variates
that no other script runs, it runs itself: 50 rounds of 10 local steps on each data set, about 5 minutes of processor
time.
"""

from functools import cache, partial
from pathlib import Path

import common
import tables
from common import Record

from sps_jax.problems import blog_feedback, digits, femnist
from sps_jax.results.files import read_jsonl

OTHERS = (
    "scaffold",
    "feddyn",
    "randprox_l1",
    "fedcomloc_com",
    "fedcomloc_local",
    "fedcomloc_global",
    "compressed_scaffnew",
    "tamuna",
)
DATA = {  # the sparsities of the paper, a step size that all bear
    "blog_feedback": (lambda shared: blog_feedback(clients=100, manual_dir=str(shared / "blogfeedback")), 0.9, 9e-4),
    "femnist_digits": (
        lambda shared: femnist(clients=100, batch_size=32, manual_dir=str(shared / "femnist")),
        0.99,
        0.25,
    ),
    "digits": (lambda shared: digits(), 0.9, 0.25),
}


def run_others(options) -> None:
    """Their records, into this script's own folder."""
    for data, (build, sparsity, stepsize) in DATA.items():
        point = {"stepsize": stepsize, "local_steps": 10, "sparsity": sparsity, "l1": 1e-3, "owners": 2}
        settings = {"rounds": 50, "evaluate_every": 5, "keep": ("round", "control_sum")}
        path, problem = options.out / f"{data}.jsonl", cache(partial(build, options.shared))
        common.collect(path, problem, common.algorithms(*OTHERS), [point], **settings)


def of_runs(folder: Path) -> list[tuple[tuple, Record]]:
    """What each record of runs belongs to, and it: script, file, sparsity, method."""
    found = []
    for path in sorted(set(folder.glob("*/*.jsonl")) - set(folder.glob("lost_messages/*"))):  # there it is broken
        for record in read_jsonl(path):
            if "history" in record and "control_sum" in record["history"] and not record["diverged_at_round"]:
                name = (
                    record["algorithm"] if path.parent.name != "criteria" else f"sparse_proxskip, {record['algorithm']}"
                )
                key = (name, path.parent.name, path.stem, record.get("sparsity", 0.0))
                found.append((key, record))
    return found


def lines(found: list[tuple[tuple, Record]]):
    """A line a method, data set and sparsity."""
    for key, own in sorted(common.groups(found, lambda pair: pair[0]).items()):
        sums = [max(record["history"]["control_sum"]) for _, record in own]
        name, script, data, sparsity = key
        yield {
            "method": name,
            "script": script,
            "data": data,
            "sparsity": f"{sparsity:g}",
            "runs": str(len(own)),
            "least": f"{min(sums):.0e}",
            "most": f"{max(sums):.0e}",
            "kept": "yes" if max(sums) < 1e-2 else "NO",
        }


def main() -> None:
    """The table."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    run_others(options)
    text = "Largest max|sum h| / max|h| of a run: least and most over runs; kept means below 0.01 in all"
    tables.show(lines(of_runs(options.out.parent)), options.out / "invariant.txt", text)


if __name__ == "__main__":
    main()
