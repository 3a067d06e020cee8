"""``sps-jax table`` and ``sps-jax plot``: tables and plots of result folders."""

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from sps_jax import results
from sps_jax.errors import refuse_unknown
from sps_jax.results import tables
from sps_jax.results.shards import shards_in
from sps_jax.runs import console

if TYPE_CHECKING:
    import pandas


def table(
    folders: Positional[tuple[Path, ...]], metric: str | None = None, target: float | None = None, json: bool = False
) -> int:
    """Compare results of runs and sweeps, each algorithm at its best.

    Args:
      folders: output folders of runs and sweeps of one problem. Points (settings of the hyperparameters) are chosen by
        validation data, or else training loss, never by test data.
      metric: metric to report; default is the first recorded of test_accuracy, test_loss and train_loss.
      target: value of the metric for the "bits to" column; default is the final value of the weakest run.
      json: print the rows as one JSON document instead of a table.
    """
    records, metric = _load(folders, metric)
    rows = tables.rows(_best(records), metric, target)
    if json:
        chosen_by = {"metric": metric, "chosen_by": tables.criterion(records)}
        print(dumps(chosen_by | {"rows": rows}, indent=2, default=lambda number: number.item()))
        return 0
    print(tables.text(rows, metric))
    print(f"\n{metric} after equal rounds; each algorithm at its point of best {tables.criterion(records)}.")
    used = tables.hyperparameters(records)
    print("; ".join(f"{letter} is {name}" for name, letter in tables.SYMBOLS.items() if name in used) + ".")
    return 0


def plot(
    folders: Positional[tuple[Path, ...]],
    metric: str | None = None,
    against: str = "uplink_bits",
    heat: tuple[str, str] | None = None,
    out: Path | None = None,
) -> int:
    """Plot the results of runs and sweeps as curves or heat maps.

    Args:
      folders: output folders of runs and sweeps of one problem.
      metric: metric to plot; default is the first recorded of test_accuracy, test_loss and train_loss.
      against: horizontal axis of the curves: round, iteration, uplink_bits or total_bits.
      heat: two hyperparameters, for one heat map per algorithm that has both, instead of curves. A cell is the best
        value over all other hyperparameters, among points that reached the last round with every seed.
      out: output file, whose suffix sets the format (png, pdf, svg, ...); default is plot.png in the first folder. The
        name of each heat map ends in the algorithm's name.
    """
    from sps_jax.results import plots  # slow to import, and only plots need it

    out = plots.picture(out or Path(*folders[:1]) / "plot.png")
    records, metric = _load(folders, metric)
    refuse_unknown("--against", against, plots.LABELS)
    if heat is not None:
        drawn = _draw_maps(records, metric, heat, out)
    else:
        runs = {
            name: [seed.sort_values("round").to_dict("records") for _, seed in own.groupby("seed")]
            for name, own in _best(records).items()
        }
        plots.curves(runs, metric, against, str(records["problem"].iloc[0]), out)
        drawn = [out]
    print("\n".join(map(str, drawn)))
    return 0


def _load(folders: tuple[Path, ...], metric: str | None) -> tuple["pandas.DataFrame", str]:
    """Return the records of the folders, with ``total_bits``, and the metric to show."""
    if not folders:
        raise ValueError("name at least one folder of results")
    records = results.load(*folders)
    for folder in folders:
        here, shards = shards_in(folder)
        if len(here) < shards:
            console.say(f"sps-jax: {folder} has records of {len(here)} of {shards} shards")
    if records["problem"].nunique() > 1:
        problems = ", ".join(sorted(records["problem"].unique()))
        raise ValueError(f"the folders are of several problems; give folders of one of: {problems}")
    records["total_bits"] = records["uplink_bits"] + records["downlink_bits"]
    measured = [name for name in records if name.startswith(tables.PARTS)]
    if metric is None:
        metric = next(name for name in ("test_accuracy", "test_loss", "train_loss") if name in measured)
    refuse_unknown("metric", metric, measured)
    return records, metric


def _best(records: "pandas.DataFrame") -> dict[str, "pandas.DataFrame"]:
    best = tables.best_points(records)
    if not best:
        raise ValueError("no point reached the last round with every seed, so there is nothing to compare")
    return best


def _draw_maps(records: "pandas.DataFrame", metric: str, names: tuple[str, str], out: Path) -> list[Path]:
    """Draw one heat map of the last round per algorithm that has both hyperparameters."""
    from sps_jax.results import plots

    for name in names:
        refuse_unknown("hyperparameter", name, tables.hyperparameters(records))
    drawn, rounds = [], records["round"].max()
    for algorithm, own in records.dropna(subset=list(names)).groupby("algorithm", sort=False):
        rows, columns = ((name, sorted(own[name].unique())) for name in names)
        path = out.with_name(f"{out.stem}-{algorithm}{out.suffix}")
        title = f"{algorithm}, {metric.replace('_', ' ')}"
        plots.heat_map(tables.cells(own, metric, (rows, columns), rounds), rows, columns, title, path)
        drawn.append(path)
    if not drawn:
        raise ValueError(f"no algorithm of the folders has both hyperparameters {names[0]} and {names[1]}")
    return drawn
