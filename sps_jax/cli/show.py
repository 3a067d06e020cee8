"""``sps-jax table`` and ``sps-jax plot``: what result folders say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from sps_jax import results
from sps_jax.errors import unknown
from sps_jax.results import tables

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Table:
    """Compare what result folders hold, each algorithm at its best.

    Attributes:
      folders: of runs and sweeps of one problem; points are chosen by validation data, never by test data.
      metric: to report; default is test accuracy, or test loss, or training loss.
      target: of the metric, for the column of bits; default is what the weakest run has at its end.
      json: one JSON document of the rows instead.
    """

    folders: Positional[tuple[Path, ...]]
    metric: str | None = None
    target: float | None = None
    json: bool = False


@dataclass(frozen=True)
class Plot:
    """Draw what result folders hold: curves, or heat maps.

    Attributes:
      folders: of runs and sweeps of one problem.
      metric: to draw; default is test accuracy, or test loss, or training loss.
      against: round, iteration, uplink_bits or total_bits.
      heat: two hyperparameters; a map for each algorithm that has both, each cell the best over all others, of
        the points that got to the last round with every seed.
      out: a file, whose suffix says the format (png, pdf, svg, ...); default is plot.png in the first folder. Maps have
        the algorithm's name behind it.
    """

    folders: Positional[tuple[Path, ...]]
    metric: str | None = None
    against: str = "uplink_bits"
    heat: tuple[str, str] | None = None
    out: Path | None = None


def table(options: Table) -> int:
    """Print the comparison; returns the exit status."""
    records, metric = _load(options.folders, options.metric)
    rows = tables.rows(_best(records), metric, options.target)
    if options.json:
        chosen_by = {"metric": metric, "chosen_by": tables.criterion(records)}
        print(json.dumps(chosen_by | {"rows": rows}, indent=2, default=lambda number: number.item()))
        return 0
    print(tables.text(rows, metric))
    print(f"\n{metric} after equal rounds; each algorithm at the point of the best {tables.criterion(records)}.")
    used = tables.hyperparameters(records)
    print("; ".join(f"{letter} is {name}" for name, letter in tables.SYMBOLS.items() if name in used) + ".")
    return 0


def plot(options: Plot) -> int:
    """Draw; returns the exit status."""
    from sps_jax.results import plots  # matplotlib is for pictures alone

    out = plots.picture(options.out or Path(*options.folders[:1]) / "plot.png")
    records, metric = _load(options.folders, options.metric)
    if options.against not in plots.LABELS:
        raise unknown("--against", options.against, plots.LABELS)
    if options.heat is not None:
        drawn = _draw_maps(records, metric, options.heat, out)
    else:
        runs = {
            name: [seed.sort_values("round").to_dict("records") for _, seed in own.groupby("seed")]
            for name, own in _best(records).items()
        }
        plots.curves(runs, metric, options.against, str(records["problem"].iloc[0]), out)
        drawn = [out]
    print("\n".join(map(str, drawn)))
    return 0


def _load(folders: tuple[Path, ...], metric: str | None) -> tuple["pandas.DataFrame", str]:
    """The records, with the sum of bits, and the metric that is meant."""
    if not folders:
        raise ValueError("name at least one folder of results")
    records = results.load(*folders)
    if records["problem"].nunique() > 1:
        raise ValueError(f"the folders are of several problems: {', '.join(sorted(records['problem'].unique()))}")
    records["total_bits"] = records["uplink_bits"] + records["downlink_bits"]
    measured = [name for name in records if name.startswith(tables.PARTS)]
    if metric is None:
        metric = next(name for name in ("test_accuracy", "test_loss", "train_loss") if name in measured)
    if metric not in measured:
        raise unknown("metric", metric, measured)
    return records, metric


def _best(records: "pandas.DataFrame") -> dict[str, "pandas.DataFrame"]:
    best = tables.best_points(records)
    if not best:
        raise ValueError("no point got to the last round with every seed")
    return best


def _draw_maps(records: "pandas.DataFrame", metric: str, names: tuple[str, str], out: Path) -> list[Path]:
    """A heat map of the end for each algorithm that has both hyperparameters."""
    from sps_jax.results import plots

    for name in names:
        if name not in tables.hyperparameters(records):
            raise unknown("hyperparameter", name, tables.hyperparameters(records))
    drawn, rounds = [], records["round"].max()
    for algorithm, own in records.dropna(subset=list(names)).groupby("algorithm", sort=False):
        rows, columns = ((name, sorted(own[name].unique())) for name in names)
        path = out.with_name(f"{out.stem}-{algorithm}{out.suffix}")
        title = f"{algorithm}, {metric.replace('_', ' ')}"
        plots.heat_map(tables.cells(own, metric, (rows, columns), rounds), rows, columns, title, path)
        drawn.append(path)
    if not drawn:
        raise ValueError(f"no algorithm has both {names[0]} and {names[1]}")
    return drawn
