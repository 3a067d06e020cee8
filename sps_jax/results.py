"""Result files: records in, files out, each written whole or not at all."""

import contextlib
import json
import math
import os
import tempfile  # noqa: F401 (of the examples)
from collections.abc import Iterable, Iterator, Mapping
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
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


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


def read_json(path: Path) -> dict[str, Any]:
    """The one JSON object of a file; raises a ``ValueError`` that names the file where there is another thing in it.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> write_json(path, {"rounds": 3})
      >>> read_json(path)
      {'rounds': 3}
      >>> folder.cleanup()
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return found


def read_config(path: Path) -> dict[str, Any]:
    """What a ``config.json`` holds: ``settings``, ``versions`` and more; raises as :func:`read_json`.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "config.json"
      >>> write_json(path, {"settings": {"rounds": 3}, "versions": {}})
      >>> read_config(path)["settings"]
      {'rounds': 3}
      >>> folder.cleanup()
    """
    found = read_json(path)
    for name in ("settings", "versions"):
        if not isinstance(found.get(name), dict):
            raise ValueError(f"{path} is damaged: it has no {name}")
    return found


def read_jsonl(path: Path, needed: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The records of a file, none where there is none; a last line that was cut off is left out.

    Raises:
      ValueError: naming file and line, where one is no JSON object or lacks one of the names that are ``needed``.

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
    found = []
    for number, line in enumerate(path.read_bytes().rpartition(b"\n")[0].splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path} is damaged in line {number}: {error}") from None
        lacking = set(needed) - record.keys() if isinstance(record, dict) else {"a JSON object"}
        if lacking:
            raise ValueError(f"{path} is damaged in line {number}: there is no {sorted(lacking)[0]}")
        found.append(record)
    return found


NUMBERS = ("seed", "round", "uplink_bits", "downlink_bits", "train_loss")
"""What each record of an evaluation has, beside its names and the ``control_sum`` that may be None."""


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of the evaluations of a run or sweep.

    Raises:
      ValueError: naming file and line, where one is damaged.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> record = {"algorithm": "gd", "problem": "digits", "control_sum": None} | dict.fromkeys(NUMBERS, 1)
      >>> write_jsonl(Path(folder.name) / "metrics.jsonl", [record])
      >>> len(read_records(Path(folder.name)))
      1
      >>> folder.cleanup()
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
    """The records of runs and sweeps as a pandas data frame, a row an evaluation.

    Columns: ``folder``, ``algorithm``, ``problem``, ``seed``, of a sweep ``point``, the hyperparameters, what was seen.

    Raises:
      ValueError: for a folder without results, or with damaged ones.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> names, bits = {"algorithm": "gd", "problem": "digits", "seed": 0}, {"uplink_bits": 8, "downlink_bits": 8}
      >>> seen = {"round": 1, "train_loss": 0.5, "control_sum": None}
      >>> write_jsonl(Path(folder.name) / "metrics.jsonl", [names | seen | bits])
      >>> load(folder.name)[["round", "train_loss"]].to_dict("records")
      [{'round': 1, 'train_loss': 0.5}]
      >>> folder.cleanup()
    """
    import pandas  # heavy

    rows = []
    for folder in map(Path, folders):
        own = read_records(folder)
        if not own:
            raise ValueError(f"{folder} holds no results: there are no records in a metrics.jsonl")
        rows += [{"folder": str(folder)} | row for row in own]
    return pandas.DataFrame(rows)


def new_folder(path: Path, first: str = "config.json") -> Path:
    """``path`` as a folder of this process alone, with nothing in it but the beginning of the file ``first``.

    That marks it as taken, and is gone when :func:`write_text` has written the file: of several processes that come at
    once, one gets the folder.

    Raises:
      ValueError: where it is a file, has content, or cannot be made.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = Path(folder.name) / "file"
      >>> new_folder(path).is_dir()
      True
      >>> folder.cleanup()
    """
    mark = _partial(path / first)
    taken = ValueError(f"the output folder {path} is not empty; give another --out, or empty it")
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            raise taken from None
        if any(one != mark for one in path.iterdir()):
            mark.unlink()
            raise taken
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {path}: {error.strerror}") from None
    return path


@contextlib.contextmanager
def alone(out: Path, file: Path) -> Iterator[None]:
    """Keep other processes from working in the folder ``out`` meanwhile, by a lock on a ``file`` in it.

    Raises:
      ValueError: where one does.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> file = Path(folder.name) / "config.json"
      >>> write_json(file, {})
      >>> with alone(Path(folder.name), file):
      ...     write_text(Path(folder.name) / "mine", "")
      >>> folder.cleanup()
    """
    with file.open("rb") as held:
        try:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is at work in {out}") from None
        except (ImportError, OSError):
            pass  # neither every system nor every file system has locks
        yield


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
