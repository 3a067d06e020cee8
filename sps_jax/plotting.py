"""Pictures of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def curves(runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], metric: str, title: str, path: Path) -> None:
    """``metric`` against uplink bits, a colour a method, a line a seed, as a PNG file at ``path``.

    Args:
      runs: method -> for each seed its records, with ``uplink_bits`` and ``metric``.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    styles = [(style, colour) for style in ("-", "--") for colour in COLOURS]
    for (name, seeds), (style, colour) in zip(runs.items(), styles, strict=False):
        for number, records in enumerate(seeds):
            bits, values = [r["uplink_bits"] for r in records], [r[metric] for r in records]
            axes.plot(bits, values, style, color=colour, linewidth=1.8, label=name if number == 0 else None)
    axes.set_xscale("log")
    axes.set_xlabel("uplink, all clients together (bits)")
    axes.set_ylabel(metric.replace("_", " "))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png", dpi=150)
    partial.replace(path)
    plt.close(figure)
