"""Pictures of results, into a file or, for a notebook to show, as figures."""

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

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "os^DvPX*"  # and without colours

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
    """``metric`` against a column of ``LABELS``: a line a method, the mean over seeds, in a band from least to most.

    Args:
      runs: method -> for each seed its records (:func:`sps_jax.results.records`), of the same rounds; a line ends where
        the first seed's records do.
      path: of a file to write, see :func:`picture`; None for none.

    Raises:
      ValueError: for a suffix of no format, before anything is drawn.
    """
    file = None if path is None else picture(path)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    styles = [(dash, look) for dash in ("-", "--", ":") for look in zip(COLOURS, MARKERS, strict=True)]
    for i, ((name, seeds), (dash, (colour, marker))) in enumerate(zip(runs.items(), styles, strict=False)):
        shortest = min(map(len, seeds))
        x, y = (np.array([[r[column] for r in seed[:shortest]] for seed in seeds]) for column in (against, metric))
        some = (0.015 * i, 0.12)  # of the length of the axes: where the first marker is, and from one to the next
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
    """``values`` (len(rows), len(columns)) as colours and numbers; NaN stays white.

    Args:
      rows, columns: a name and the values along that axis.
      path: of a file to write, see :func:`picture`; None for none.
      missing: what a NaN means.

    Raises:
      ValueError: for a suffix of no format, before anything is drawn.
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
    """The file of a picture: its suffix says the format, PNG where there is none.

    Raises:
      ValueError: for a suffix of no format.

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
"""Formats of Matplotlib that no viewer opens, or that need LaTeX to be written."""
DATES = {"pdf": "CreationDate", "svg": "Date", "svgz": "Date"}
"""What would make two pictures of the same records differ; eps, ps and the archive of svgz keep the time."""


def _saved(figure: Figure, path: Path | None) -> Figure:
    if path is not None:
        partial, kind = path.with_name(f".{path.name}"), path.suffix[1:].lower()
        with rc_context({"svg.hashsalt": "sps_jax"}):  # else names of shapes are random
            figure.savefig(partial, format=kind, dpi=150, metadata={DATES[kind]: None} if kind in DATES else None)
        partial.replace(path)
    return figure
