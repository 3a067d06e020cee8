"""Result files: records in, files out, each written whole or not at all."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: into a temporary neighbour, then renamed over ``path``.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_text(path, "all of it")
      >>> path.read_text()
      'all of it'
      >>> folder.cleanup()
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON; numbers that are not finite are refused with a ``ValueError``.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_json(path, {"rounds": 3})
      >>> json.loads(path.read_text())
      {'rounds': 3}
      >>> folder.cleanup()
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_jsonl(path, [{"round": 1}, {"round": 2}])
      >>> read_jsonl(path)
      [{'round': 1}, {'round': 2}]
      >>> folder.cleanup()
    """
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


def records(history: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A history's columns (NumPy arrays) as one record an evaluation; ``control_sum`` is None where there is none.

    Example:
      >>> import numpy as np
      >>> records({"round": np.array([1, 2]), "train_loss": np.array([0.5, 0.25])})[1]
      {'control_sum': None, 'round': 2, 'train_loss': 0.25}
    """
    rows = zip(*(column.tolist() for column in history.values()), strict=True)
    return [{"control_sum": None} | dict(zip(history, row, strict=True)) for row in rows]


def append_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """More lines behind those there are, in one write.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_jsonl(path, [{"round": 1}])
      >>> append_jsonl(path, [{"round": 2}])
      >>> read_jsonl(path)
      [{'round': 1}, {'round': 2}]
      >>> folder.cleanup()
    """
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def sync(path: Path) -> None:
    """Return when what was written to ``path`` outlives a loss of power.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_text(path, "kept")
      >>> sync(path)
      >>> folder.cleanup()
    """
    with path.open("ab") as file:
        os.fsync(file.fileno())


def cut_torn(path: Path) -> None:
    """Cut off a last line that was not written to its end, so that another can be put behind the others.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_text(path, '{"round": 1}\\n{"rou')
      >>> cut_torn(path)
      >>> path.read_text()
      '{"round": 1}\\n'
      >>> folder.cleanup()
    """
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none where there is none; a last line that was cut off is left out.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_text(path, '{"round": 1}\\n{"rou')
      >>> read_jsonl(path)
      [{'round': 1}]
      >>> folder.cleanup()
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def load(*folders: str | os.PathLike[str]) -> "pandas.DataFrame":
    """The records of runs and sweeps as a pandas data frame, a row an evaluation.

    Columns: ``folder``, ``algorithm``, ``problem``, ``seed``, of a sweep ``point``, the hyperparameters, what was seen.

    Raises:
      ValueError: for a folder without results.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_jsonl(Path(folder.name) / "metrics.jsonl", [{"round": 1, "train_loss": 0.5}])
      >>> load(folder.name)[["round", "train_loss"]].to_dict("records")
      [{'round': 1, 'train_loss': 0.5}]
      >>> folder.cleanup()
    """
    import pandas  # heavy

    rows = []
    for folder in map(Path, folders):
        own = read_jsonl(folder / "metrics.jsonl")
        if not own:
            raise ValueError(f"{folder} holds no results: there are no records in a metrics.jsonl")
        rows += [{"folder": str(folder)} | row for row in own]
    return pandas.DataFrame(rows)


def new_folder(path: Path) -> Path:
    """``path`` as an empty folder that did not have anything in it.

    Raises:
      ValueError: where it is a file, has content, or cannot be made.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> new_folder(path).is_dir()
      True
      >>> folder.cleanup()
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ValueError(f"the output folder {path} is not empty; give another --out, or empty it")
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {path}: {error.strerror}") from None
    return path


def bits_to_target(records: Iterable[Mapping[str, Any]], metric: str, target: float, largest: bool) -> float | None:
    """Uplink bits of the first record whose ``metric`` reaches ``target``, None if none does.

    Example:
      >>> seen = [{"accuracy": 0.5, "uplink_bits": 100}, {"accuracy": 0.9, "uplink_bits": 200}]
      >>> bits_to_target(seen, "accuracy", 0.8, largest=True), bits_to_target(seen, "accuracy", 0.95, largest=True)
      (200, None)
    """
    for record in records:
        if record[metric] >= target if largest else record[metric] <= target:
            return record["uplink_bits"]
    return None


def human(bits: float | None) -> str:
    """Bits for people.

    >>> human(3564000), human(None)
    ('3.56 Mbit', '-')
    """
    if bits is None:
        return "-"
    power = min(int(math.log10(max(bits, 1)) // 3), 5)
    return f"{bits / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}bit"


def table(rows: list[dict[str, str]]) -> str:
    """Rows of equal keys as aligned text.

    Example:
      >>> print(table([{"method": "gd", "uplink": "3 kbit"}, {"method": "fedavg", "uplink": "1 kbit"}]))
      method  uplink
      ------  ------
      gd      3 kbit
      fedavg  1 kbit
    """
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = [{key: key for key in widths}, {key: "-" * width for key, width in widths.items()}, *rows]
    return "\n".join("  ".join(line[key].ljust(width) for key, width in widths.items()).rstrip() for line in lines)
