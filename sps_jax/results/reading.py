"""Read the records of evaluations from result folders, and format them as text."""

import math
import os
import tempfile  # noqa: F401 (of the examples)
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sps_jax.errors import refuse_unknown
from sps_jax.results.files import (
    at_home,
    read_config,
    write_jsonl,  # noqa: F401 (of the examples)
)
from sps_jax.results.files import read_jsonl as read_jsonl
from sps_jax.results.shards import shards_in

if TYPE_CHECKING:
    import pandas


def records(history: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a history's columns (NumPy arrays) as one record per evaluation; ``control_sum`` is None if absent.

    Example:
      >>> import numpy as np
      >>> records({"round": np.array([1, 2]), "train_loss": np.array([0.5, 0.25])})[1]
      {'control_sum': None, 'round': 2, 'train_loss': 0.25}
    """
    rows = zip(*(column.tolist() for column in history.values()), strict=True)
    return [{"control_sum": None} | dict(zip(history, row, strict=True)) for row in rows]


PARTS = ("train_", "validation_", "test_", "per_client_")
"""How the names of the metrics of a model begin."""
NUMBERS = ("seed", "round", "uplink_bits", "downlink_bits", "train_loss")
"""Numbers in every record, which also has ``algorithm``, ``problem`` and ``control_sum`` (a number or None)."""


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run or sweep, one per evaluation.

    Raises:
      ValueError: if a line is damaged; the message names file and line.

    Example:
      >>> record = {"algorithm": "gd", "problem": "digits", "control_sum": None} | dict.fromkeys(NUMBERS, 1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_jsonl(Path(folder) / "metrics.jsonl", [record])
      ...     len(read_records(Path(folder)))
      1
    """
    path = folder / "metrics.jsonl"
    found = read_jsonl(path, ("algorithm", "problem", "control_sum", *NUMBERS))
    for number, record in enumerate(found, start=1):
        names = ("algorithm", "problem")
        odd = [name for name, value in record.items() if isinstance(value, str) != (name in names)]
        odd += [name for name in NUMBERS if type(record[name]) not in (int, float)]
        if odd:
            raise ValueError(f"{path} is damaged in line {number}: {odd[0]} is {record[odd[0]]!r}")
    return found


def load(*folders: str | os.PathLike[str]) -> "pandas.DataFrame":
    """Return the records of runs and sweeps as a pandas data frame, one row per evaluation; shards are merged.

    Columns: ``folder``, ``algorithm``, ``problem``, ``seed``, ``point`` (sweeps), the hyperparameters and the metrics;
    ``auto_stepsize`` is true where the step size is 1/L of the seed's data.

    Raises:
      ValueError: if a folder has no results, or damaged ones.

    Example:
      >>> names, bits = {"algorithm": "gd", "problem": "digits", "seed": 0}, {"uplink_bits": 8, "downlink_bits": 8}
      >>> seen = {"round": 1, "train_loss": 0.5, "control_sum": None}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_jsonl(Path(folder) / "metrics.jsonl", [names | seen | bits])
      ...     load(folder)[["round", "train_loss"]].to_dict("records")
      [{'round': 1, 'train_loss': 0.5}]
    """
    import pandas  # heavy

    rows = []
    for folder in (part for each in map(at_home, folders) for part in shards_in(each)[0] or [each]):
        own = read_records(folder)
        if not own:
            raise ValueError(f"{folder} holds no results: its metrics.jsonl is missing or empty")
        config = folder / "config.json"
        auto = config.is_file() and read_config(config)["settings"].get("stepsize") == "auto"  # of a run
        also = {"folder": str(folder)} | ({"auto_stepsize": True} if auto else {})
        rows += [also | row for row in own]
    return _own_models(pandas.DataFrame(rows))


def _own_models(records: "pandas.DataFrame") -> "pandas.DataFrame":
    """Where a method has no models of the clients' own, each client's model is the shipped one."""
    own = [name for name in records if name.startswith("per_client_own_")]
    return records.assign(**{name: records[name].fillna(records[name.replace("own_", "", 1)]) for name in own})


SMALLER = ("loss", "error", "mse", "mae", "rmse", "perplexity", "nll", "brier", "variance")
"""Ends of the names of metrics of which a smaller value is better."""


def larger_is_better(metric: str) -> bool:
    """Whether a larger ``metric`` is better, by its name: all but those that end in one of ``SMALLER``.

    >>> larger_is_better("test_accuracy"), larger_is_better("test_f1"), larger_is_better("train_loss")
    (True, True, False)
    """
    return not metric.endswith(SMALLER)


CRITERIA = ("validation_accuracy", "validation_loss", "train_loss")
"""What chooses a sweep's points, unless a metric is named: the first of these that is recorded."""


def criterion(recorded: Iterable[str], best_by: str | None = None) -> str:
    """Return the metric that chooses points: ``best_by``, or the first recorded one of ``CRITERIA``.

    Args:
      recorded: names of columns; or a data frame, which gives its own.
      best_by: a validation metric, your own too, or one of training.

    Raises:
      ValueError: if ``best_by`` is a test metric, or is not recorded.

    Example:
      >>> criterion(["train_loss", "validation_loss", "validation_top5"])
      'validation_loss'
      >>> criterion(["train_loss", "test_top5"], "test_top5")
      Traceback (most recent call last):
      ValueError: points are chosen on validation data or by the training loss, never on test data as by 'test_top5'
    """
    names = list(recorded)
    if best_by is None:
        return next(name for name in CRITERIA if name in names)
    if best_by.startswith("test_"):
        raise ValueError(
            f"points are chosen on validation data or by the training loss, never on test data as by {best_by!r}"
        )
    refuse_unknown("metric of best_by", best_by, [name for name in names if name.startswith(("train_", "validation_"))])
    return best_by


def default_target(ends: Iterable[float | None], metric: str) -> float:
    """Return the worst of the final values ``ends`` that are numbers, a target that every run reaches; 0 without one.

    >>> default_target([0.9, 0.8], "test_accuracy"), default_target([0.3, 0.4], "train_loss")
    (0.8, 0.4)
    """
    finite = [end for end in ends if end is not None and math.isfinite(end)] or [0.0]
    return min(finite) if larger_is_better(metric) else max(finite)


def bits_to_target(
    records: Iterable[Mapping[str, Any]], metric: str, target: float, largest: bool, column: str = "uplink_bits"
) -> float | None:
    """Return the uplink bits, or another ``column``, of the first record that reaches ``target``, None if none does.

    Example:
      >>> seen = [{"accuracy": 0.5, "uplink_bits": 100}, {"accuracy": 0.9, "uplink_bits": 200}]
      >>> bits_to_target(seen, "accuracy", 0.8, largest=True), bits_to_target(seen, "accuracy", 0.95, largest=True)
      (200, None)
    """
    for record in records:
        value = record[metric]
        if value is not None and (value >= target if largest else value <= target):
            return record[column]
    return None


def human(bits: float | None) -> str:
    """Format a number of bits with three digits and a decimal prefix.

    >>> human(3564000), human(None)
    ('3.56 Mbit', '-')
    """
    if bits is None:
        return "-"
    power = min(int(math.log10(max(bits, 1)) // 3), 5)
    return f"{bits / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}bit"


def aligned(rows: list[dict[str, str]]) -> str:
    """Format rows with equal keys as a table with aligned columns.

    Example:
      >>> print(aligned([{"method": "gd", "uplink": "3 kbit"}, {"method": "fedavg", "uplink": "1 kbit"}]))
      method  uplink
      ------  ------
      gd      3 kbit
      fedavg  1 kbit
    """
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = [{key: key for key in widths}, {key: "-" * width for key, width in widths.items()}, *rows]
    return "\n".join("  ".join(line[key].ljust(width) for key, width in widths.items()).rstrip() for line in lines)
