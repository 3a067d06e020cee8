"""Atomic writing and checked reading of text, JSON and JSONL files (one JSON object per line), and output folders."""

import contextlib
import json
import os
import tempfile  # noqa: F401 (of the examples)
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def at_home(path: str | os.PathLike[str]) -> Path:
    """Return a user's path with a leading ``~`` or ``~name`` expanded to the home folder.

    Raises:
      ValueError: if that home folder does not exist.

    Example:
      >>> at_home("results/fig.pdf").as_posix()
      'results/fig.pdf'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{os.fspath(path)} begins with ~, but that home folder does not exist") from None


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: into a temporary file beside it, which is then renamed to ``path``.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_text(path := Path(folder) / "file", "all of it")
      ...     path.read_text()
      'all of it'
    """
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside ``path``, to be written; it then takes its place, unless one raises.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with replaced(path := Path(folder) / "file") as partial:
      ...         partial.write_bytes(b"all of it")
      ...     path.read_bytes()
      9
      b'all of it'
    """
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    except BaseException:  # only then: what has its name after a success is another's mark of a folder
        partial.unlink(missing_ok=True)
        raise


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; raise a ``ValueError`` for a number that is not finite.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_json(path := Path(folder) / "file", {"rounds": 3})
      ...     json.loads(path.read_text())
      {'rounds': 3}
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, atomically.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_jsonl(path := Path(folder) / "file", [{"round": 1}, {"round": 2}])
      ...     read_jsonl(path)
      [{'round': 1}, {'round': 2}]
    """
    write_text(path, _lines(records))


def append_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object per line, in one write.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_jsonl(path := Path(folder) / "file", [{"round": 1}])
      ...     append_jsonl(path, [{"round": 2}])
      ...     read_jsonl(path)
      [{'round': 1}, {'round': 2}]
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(records))


def _lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Return a line of JSON for each record, with null for a number that is not finite: JSON has none."""
    plain = (json.loads(json.dumps(record), parse_constant=lambda _: None) for record in records)
    return "".join(json.dumps(record) + "\n" for record in plain)


def sync(path: Path) -> None:
    """Flush a file to disk, so that its content survives a power failure.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_text(path := Path(folder) / "file", "kept")
      ...     sync(path)
    """
    with path.open("ab") as file:
        os.fsync(file.fileno())


def cut_torn(path: Path) -> None:
    """Remove an incomplete last line from a file, so that lines can be appended.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_text(path := Path(folder) / "file", '{"round": 1}\\n{"rou')
      ...     cut_torn(path)
      ...     path.read_text()
      '{"round": 1}\\n'
    """
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raise a ``ValueError`` that names the file if it holds anything else.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_json(path := Path(folder) / "file", {"rounds": 3})
      ...     read_json(path)
      {'rounds': 3}
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it does not hold a JSON object")
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a ``config.json``: ``settings``, ``versions`` and more; raise as :func:`read_json`.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_json(path := Path(folder) / "config.json", {"settings": {"rounds": 3}, "versions": {}})
      ...     read_config(path)["settings"]
      {'rounds': 3}
    """
    found = read_json(path)
    for name in ("settings", "versions"):
        if not isinstance(found.get(name), dict):
            raise ValueError(f"{path} is damaged: it has no {name}")
    return found


def read_jsonl(path: Path, needed: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the records of a JSONL file, without an incomplete last line; an empty list if the file does not exist.

    Raises:
      ValueError: if a line is not a JSON object with all keys in ``needed``; the message names file and line.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_text(path := Path(folder) / "file", '{"round": 1}\\n{"rou')
      ...     read_jsonl(path)
      [{'round': 1}]
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().rpartition(b"\n")[0].splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path} is damaged in line {number}: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path} is damaged in line {number}: it is not a JSON object")
        if lacking := sorted(set(needed) - record.keys()):
            raise ValueError(f"{path} is damaged in line {number}: it has no {lacking[0]}")
        found.append(record)
    return found


def new_folder(path: Path, first: str = "config.json") -> Path:
    """Make the folder ``path``, or take it if it is empty, for this process alone; return it.

    The partial file of ``first`` marks the folder as taken, so only one of several processes gets it; the mark
    disappears when :func:`write_text` writes ``first``.

    Raises:
      ValueError: if ``path`` is a file, is not empty, or cannot be made.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     new_folder(Path(folder) / "file").is_dir()
      True
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
def locked(out: Path, file: Path) -> Iterator[None]:
    """Lock the folder ``out`` against other processes inside the ``with`` block, by a lock on its ``file``.

    Raises:
      ValueError: if another process holds the lock.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_json(file := Path(folder) / "config.json", {})
      ...     with locked(Path(folder), file):
      ...         write_text(Path(folder) / "mine", "")
    """
    with file.open("rb") as held:
        try:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is at work in {out}; wait for it, or give another folder") from None
        except (ImportError, OSError):
            pass  # some systems and file systems have no locks
        yield
