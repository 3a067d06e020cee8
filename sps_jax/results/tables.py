"""Tables of the runs of one command, and of the best point of each method over several result folders.

Points are chosen on validation data if there are any, else by training loss, and reported on test data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sps_jax import results
from sps_jax.results import files

if TYPE_CHECKING:
    import pandas  # slow to import, so only loading results imports it

Record = dict[str, Any]

NAMES = ["folder", "point", "algorithm", "problem", "seed", "stopped"]
MEASURED = ["round", "iteration", "uplink_bits", "downlink_bits", "answer_bits", "total_bits"]
MEASURED += ["density", "average_density", "control_sum"]
SYMBOLS = {"stepsize": "gamma", "prob": "p", "local_steps": "k", "sparsity": "s"}
"""Hyperparameter -> its short heading in printed tables, which must fit a terminal."""
PARTS = ("train_", "validation_", "test_")
CRITERIA = {"validation_accuracy": True, "validation_loss": False, "train_loss": False}
"""Criteria for choosing a point, in order of preference -> whether larger is better."""


def hyperparameters(records: "pandas.DataFrame") -> list[str]:
    """Return the names of the columns that are hyperparameters."""
    return [name for name in records if name not in NAMES + MEASURED and not name.startswith(PARTS)]


def criterion(records: "pandas.DataFrame") -> str:
    """Return the metric that chooses points: the first recorded one of ``CRITERIA``, never a test metric."""
    return next(name for name in CRITERIA if name in records)


def ends(own: "pandas.DataFrame", rounds: int) -> "pandas.DataFrame":
    """Return the last record of every run that reached round ``rounds``, or that a rule stopped before."""
    last = own["round"] == rounds
    return own[last | own["stopped"].eq(True)] if "stopped" in own else own[last]


def when(stopped: bool) -> str:
    """Return in words after how many rounds the runs of a table are compared, of which some were ``stopped`` or none.

    >>> when(False), when(True)
    ('after equal rounds', 'where each run ended, some by a rule')
    """
    return "where each run ended, some by a rule" if stopped else "after equal rounds"


def best_points(records: "pandas.DataFrame") -> dict[str, "pandas.DataFrame"]:
    """Return algorithm -> the records of its best point, with all seeds.

    The best point has the best mean over seeds of :func:`criterion` at the last round. A point is eligible if each of
    the algorithm's seeds reached the last round; an algorithm without an eligible point is left out.

    Args:
      records: from :func:`sps_jax.results.load`, of one problem.
    """
    by, hyper = criterion(records), hyperparameters(records)
    found = {}
    for name, own in records.groupby("algorithm", sort=False):
        point = own.groupby(hyper, dropna=False).ngroup()
        means = ends(own, records["round"].max()).groupby(point)[by].agg(["mean", "count"])
        means = means["mean"][means["count"] == own["seed"].nunique()]
        if len(means):
            found[str(name)] = own[point == (means.idxmax() if CRITERIA[by] else means.idxmin())]
    return found


def cells(own: "pandas.DataFrame", metric: str, axes: Sequence[tuple[str, Sequence]], rounds: int) -> np.ndarray:
    """Return ``metric`` after ``rounds`` for each pair of two hyperparameters, the best over all other ones.

    Args:
      own: records of one algorithm.
      metric: a column; its mean over seeds is taken first.
      axes: (hyperparameter, values) of the rows and of the columns.
      rounds: round at which the metric is read.

    Returns:
      (rows, columns), NaN where no point reached ``rounds`` with every seed.
    """
    names = [name for name, _ in axes]
    means = ends(own, rounds).groupby(hyperparameters(own), dropna=False)[metric].agg(["mean", "count"])
    means = means["mean"][means["count"] == own["seed"].nunique()]
    best = means.groupby(names).agg("max" if results.larger_is_better(metric) else "min")
    (_, index), (_, columns) = axes
    return best.unstack().reindex(index=index, columns=columns).to_numpy()


def rows(best: dict[str, "pandas.DataFrame"], metric: str, target: float | None = None) -> list[dict[str, Any]]:
    """Return one row per algorithm: its point, the final ``metric``, the bits to the target, the control variates.

    Args:
      best: from :func:`best_points`.
      metric: a column.
      target: value of the metric; None for :func:`results.default_target` over all algorithms and seeds.

    Returns:
      Dicts of ``algorithm``, ``point`` (hyperparameters), ``mean`` and ``deviation`` (over seeds, None for one) of the
      metric, ``target``, ``bits_to_target`` (from the means over seeds, None if they do not reach it),
      ``uplink_bits``, ``control_sum`` (the largest over all rounds) and ``seeds`` (their number).
    """
    ended = {name: ends(own, own["round"].max()) for name, own in best.items()}
    up = results.larger_is_better(metric)
    if target is None:
        target = results.default_target([value for end in ended.values() for value in end[metric]], metric)
    table = []
    for name, own in best.items():
        end = ended[name]
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
    """Format the rows of :func:`rows` as a table."""

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
    return results.aligned([{key: row.get(key, "-") for key in order} for row in lines])


# --- the runs of one command ------------------------------------------------------------------------------------------


def compare(
    runs: Mapping[tuple[str, int], Sequence[Record]], summaries: Sequence[Record], target: float | None
) -> list[Record]:
    """Return the summaries, extended by the comparison between the runs.

    Args:
      runs: (algorithm, seed) -> its records; empty for a run that diverged before its first evaluation.
      summaries: one record per run, with ``algorithm`` and ``seed``.
      target: test accuracy, or training loss without a test accuracy; None for :func:`results.default_target`.

    Returns:
      The summaries, each with ``target_metric``, ``target``, ``bits_to_target`` (uplink) and, if the run has records,
      ``final`` and ``best``.
    """
    alive = {run: records for run, records in runs.items() if records}
    accuracy = any("test_accuracy" in records[0] for records in alive.values())
    metric, best = ("test_accuracy", max) if accuracy else ("train_loss", min)
    if target is None:
        whole = [
            run for s in summaries if not s.get("diverged_at_round") and (run := (s["algorithm"], s["seed"])) in alive
        ]
        target = results.default_target([alive[run][-1][metric] for run in whole or alive] or [0.0], metric)
    compared = []
    for summary in summaries:
        records = runs[summary["algorithm"], summary["seed"]]
        bits = results.bits_to_target(records, metric, target, largest=accuracy)
        summary = summary | {"target_metric": metric, "target": target, "bits_to_target": bits}
        if records:
            summary["final"] = {k: v for k, v in records[-1].items() if k not in summary}
            summary["best"] = {metric: best(r[metric] for r in records)}
        compared.append(summary)
    return compared


def write(runs: Mapping[tuple[str, int], Sequence[Record]], summaries: Sequence[Record], title: str, out: Path) -> None:
    """Write ``summary.json`` and, if any run has records, ``curves.png`` into the folder ``out``."""
    files.write_json(out / "summary.json", summaries)
    curves: dict[str, list[Sequence[Record]]] = {}
    for (name, _), records in runs.items():
        if records:
            curves.setdefault(name, []).append(records)
    if curves:
        from sps_jax.results import plots  # slow to import, and only plots need it

        plots.curves(curves, summaries[0]["target_metric"], "uplink_bits", title, out / "curves.png")


def run_table(summaries: Sequence[Record]) -> str:
    """Format the summaries of :func:`compare` as a table, with a column for answers to the cohort, if any."""
    answers = any("answer_bits" in summary.get("final", {}) for summary in summaries)
    return results.aligned([table_row(summary, answers) for summary in summaries])


def table_row(summary: Record, answers: bool = False) -> dict[str, str]:
    """Return one row of the printed table; ``answers`` adds the part of the downlink spent on answers to a cohort."""
    final, metric = summary.get("final", {}), summary["target_metric"]
    control = final.get("control_sum")
    return {
        "method": summary["algorithm"],
        "seed": str(summary["seed"]),
        metric: f"{final[metric]:.4f}" if final else "diverged",
        f"bits to {summary['target']:.4g}": results.human(summary["bits_to_target"]),
        "uplink": results.human(final.get("uplink_bits")),
        "downlink": results.human(final.get("downlink_bits")),
        **({"answers in it": results.human(final.get("answer_bits"))} if answers else {}),
        "density": f"{final['density']:.3f}" if final else "-",
        "|sum h|": "-" if control is None else f"{control:.1e}",
    }


def divergences(summaries: Sequence[Record]) -> list[str]:
    """Return one warning per run that diverged."""
    return [
        f"{summary['algorithm']} (seed {summary['seed']}) diverged in round {summary['diverged_at_round']}; "
        "its earlier records are kept. Try a smaller --stepsize or --clip-norm."
        for summary in summaries
        if summary["diverged_at_round"]
    ]
