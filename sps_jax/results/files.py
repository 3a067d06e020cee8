"""Files that are written whole or not at all, and read with a check: text, JSON, a JSON object a line; and paths."""

import contextlib
import json
import os
import tempfile  # noqa: F401 (of the examples)
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave, with a home folder in place of ``~`` or ``~name`` at its beginning.

    Raises:
      ValueError: where there is no such home.

    Example:
      >>> at_home("results/fig.pdf").as_posix()
      'results/fig.pdf'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{os.fspath(path)} begins with ~, but there is no such home folder") from None


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
