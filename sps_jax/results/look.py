"""How pictures look: on a screen, or as wide as the columns of a paper."""

import textwrap
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sps_jax.errors import refuse_unknown

WIDTHS = {1: 3.25, 2: 6.75}
"""Columns of a paper of two columns (ICML's) -> width in inches."""
BANDS = {"interval": "95 % t-interval", "range": "smallest to largest"}
"""Band around a mean over seeds -> its description in the legend."""


class Look(NamedTuple):
    """How a picture looks.

    Attributes:
      columns: a key of ``WIDTHS``, for a picture as wide as so many columns of a paper; None for a screen.
      font_size: in points; None for 8 in a paper and 10 on a screen.
      titled: whether the picture has its title; a paper has captions instead.
      band: a key of ``BANDS``.
      missing: text in a cell of a heat map that is NaN.
    """

    columns: int | None = None
    font_size: float | None = None
    titled: bool = True
    band: str = "interval"
    missing: str = "diverged"

    def checked(self) -> "Look":
        """Return itself; raise a ``ValueError`` for a value that is not allowed."""
        if self.columns not in (None, *WIDTHS):
            raise ValueError(f"columns must be 1 or 2, the width of a picture in a paper, not {self.columns}")
        if not 1 <= self.points <= 100:
            raise ValueError(f"font_size must be from 1 to 100 points, not {self.points:g}")
        refuse_unknown("band", self.band, BANDS)
        return self

    @property
    def points(self) -> float:
        """The size of the font."""
        return self.font_size or (10 if self.columns is None else 8)

    def rc(self) -> Any:
        """Return Matplotlib's settings; type 42 fonts, because conferences refuse type 3, PDF's default."""
        return {"font.size": self.points, "legend.fontsize": "small", "pdf.fonttype": 42, "ps.fonttype": 42}

    def figure(self, width: float, height: float) -> Figure:
        """Return an empty figure of this size on a screen, or of the paper's width and the same shape."""
        paper = width if self.columns is None else WIDTHS[self.columns]
        return Figure(figsize=(paper, height * paper / width), layout="constrained")

    def entitle(self, axes: Axes, title: str) -> None:
        """Give the axes their title, in lines as long as the figure is wide, if the look has titles."""
        if self.titled:
            letters = axes.get_figure().get_figwidth() * 72 / (0.7 * self.points)  # type: ignore[union-attr]
            axes.set_title(textwrap.fill(title, max(10, int(letters))))
