"""Read your own examples from a file: inputs, labels and, if there are any, the client of each example."""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sps_jax.datasets.containers import as_array
from sps_jax.errors import unknown
from sps_jax.results.files import at_home

INDEX = "Unnamed: 0"
"""The column that pandas writes into a CSV file for a frame's index."""


class Named(NamedTuple):
    """The names of the columns: ``label`` (None for y), ``client`` (None for none), ``inputs`` (None for all other)."""

    label: str | None = None
    client: str | None = None
    inputs: tuple[str, ...] | None = None


class Examples(NamedTuple):
    """N examples: ``x`` (N, ...), ``y`` (N,) of any dtype, ``clients`` (N,) or None."""

    x: np.ndarray
    y: Any
    clients: Any


def read_examples(file: str | os.PathLike[str], named: Named) -> Examples:
    """Return the examples of a ``.npz``, ``.csv`` or ``.parquet`` file.

    The inputs are one column that holds arrays, such as images, or several columns of numbers. In a ``.npz`` file a
    column is an array whose first axis is over the examples. A CSV file's column ``Unnamed: 0``, the index of a pandas
    frame, is no input.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for another suffix, a file that cannot be read, an unknown column, or inputs that are no numbers.
    """
    path = at_home(file)
    if path.suffix not in READERS:
        raise ValueError(f"{path} must be a file {', '.join(READERS)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        columns = READERS[path.suffix](path)
    except (ValueError, OSError, zipfile.BadZipFile, ArithmeticError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix} ({str(error).splitlines()[0]})") from None
    return chosen(columns, named)


def chosen(columns: Mapping[str, Any], named: Named) -> Examples:
    """Return the examples in named columns, each of the same length.

    >>> chosen({"a": np.ones(2), "b": np.zeros(2), "y": np.array([0, 1])}, Named("y")).x.tolist()
    [[1.0, 0.0], [1.0, 0.0]]

    Raises:
      ValueError: for an unknown column, no input, or inputs that do not go together.
    """
    label = named.label or "y"
    wanted = [label, *filter(None, [named.client]), *(named.inputs or ())]
    for name in wanted:
        if name not in columns:
            raise unknown("column", name, columns)
    inputs = named.inputs or tuple(name for name in columns if name not in wanted)
    if not inputs:
        raise ValueError(f"there is no column of inputs beside {' and '.join(wanted)}")
    own = [as_array(f"column {name!r}", columns[name]) for name in inputs]
    lengths = {name: len(columns[name]) for name in (*wanted, *inputs) if np.ndim(columns[name])}
    if len(set(lengths.values())) > 1 or len(lengths) < len({*wanted, *inputs}):
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"columns must have one entry per example, but their lengths are {told}: name the inputs")
    if len(own) > 1 and any(a.ndim > 1 for a in own):
        raise ValueError(f"one column of arrays can be the input, not several: name one of {', '.join(inputs)}")
    x = own[0] if len(own) == 1 and own[0].ndim > 1 else np.column_stack(own)
    return Examples(x, columns[label], None if named.client is None else columns[named.client])


def _of_npz(path: Path) -> Mapping[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _of_csv(path: Path) -> Mapping[str, Any]:
    import pandas  # heavy

    frame = pandas.read_csv(path)
    return {str(name): frame[name] for name in frame.columns if name != INDEX}


def _of_parquet(path: Path) -> Mapping[str, Any]:
    import pandas  # heavy

    frame = pandas.read_parquet(path)
    return {str(name): frame[name] for name in frame.columns}


READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {".npz": _of_npz, ".csv": _of_csv, ".parquet": _of_parquet}
"""Suffix -> function that returns a file's columns by name."""
