"""``sps-jax list``: what there is to choose from, a line each."""

import inspect
import json
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Positional

from sps_jax.algorithms import ALGORITHMS
from sps_jax.compression import CRITERIA, SCOPES, STRUCTURES
from sps_jax.compression.bits import ENCODINGS
from sps_jax.problems import PROBLEMS

TABLES: dict[str, Mapping[str, Any]] = {
    "algorithms": ALGORITHMS,
    "problems": PROBLEMS,
    "criteria": CRITERIA,
    "structures": STRUCTURES,
    "scopes": SCOPES,
    "encodings": ENCODINGS,
}
"""What there is: the tables that the options of ``run`` and ``sweep`` are taken from."""


@dataclass(frozen=True)
class List:
    """What there is: algorithms, problems, sparsifiers, encodings.

    Attributes:
      what: one kind alone; a sparsifier has a criterion, a structure and a scope.
      json: one JSON document instead.
    """

    what: Positional[Literal["all", "algorithms", "problems", "criteria", "structures", "scopes", "encodings"]] = "all"
    json: bool = False


def summaries() -> dict[str, dict[str, str]]:
    """Kind -> name -> the first sentence of its docstring."""
    return {kind: {name: summary(each) for name, each in table.items()} for kind, table in TABLES.items()}


def summary(each: Any) -> str:
    """What one entry of a table is: its words, or the first paragraph of its docstring."""
    words = each if isinstance(each, str) else inspect.getdoc(each) or ""
    return " ".join(words.split("\n\n")[0].split())


def list_all(options: List) -> int:
    """Print the tables; returns the exit status."""
    chosen = {kind: table for kind, table in summaries().items() if options.what in ("all", kind)}
    print(json.dumps(chosen, indent=2) if options.json else "\n\n".join(map(text, chosen, chosen.values())))
    return 0


def text(kind: str, table: Mapping[str, str]) -> str:
    """A table for people, as wide as the terminal, 100 columns where there is none."""
    width, columns = max(map(len, table)) + 2, shutil.get_terminal_size((100, 24)).columns
    lines = [
        textwrap.fill(
            f"{name:{width}}{words}", max(columns, width + 30), initial_indent="  ", subsequent_indent=" " * (width + 2)
        )
        for name, words in table.items()
    ]
    return "\n".join([kind, *lines])
