"""Tables of the best point of each method over several result folders; of one command's: :mod:`sps_jax.results.runs`.

Points are chosen on validation data if there are any, else by training loss, and reported on test data.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sps_jax import results
from sps_jax.results.costs import COLUMNS, at_target, cost_cells
from sps_jax.results.formats import STYLES
from sps_jax.results.reading import CRITERIA as CRITERIA
from sps_jax.results.reading import PARTS as PARTS
from sps_jax.results.reading import criterion as criterion
from sps_jax.results.runs import Record as Record
from sps_jax.results.runs import caption as caption
from sps_jax.results.runs import compare as compare
from sps_jax.results.runs import divergences as divergences
from sps_jax.results.runs import run_table as run_table
from sps_jax.results.runs import table_row as table_row
from sps_jax.results.runs import write as write
from sps_jax.results.statistics import Interval, differences, interval

if TYPE_CHECKING:
    import pandas  # slow to import, so only loading results imports it

NAMES = ["folder", "point", "algorithm", "problem", "seed", "stopped", "auto_stepsize"]
DATA = ["clients", "dirichlet_alpha", "data_seed"]
"""Settings of the data that a sweep records where they differ: methods are compared at each of them separately."""
MEASURED = ["round", "iteration", "uplink_bits", "downlink_bits", "answer_bits", "total_bits"]
MEASURED += ["density", "average_density", "control_sum", "seconds", "seconds_p10", "seconds_p90", "late"]
SYMBOLS = {"stepsize": "gamma", "prob": "p", "local_steps": "k", "sparsity": "s", "dirichlet_alpha": "alpha"}
"""Hyperparameter -> its short heading in printed tables, which must fit a terminal."""


def hyperparameters(records: "pandas.DataFrame") -> list[str]:
    """Return the names of the columns that are hyperparameters."""
    return [name for name in records if name not in NAMES + MEASURED and not name.startswith(PARTS)]


def by_data(records: "pandas.DataFrame") -> list[tuple[dict[str, Any], "pandas.DataFrame"]]:
    """Return each setting of the data (:data:`DATA`) with its records, in order of first appearance."""
    if not (names := [name for name in DATA if name in records]):
        return [({}, records)]
    groups = records.groupby(names, sort=False, dropna=False)
    return [({n: v for n, v in zip(names, key, strict=True) if v == v}, own) for key, own in groups]


def one_auto(own: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return the records with one number, the mean, for all step sizes 1/L: one setting, though L differs by seed."""
    if "auto_stepsize" not in own or "stepsize" not in own:
        return own
    auto = own["auto_stepsize"].eq(True)
    return own.assign(stepsize=own["stepsize"].mask(auto, own["stepsize"][auto].mean()))


def ends(own: "pandas.DataFrame", rounds: int) -> "pandas.DataFrame":
    """Return the last record of every run that reached round ``rounds``, or that a rule stopped before."""
    last = own["round"] == rounds
    return own[last | own["stopped"].eq(True)] if "stopped" in own else own[last]


def best_points(records: "pandas.DataFrame", best_by: str | None = None) -> dict[str, "pandas.DataFrame"]:
    """Return algorithm -> the records of its best point, with all seeds.

    The best point has the best mean over seeds of :func:`criterion` at the last round. A point is eligible if each of
    the algorithm's seeds reached the last round; an algorithm without an eligible point is left out.

    Args:
      records: from :func:`sps_jax.results.load`, of one problem.
      best_by: as for :func:`criterion`.
    """
    by, hyper = criterion(records, best_by), hyperparameters(records)
    found = {}
    for name, own in records.groupby("algorithm", sort=False):
        own = one_auto(own)
        point = own.groupby(hyper, dropna=False).ngroup()
        means = ends(own, records["round"].max()).groupby(point)[by].agg(["mean", "count"])
        means = means["mean"][means["count"] == own["seed"].nunique()]
        if len(means):
            found[str(name)] = own[point == (means.idxmax() if results.larger_is_better(by) else means.idxmin())]
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


def rows(
    best: dict[str, "pandas.DataFrame"], metric: str, target: float | None = None, against: str = "uplink_bits"
) -> list[dict[str, Any]]:
    """Return one row per algorithm: its point, the final ``metric``, the bits to the target, the control variates.

    Args:
      best: from :func:`best_points`.
      metric: a column.
      target: value of the metric; None for :func:`results.default_target` over all algorithms and seeds.
      against: a key of :data:`sps_jax.results.costs.COLUMNS`, what the target's cost is counted in beside uplink bits.

    Returns:
      Dicts of ``algorithm``, ``point`` (hyperparameters), ``mean``, ``deviation`` and ``interval`` (half the 95 %
      t-interval; both over seeds, None for one) of the metric, ``best`` (the method of best mean), ``minus_best`` and
      ``minus_best_interval`` (the difference to it, paired by seed), ``target``, ``bits_to_target`` (from the means
      over seeds, None if they do not reach it), ``uplink_bits``, ``control_sum`` (the largest over all rounds),
      ``seeds`` (their number), what :func:`sps_jax.results.costs.at_target` returns and, with a deadline, ``late``.
    """
    ended = {name: ends(own, own["round"].max()) for name, own in best.items()}
    values = {name: end.groupby("seed")[metric].mean().to_dict() for name, end in ended.items()}
    found = {name: interval(each.values()) for name, each in values.items()}
    up = results.larger_is_better(metric)
    if target is None:  # a mean may be below equal values by its rounding
        each = [*(value for own in values.values() for value in own.values()), *(one.mean for one in found.values())]
        target = results.default_target(each, metric)
    leader, apart = differences(values, up)
    table = []
    for name, own in best.items():
        end, minus = ended[name], apart[name]
        columns = dict.fromkeys((metric, "uplink_bits", *COLUMNS[against]))
        mean = own.groupby(own["round"].rename("at"))[[*columns]].mean().to_dict("records")
        table.append(
            {
                "algorithm": name,
                "point": {key: end[key].iloc[0] for key in hyperparameters(own) if not end[key].isna().any()},
                "mean": found[name].mean,
                "deviation": float(np.std(list(values[name].values()), ddof=1)) if len(values[name]) > 1 else None,
                "interval": found[name].half,
                "best": leader,
                "minus_best": None if minus is None else minus.mean,
                "minus_best_interval": None if minus is None else minus.half,
                "target": target,
                "bits_to_target": results.bits_to_target(mean, metric, target, up),
                **at_target(mean, metric, target, up, against),
                **({"late": end["late"].mean()} if "late" in end else {}),
                "uplink_bits": end["uplink_bits"].mean(),
                "control_sum": None if own["control_sum"].isna().all() else own["control_sum"].max(),
                "seeds": len(values[name]),
            }
        )
    return table


def point_in_words(point: Mapping[str, Any]) -> str:
    """Return a point with short names.

    >>> point_in_words({"stepsize": 0.1, "sparsity": 0.9})
    'gamma 0.1, s 0.9'
    """
    return ", ".join(f"{SYMBOLS.get(key, key)} {value:.4g}" for key, value in point.items())


def titles(
    records: "pandas.DataFrame", best: Mapping[tuple[str, str], "pandas.DataFrame"], best_by: str | None = None
) -> tuple[dict[tuple[str, str], str], str]:
    """Return the label of each curve and the title of the picture, which name the chosen points of a sweep.

    Args:
      records: all records.
      best: (method, data setting in words) -> records of its chosen point. A hyperparameter that takes one value in
        ``records`` is in no name; what all chosen points share is in the title, the others are in the labels.
      best_by: what chose them, as for :func:`criterion`.
    """
    swept = [
        name
        for name in hyperparameters(records)
        if name not in DATA and max(own[name].nunique() for _, own in one_auto(records).groupby("algorithm")) > 1
    ]
    points = {
        key: {name: own[name].iloc[0] for name in swept if not own[name].isna().any()} for key, own in best.items()
    }
    every = list(points.values())
    shared = {name: value for name, value in every[0].items() if all(one.get(name) == value for one in every)}
    labels = {}
    for (name, data), point in points.items():
        own = point_in_words({key: value for key, value in point.items() if key not in shared})
        words = ", ".join(filter(None, (data, own)))
        labels[name, data] = f"{name} ({words})" if words else name
    problem, common = str(records["problem"].iloc[0]), point_in_words(shared)
    by = criterion(records, best_by).replace("_", " ")
    chosen = f": best {by}{f' at {common}' if common else ''}" if swept else ""
    return labels, problem + chosen


def csv(table: Sequence[dict[str, Any]], metric: str) -> str:
    """Format the rows of :func:`rows` as comma-separated values in full precision, a column per hyperparameter."""
    import pandas

    flat = [
        {"algorithm": row["algorithm"], **row["point"], "metric": metric}
        | {name: value for name, value in row.items() if name not in ("algorithm", "point")}
        for row in table
    ]
    return pandas.DataFrame(flat).to_csv(index=False, lineterminator="\n")


def text(table: Sequence[dict[str, Any]], metric: str, style: str = "text") -> str:
    """Format the rows of :func:`rows` as a table in one of :data:`STYLES`."""
    several = len(table) > 1 and any(row["interval"] is not None for row in table)

    def line(row: dict[str, Any]) -> dict[str, str]:
        minus = None if row["minus_best"] is None else Interval(row["minus_best"], row["minus_best_interval"])
        return {
            "method": row["algorithm"],
            **{SYMBOLS.get(key, key): f"{value:.4g}" for key, value in row["point"].items()},
            "seeds": str(row["seeds"]),
            metric: str(Interval(row["mean"], row["interval"])),
            **({f"minus {row['best']}": "-" if minus is None else str(minus)} if several else {}),
            f"bits to {row['target']:.4g}": results.human(row["bits_to_target"]),
            **cost_cells(row),
            "uplink": results.human(row["uplink_bits"]),
            "|sum h|": "-" if row["control_sum"] is None else f"{row['control_sum']:.1e}",
        }

    lines = [line(row) for row in table]
    keys = dict.fromkeys(SYMBOLS.get(key, key) for row in table for key in row["point"])
    order = ["method", *keys, *[key for key in lines[0] if key not in keys and key != "method"]]
    return STYLES[style]([{key: row.get(key, "-") for key in order} for row in lines])
