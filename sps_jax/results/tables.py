"""Comparing methods at their best points: chosen on validation data, reported on test data, over seeds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sps_jax import results

if TYPE_CHECKING:
    import pandas  # half a second: only those who load results pay for it

NAMES = ["folder", "point", "algorithm", "problem", "seed"]
MEASURED = ["round", "iteration", "uplink_bits", "downlink_bits", "answer_bits", "total_bits"]
MEASURED += ["density", "average_density", "control_sum"]
SYMBOLS = {"stepsize": "gamma", "prob": "p", "local_steps": "k", "sparsity": "s"}
"""What heads the columns of a table for people, which would not fit a terminal with the names."""
PARTS = ("train_", "validation_", "test_")
CRITERIA = {"validation_accuracy": True, "validation_loss": False, "train_loss": False}
"""What a point is chosen by, the first that there is; whether more is better."""


def larger_is_better(metric: str) -> bool:
    """Whether it is an accuracy."""
    return metric.endswith("accuracy")


def hyperparameters(records: "pandas.DataFrame") -> list[str]:
    """The columns that are hyperparameters."""
    return [name for name in records if name not in NAMES + MEASURED and not name.startswith(PARTS)]


def criterion(records: "pandas.DataFrame") -> str:
    """What points are chosen by: the first of ``CRITERIA`` that was recorded. Never anything of test data."""
    return next(name for name in CRITERIA if name in records)


def best_points(records: "pandas.DataFrame") -> dict[str, "pandas.DataFrame"]:
    """For each algorithm the records of its best point, all seeds.

    The best is that of the best mean over seeds of :func:`criterion` at the last round; a point is not eligible where
    a seed is missing or did not get to the last round. An algorithm without an eligible point is left out.

    Args:
      records: from :func:`sps_jax.results.load`, of one problem.
    """
    by, hyper = criterion(records), hyperparameters(records)
    found = {}
    for name, own in records.groupby("algorithm", sort=False):
        point = own.groupby(hyper, dropna=False).ngroup()
        ends = own[own["round"] == records["round"].max()]
        means = ends.groupby(point)[by].agg(["mean", "count"])
        means = means["mean"][means["count"] == own["seed"].nunique()]
        if len(means):
            found[str(name)] = own[point == (means.idxmax() if CRITERIA[by] else means.idxmin())]
    return found


def cells(own: "pandas.DataFrame", metric: str, axes: Sequence[tuple[str, Sequence]], rounds: int) -> np.ndarray:
    """(rows, columns) of ``metric`` after ``rounds``, mean over seeds, the best over all other hyperparameters.

    Args:
      own: the records of one algorithm.
      axes: a hyperparameter and its values, for the rows and for the columns.

    Returns:
      NaN where no point got to the last round with every seed.
    """
    ends, names = own[own["round"] == rounds], [name for name, _ in axes]
    means = ends.groupby(hyperparameters(own), dropna=False)[metric].agg(["mean", "count"])
    means = means["mean"][means["count"] == own["seed"].nunique()]
    best = means.groupby(names).agg("max" if larger_is_better(metric) else "min")
    (_, index), (_, columns) = axes
    return best.unstack().reindex(index=index, columns=columns).to_numpy()


def rows(best: dict[str, "pandas.DataFrame"], metric: str, target: float | None = None) -> list[dict[str, Any]]:
    """A row for each algorithm: its point, ``metric`` at the end over seeds, bits to the target, the control variates.

    Args:
      best: from :func:`best_points`.
      metric: a column.
      target: of the metric; None for what the weakest algorithm has at the end, mean over seeds.

    Returns:
      Dicts of ``algorithm``, ``point`` (hyperparameters), ``mean`` and ``deviation`` (over seeds, None for one) of the
      metric, ``target``, ``bits_to_target`` (of the means over seeds, None where they do not reach it),
      ``uplink_bits``, ``control_sum`` (the largest of all rounds) and ``seeds``.
    """
    ends = {name: own[own["round"] == own["round"].max()] for name, own in best.items()}
    up = larger_is_better(metric)
    if target is None:
        target = (min if up else max)(end[metric].mean() for end in ends.values())
    table = []
    for name, own in best.items():
        end = ends[name]
        mean = own.groupby("round")[[metric, "uplink_bits"]].mean().to_dict("records")
        table.append(
            {
                "algorithm": name,
                "point": {key: end[key].iloc[0] for key in hyperparameters(own) if not end[key].isna().any()},
                "mean": end[metric].mean(),
                "deviation": end[metric].std() if len(end) > 1 else None,
                "target": target,
                "bits_to_target": results.bits_to_target(mean, metric, target, up),
                "uplink_bits": end["uplink_bits"].mean(),
                "control_sum": None if own["control_sum"].isna().all() else own["control_sum"].max(),
                "seeds": len(end),
            }
        )
    return table


def text(table: Sequence[dict[str, Any]], metric: str) -> str:
    """The rows for people."""

    def line(row: dict[str, Any]) -> dict[str, str]:
        deviation = "" if row["deviation"] is None else f"+-{row['deviation']:.4f}"
        return {
            "method": row["algorithm"],
            **{SYMBOLS.get(key, key): f"{value:.4g}" for key, value in row["point"].items()},
            "seeds": str(row["seeds"]),
            metric: f"{row['mean']:.4f}{deviation}",
            f"bits to {row['target']:.4g}": results.human(row["bits_to_target"]),
            "uplink": results.human(row["uplink_bits"]),
            "|sum h|": "-" if row["control_sum"] is None else f"{row['control_sum']:.1e}",
        }

    lines = [line(row) for row in table]
    keys = dict.fromkeys(SYMBOLS.get(key, key) for row in table for key in row["point"])
    order = ["method", *keys, *[key for key in lines[0] if key not in keys and key != "method"]]
    return results.table([{key: row.get(key, "-") for key in order} for row in lines])
