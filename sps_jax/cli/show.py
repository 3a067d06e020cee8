"""``sps-jax table`` and ``sps-jax plot``: tables and plots of result folders."""

from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from sps_jax import results
from sps_jax.cli.counted import Counted, documented
from sps_jax.errors import refuse_unknown
from sps_jax.results import files, tables
from sps_jax.results.costs import Cost, with_costs
from sps_jax.results.shards import shards_in
from sps_jax.results.statistics import seeds_in_words, when
from sps_jax.runs import console

if TYPE_CHECKING:
    import pandas

    from sps_jax.results import plots


@documented
@dataclass(frozen=True)
class Table(Counted):
    """Compare results of runs and sweeps, each algorithm at its best.

    Attributes:
      folders: output folders of runs and sweeps of one problem. Points (settings of the hyperparameters) are chosen by
        validation data, or else training loss, never by test data.
      metric: metric to report, your own too; default is the first recorded of test_accuracy, test_loss and train_loss.
      target: value of the metric for the "bits to" column; default is the final value of the weakest run.
      best_by: metric that chooses points; default is that of the sweep, else the first recorded of
        validation_accuracy, validation_loss and train_loss.
      json: print the rows as one JSON document instead of a table.
      latex: print a LaTeX tabular, which needs the package booktabs.
      markdown: print a table of Markdown.
      csv: print comma-separated values in full precision.
    """

    folders: Positional[tuple[Path, ...]]
    metric: str | None = None
    target: float | None = None
    best_by: str | None = None
    json: bool = False
    latex: bool = False
    markdown: bool = False
    csv: bool = False


def table(options: Table) -> int:
    """Print the table that the options describe."""
    chosen = [name for name in ("json", "latex", "markdown", "csv") if getattr(options, name)]
    if len(chosen) > 1:
        raise ValueError(f"give one format, not {' and '.join(f'--{name}' for name in chosen)}")
    records, metric, by = _load(options.folders, options.metric, options.best_by, options.cost())
    against, target = options.against, options.target
    blocks = [(data, tables.rows(_best(own, by), metric, target, against)) for data, own in tables.by_data(records)]
    rows = [row for _, own in blocks for row in own]
    style = chosen[0] if chosen else "text"
    if style == "json":
        named = {"metric": metric, "chosen_by": by}
        print(dumps(named | {"rows": rows}, indent=2, default=lambda number: number.item()))
    elif style == "csv":
        print(tables.csv(rows, metric), end="")
    else:
        print("\n\n".join(tables.text(own, metric, style) for _, own in blocks))
        comment = "% " if style == "latex" else ""
        counted = [f"{against} {options.words()}."] if options.words() else []
        print("\n" + "\n".join(comment + line for line in [*_caption(records, rows, metric, by), *counted]))
    return 0


def _caption(records: "pandas.DataFrame", rows: list[dict], metric: str, by: str) -> list[str]:
    """Return the lines that explain a printed table."""
    several = any(row["interval"] is not None for row in rows)
    used = tables.hyperparameters(records)
    letters = [f"{letter} is {name}" for name, letter in tables.SYMBOLS.items() if name in used]
    return [
        *([seeds_in_words(len({row["algorithm"] for row in rows}))] if several else []),
        f"{metric} {when('stopped' in records)}; each algorithm at its point of best {by}.",
        *(["; ".join(letters) + "."] if letters else []),
    ]


@documented
@dataclass(frozen=True)
class Plot(Counted):
    """Plot the results of runs and sweeps as curves or heat maps.

    Attributes:
      folders: output folders of runs and sweeps of one problem.
      metric: metric to plot; default is the first recorded of test_accuracy, test_loss and train_loss.
      heat: two hyperparameters, for one heat map per algorithm that has both, instead of curves. A cell is the best
        value over all other hyperparameters, among points that reached the last round with every seed.
      out: output file, whose suffix sets the format (png, pdf, svg, ...); default is plot.png in the first folder. The
        name of each heat map ends in the algorithm's name.
      columns: 1 or 2, for a picture as wide as so many columns of a paper (3.25 or 6.75 inches); default is a screen's.
      font_size: size of the font in points; default is 8 in a paper and 10 on a screen.
      title: whether the picture has a title.
      best_by: metric that chooses the point of a curve; default as for `sps-jax table`.
      band: what the band around a mean over seeds is: interval (the 95 % t-interval) or range (smallest to largest).
    """

    folders: Positional[tuple[Path, ...]]
    metric: str | None = None
    heat: tuple[str, str] | None = None
    out: Path | None = None
    columns: int | None = None
    font_size: float | None = None
    title: bool = True
    band: str = "interval"
    best_by: str | None = None


def plot(options: Plot) -> int:
    """Draw what the options describe, and print the names of the pictures."""
    from sps_jax.results import plots  # slow to import, and only plots need it

    look = plots.Look(options.columns, options.font_size, options.title, options.band).checked()
    out = plots.picture(options.out or Path(*options.folders[:1]) / "plot.png")
    records, metric, by = _load(options.folders, options.metric, options.best_by, options.cost())
    if options.heat is not None:
        drawn = _draw_maps(records, metric, options.heat, out, look)
    else:
        best = {
            (name, tables.point_in_words(data)): own
            for data, some in tables.by_data(records)
            for name, own in _best(some, by).items()
        }
        labels, title = tables.titles(records, best, by)
        title += f" ({options.words()})" if options.words() else ""
        runs = {
            labels[name]: [seed.sort_values("round").to_dict("records") for _, seed in own.groupby("seed")]
            for name, own in best.items()
        }
        plots.curves(runs, metric, options.against, title, out, look)
        drawn = [out]
    print("\n".join(map(str, drawn)))
    return 0


def _load(
    folders: tuple[Path, ...], metric: str | None, best_by: str | None, cost: Cost
) -> tuple["pandas.DataFrame", str, str]:
    """Return the records of the folders, with their costs, the metric to show, and the one that chooses points."""
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
    records = with_costs(records, cost)
    measured = [name for name in records if name.startswith(tables.PARTS)]
    if metric is None:
        metric = next(name for name in ("test_accuracy", "test_loss", "train_loss") if name in measured)
    refuse_unknown("metric", metric, measured)
    nowhere = records[metric].isna().groupby(records["folder"]).all()
    if nowhere.any():
        raise ValueError(
            f"{metric} is not recorded in {nowhere.idxmax()}: give folders that have it, or another --metric"
        )
    return records, metric, tables.criterion(records, best_by or _of_sweep(records))


def _of_sweep(records: "pandas.DataFrame") -> str | None:
    """Return the metric that a sweep's ``--best-by`` named, if all folders agree and it is none of test data."""
    configs = [Path(folder) / "config.json" for folder in records["folder"].unique()]
    named = {files.read_config(path)["settings"].get("best_by") if path.is_file() else None for path in configs}
    best_by = named.pop() if len(named) == 1 else None
    return None if best_by is None or best_by.startswith("test_") else best_by


def _best(records: "pandas.DataFrame", by: str) -> dict[str, "pandas.DataFrame"]:
    best = tables.best_points(records, by)
    if not best:
        raise ValueError(f"no point reached the last round with every seed and has a {by}, so none can be compared")
    return best


def _draw_maps(
    records: "pandas.DataFrame", metric: str, names: tuple[str, str], out: Path, look: "plots.Look"
) -> list[Path]:
    """Draw one heat map of the last round per algorithm that has both hyperparameters."""
    from sps_jax.results import plots

    for name in names:
        refuse_unknown("hyperparameter", name, tables.hyperparameters(records))
    drawn, rounds = [], records["round"].max()
    for algorithm, own in records.dropna(subset=list(names)).groupby("algorithm", sort=False):
        own = tables.one_auto(own)
        rows, columns = ((name, sorted(own[name].unique())) for name in names)
        path = out.with_name(f"{out.stem}-{algorithm}{out.suffix}")
        others = [name for name in tables.hyperparameters(own) if name not in names and own[name].nunique() > 1]
        title = f"{algorithm}, {records['problem'].iloc[0]}" + (f", best over {', '.join(others)}" if others else "")
        cells = tables.cells(own, metric, (rows, columns), rounds)
        plots.heat_map(cells, rows, columns, title, path, plots.named(metric), look)
        drawn.append(path)
    if not drawn:
        raise ValueError(f"no algorithm of the folders has both hyperparameters {names[0]} and {names[1]}")
    return drawn
