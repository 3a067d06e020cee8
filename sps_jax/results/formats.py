"""Formats of tables: for a terminal, for Markdown, and for LaTeX with booktabs."""

import re
from collections.abc import Callable, Sequence

from tabulate import tabulate

from sps_jax.results.reading import aligned

Rows = Sequence[dict[str, str]]


def markdown(rows: Rows) -> str:
    """Format rows with equal keys as a table of GitHub's Markdown.

    Example:
      >>> print(markdown([{"method": "gd", "|sum h|": "0.5+-0.1"}]))
      | method   | \\|sum h\\|   |
      |----------|-------------|
      | gd       | 0.5 ± 0.1   |
    """
    plain = [{key.replace("|", r"\|"): value.replace("+-", " ± ") for key, value in row.items()} for row in rows]
    return tabulate(plain, headers="keys", tablefmt="github", disable_numparse=True)


def latex(rows: Rows) -> str:
    r"""Format rows with equal keys as a LaTeX tabular, which needs the package booktabs.

    Example:
      >>> print(latex([{"method": "fed_avg", "minus a": "-0.5+-0.1", "|sum h|": "1.5e-04"}]))
      \begin{tabular}{lll}
      \toprule
       method   & minus a   & $|\sum_i h_i|$   \\
      \midrule
       fed\_avg  & $-0.5 \pm 0.1$ & $1.5 \cdot 10^{-4}$   \\
      \bottomrule
      \end{tabular}
    """
    made = tabulate(rows, headers="keys", tablefmt="latex_booktabs", disable_numparse=True)
    made = re.sub(r"(-?[\d.]+)\+-([\d.]+)", r"$\1 \\pm \2$", made.replace("|sum h|", r"$|\sum_i h_i|$"))
    return re.sub(r"([\d.]+)e([-+]\d+)", lambda found: rf"${found[1]} \cdot 10^{{{int(found[2])}}}$", made)


STYLES: dict[str, Callable[[Rows], str]] = {
    "text": lambda rows: aligned(list(rows)),
    "markdown": markdown,
    "latex": latex,
}
"""Format -> its function of rows."""
