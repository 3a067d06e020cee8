"""Plots of results, as files or as Matplotlib figures for a notebook."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sps_jax.errors import unknown
from sps_jax.results.files import at_home

# the palette of Okabe and Ito, which colour-blind readers can tell apart
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "os^DvPX*"  # tell curves apart in black and white

LABELS = {
    "uplink_bits": "uplink, all clients together",
    "total_bits": "uplink and downlink, all clients together",
    "round": "communication rounds",
    "iteration": "iterations",
}


def curves(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    metric: str,
    against: str,
    title: str,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Plot ``metric`` against ``against``: per method the mean over seeds, with a band from the minimum to the maximum.

    Args:
      runs: method -> records of each seed (:func:`sps_jax.results.records`), at the same rounds; a curve ends where the
        first of its seeds ends.
      metric: key of the records for the vertical axis.
      against: key of ``LABELS`` for the horizontal axis.
      title: title of the plot.
      path: file to write, see :func:`picture`; None writes no file.

    Raises:
      ValueError: if the suffix of ``path`` names no format; nothing is drawn then.
    """
    file = None if path is None else picture(path)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    styles = [(dash, look) for dash in ("-", "--", ":") for look in zip(COLOURS, MARKERS, strict=True)]
    for i, ((name, seeds), (dash, (colour, marker))) in enumerate(zip(runs.items(), styles, strict=False)):
        shortest = min(map(len, seeds))
        x, y = (np.array([[r[column] for r in seed[:shortest]] for seed in seeds]) for column in (against, metric))
        some = (0.015 * i, 0.12)  # offset and spacing of the markers, in lengths of the axes
        axes.plot(x.mean(0), y.mean(0), dash, color=colour, linewidth=1.8, marker=marker, markevery=some, label=name)
        if len(seeds) > 1:
            axes.fill_between(x.mean(0), y.min(0), y.max(0), color=colour, alpha=0.2, linewidth=0)
    if against.endswith("bits"):
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1,) if high > 300 * low else (1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.EngFormatter("bit"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel(LABELS[against])
    axes.set_ylabel(metric.replace("_", " ") + (", fraction of examples" if metric.endswith("accuracy") else ""))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if len(runs) > 6:
        figure.set_figwidth(9.5)
        figure.legend(loc="outside right upper", edgecolor="none")
    else:
        axes.legend(framealpha=0.8, edgecolor="none")
    return _saved(figure, file)


def heat_map(
    values: np.ndarray,
    rows: tuple[str, Sequence],
    columns: tuple[str, Sequence],
    title: str,
    path: str | os.PathLike[str] | None = None,
    missing: str = "diverged",
) -> Figure:
    """Draw a matrix ``values`` as colours and numbers; NaN stays white.

    Args:
      values: (R, C), one value per cell.
      rows, columns: name of the axis and its R or C values.
      title: title of the plot.
      path: file to write, see :func:`picture`; None writes no file.
      missing: text in a cell that is NaN.

    Raises:
      ValueError: if the suffix of ``path`` names no format; nothing is drawn then.
    """
    file = None if path is None else picture(path)
    figure = Figure(figsize=(2 + len(columns[1]), 1.5 + 0.6 * len(rows[1])), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="viridis", aspect="auto", origin="lower")
    axes.set_xlabel(columns[0])
    axes.set_ylabel(rows[0])
    axes.set_xticks(range(len(columns[1])), [f"{value:.3g}" for value in columns[1]])
    axes.set_yticks(range(len(rows[1])), [f"{value:.3g}" for value in rows[1]])
    middle = (np.nanmin(values) + np.nanmax(values)) / 2 if np.isfinite(values).any() else 0
    for (i, j), value in np.ndenumerate(values):
        shown = f"{value:.3g}" if np.isfinite(value) else missing
        axes.text(j, i, shown, ha="center", va="center", color="black" if not value < middle else "white")
    axes.set_title(title)
    figure.colorbar(image)
    return _saved(figure, file)


def picture(path: str | os.PathLike[str]) -> Path:
    """Return the path of an image file, with ``.png`` added if it has no suffix; the suffix sets the format.

    Raises:
      ValueError: if the suffix names no format.

    Example:
      >>> picture("curves.pdf").name, picture("curves").name
      ('curves.pdf', 'curves.png')
    """
    path = at_home(path)
    formats = FigureCanvasAgg.get_supported_filetypes().keys() - NO_PICTURES
    _, dot, suffix = path.name.rpartition(".")
    if dot and suffix.lower() not in formats:
        raise unknown(f"format of the picture {path.name}, its suffix", suffix, sorted(formats))
    return path if dot else path.with_name(f"{path.name}.png")


NO_PICTURES = {"raw", "rgba", "pgf"}
"""Formats of Matplotlib that no viewer opens, or that need LaTeX."""
DATES = {"pdf": "CreationDate", "svg": "Date", "svgz": "Date"}
"""Metadata left out so that equal records give equal files; eps, ps and the archive of svgz still hold the time."""


def _saved(figure: Figure, path: Path | None) -> Figure:
    if path is not None:
        partial, kind = path.with_name(f".{path.name}"), path.suffix[1:].lower()
        with rc_context({"svg.hashsalt": "sps_jax"}):  # otherwise the ids of shapes are random
            figure.savefig(partial, format=kind, dpi=150, metadata={DATES[kind]: None} if kind in DATES else None)
        partial.replace(path)
    return figure
