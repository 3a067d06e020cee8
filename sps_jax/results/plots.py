"""Plots of results, as files or as Matplotlib figures for a notebook."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sps_jax.errors import unknown
from sps_jax.results.files import at_home
from sps_jax.results.look import BANDS as BANDS
from sps_jax.results.look import WIDTHS as WIDTHS
from sps_jax.results.look import Look as Look
from sps_jax.results.statistics import half_width

# the palette of Okabe and Ito, which colour-blind readers can tell apart
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "os^DvPX*"  # tell curves apart in black and white

LABELS = {
    "uplink_bits": "uplink, all clients together",
    "total_bits": "uplink and downlink, all clients together",
    "round": "communication rounds",
    "iteration": "iterations",
    "seconds": "seconds, mean over drawn networks",
}
UNITS = {"uplink_bits": "bit", "total_bits": "bit", "seconds": "s"}
"""Horizontal axes on a logarithmic scale -> their unit."""

SCREEN = Look()


def curves(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    metric: str,
    against: str,
    title: str,
    path: str | os.PathLike[str] | None = None,
    look: Look = SCREEN,
) -> Figure:
    """Plot ``metric`` against ``against``: per method the mean over seeds, with a band that the legend describes.

    Args:
      runs: method -> records of each seed (:func:`sps_jax.results.records`), at the same rounds; a curve ends where the
        first of its seeds ends.
      metric: key of the records for the vertical axis.
      against: key of ``LABELS`` for the horizontal axis.
      title: title of the plot.
      path: file to write, see :func:`picture`; None writes no file.
      look: width, font size, title and band.

    Raises:
      ValueError: if the suffix of ``path`` names no format, or no value is a number; nothing is drawn then.
    """
    file = None if path is None else picture(path)
    values = np.array([row[metric] for seeds in runs.values() for seed in seeds for row in seed], float)
    if not np.isfinite(values).any():
        raise ValueError(f"{metric} is nowhere a number, so there is nothing to draw")
    with rc_context(look.checked().rc()):
        narrow, outside = look.columns == 1, len(runs) > 6
        figure = look.figure(7, 6) if narrow else look.figure(9.5 if outside else 7, 4.5)
        axes = figure.subplots()
        _draw_seeds(axes, runs, (against, metric), look)
        if against in UNITS:
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1,) if high > 300 * low else (1, 2, 5)))
            axes.xaxis.set_major_formatter(ticker.EngFormatter(UNITS[against]))
            axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel(LABELS[against])
        axes.set_ylabel(metric.replace("_", " ") if narrow else named(metric))
        look.entitle(axes, title)
        axes.grid(alpha=0.3)
        words = band_in_words([len(seeds) for seeds in runs.values()], look.band)
        style: Any = {"title": words, "title_fontsize": "small", "alignment": "left", "edgecolor": "none"}
        if narrow:
            figure.legend(loc="outside lower center", ncols=2, **style)
        elif outside:
            figure.legend(loc="outside right upper", **style)
        else:
            axes.legend(framealpha=0.8, **style)
        return _saved(figure, file)


def _draw_seeds(axes: Axes, runs: Mapping[str, Sequence], columns: tuple[str, str], look: Look) -> None:
    """Draw the lines, then the bands within the limits of all seeds: a long interval would flatten the curves."""
    styles = [(dash, style) for dash in ("-", "--", ":") for style in zip(COLOURS, MARKERS, strict=True)]
    scale, bands = look.points / 10, []
    for i, ((name, seeds), (dash, (colour, marker))) in enumerate(zip(runs.items(), styles, strict=False)):
        shortest = min(map(len, seeds))
        x, y = (np.array([[r[column] for r in own[:shortest]] for own in seeds], float) for column in columns)
        marks: Any = {
            "marker": marker,
            "markersize": 6 * scale,
            "markevery": (0.015 * i, 0.12),
        }  # in lengths of the axes
        axes.plot(x.mean(0), y.mean(0), dash, color=colour, linewidth=1.8 * scale, label=name, **marks)
        axes.update_datalim(np.stack([np.broadcast_to(x.mean(0), y.shape).ravel(), y.ravel()], axis=1))
        if len(seeds) > 1:
            half, mean = half_width(y), y.mean(0)
            ends = (y.min(0), y.max(0)) if look.band == "range" else (mean - half, mean + half)
            bands.append((colour, x.mean(0), *ends))
    axes.autoscale_view()
    limits = axes.get_ylim()
    for colour, *band in bands:
        axes.fill_between(*band, color=colour, alpha=0.2, linewidth=0)
    axes.set_ylim(limits)


def named(metric: str) -> str:
    """Return the label of a metric's axis.

    >>> named("test_accuracy")
    'test accuracy, fraction of examples'
    """
    return metric.replace("_", " ") + (", fraction of examples" if metric.endswith("accuracy") else "")


def band_in_words(seeds: Sequence[int], band: str) -> str | None:
    """Return what lines and bands are, from the numbers of seeds of the curves; None if each has one seed.

    >>> band_in_words([3, 2], "range")
    'mean of 2 to 3 seeds; band: smallest to largest'
    """
    few, many = min(seeds, default=1), max(seeds, default=1)
    if many == 1:
        return None
    return f"mean of {few if few == many else f'{few} to {many}'} seeds; band: {BANDS[band]}"


def heat_map(
    values: np.ndarray,
    rows: tuple[str, Sequence],
    columns: tuple[str, Sequence],
    title: str,
    path: str | os.PathLike[str] | None = None,
    label: str = "",
    look: Look = SCREEN,
) -> Figure:
    """Draw a matrix ``values`` as colours and numbers; NaN stays white.

    Args:
      values: (R, C), one value per cell.
      rows, columns: name of the axis and its R or C values.
      title: title of the plot.
      path: file to write, see :func:`picture`; None writes no file.
      label: what the values are, beside the bar of colours.
      look: width, font size, title, and the text in a cell that is NaN.

    Raises:
      ValueError: if the suffix of ``path`` names no format; nothing is drawn then.
    """
    file = None if path is None else picture(path)
    with rc_context(look.checked().rc()):
        figure = look.figure(2 + len(columns[1]), 1.5 + 0.6 * len(rows[1]))
        axes = figure.subplots()
        image = axes.imshow(values, cmap="viridis", aspect="auto", origin="lower")
        axes.set_xlabel(columns[0])
        axes.set_ylabel(rows[0])
        axes.set_xticks(range(len(columns[1])), [f"{value:.3g}" for value in columns[1]])
        axes.set_yticks(range(len(rows[1])), [f"{value:.3g}" for value in rows[1]])
        middle = (np.nanmin(values) + np.nanmax(values)) / 2 if np.isfinite(values).any() else 0
        for (i, j), value in np.ndenumerate(values):
            shown = f"{value:.3g}" if np.isfinite(value) else look.missing
            axes.text(j, i, shown, ha="center", va="center", color="black" if not value < middle else "white")
        look.entitle(axes, title)
        letters = figure.get_figheight() * 72 / (0.7 * look.points)
        figure.colorbar(image, label=textwrap.fill(label, max(10, int(letters))))
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
