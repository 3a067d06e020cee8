"""``sps-jax list``: the names that the options of ``run`` and ``sweep`` accept, one line per name."""

import inspect
import shutil
import textwrap
from collections.abc import Mapping
from json import dumps
from typing import Any, Literal

from tyro.conf import Positional

from sps_jax.cli.catalogue import ALGORITHMS, CRITERIA, PROBLEMS
from sps_jax.compression import SCOPES, STRUCTURES
from sps_jax.compression.bits import ENCODINGS

TABLES: dict[str, Mapping[str, Any]] = {
    "algorithms": ALGORITHMS,
    "problems": PROBLEMS,
    "criteria": CRITERIA,
    "structures": STRUCTURES,
    "scopes": SCOPES,
    "encodings": ENCODINGS,
}
"""Kind -> the table of names that the options of ``run`` and ``sweep`` accept."""


def summaries() -> dict[str, dict[str, str]]:
    """Return kind -> name -> description."""
    return {kind: {name: summary(each) for name, each in table.items()} for kind, table in TABLES.items()}


def summary(each: Any) -> str:
    """Return the description of a table's entry: a string itself, else the first paragraph of its docstring."""
    words = each if isinstance(each, str) else inspect.getdoc(each) or ""
    return " ".join(words.split("\n\n")[0].split())


def list_all(
    what: Positional[Literal["all", "algorithms", "problems", "criteria", "structures", "scopes", "encodings"]] = "all",
    json: bool = False,
) -> int:
    """List the algorithms, problems, sparsifiers and encodings.

    Args:
      what: kind to list; a criterion, a structure and a scope make up a sparsifier.
      json: print one JSON document instead of text.
    """
    chosen = {kind: table for kind, table in summaries().items() if what in ("all", kind)}
    print(dumps(chosen, indent=2) if json else "\n\n".join(map(text, chosen, chosen.values())))
    return 0


def text(kind: str, table: Mapping[str, str]) -> str:
    """Format a table as text, as wide as the terminal; 100 columns without a terminal."""
    width, columns = max(map(len, table)) + 2, shutil.get_terminal_size((100, 24)).columns
    lines = [
        textwrap.fill(
            f"{name:{width}}{words}", max(columns, width + 30), initial_indent="  ", subsequent_indent=" " * (width + 2)
        )
        for name, words in table.items()
    ]
    return "\n".join([kind, *lines])
