"""Functions in one's own files, on the command line: ``FILE.py:NAME`` stands wherever a name of a table does.

    sps-jax run --algorithm fedavg mine.py:method --problem mine.py:make --criterion mine.py:score

A method and a problem are functions of keyword arguments that return a :class:`sps_jax.Algorithm` and a
:class:`sps_jax.Problem`; a criterion is a function ``score(params, gradient)`` of :mod:`sps_jax.compression.criteria`,
perhaps with keyword arguments. Each keyword argument is an option, whose help is what the docstring says of it;
``sps-jax run --algorithm mine.py:method --help`` shows them. Tables and pictures name what is in the file by ``NAME``.
``config.json`` holds the path and the SHA-256 of the file, and of the modules that it imports from its folder;
``resume`` and a sweep that goes on refuse other files.
"""

import functools
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sps_jax.errors import unknown

T = TypeVar("T")
KINDS = ("problem", "algorithm", "criterion")
"""The options that name functions, and so may name some in files."""


def is_own(name: str) -> bool:
    """Whether ``name`` refers to a file rather than to a table.

    >>> is_own("mine.py:method"), is_own("mine.py"), is_own("fedavg")
    (True, True, False)
    """
    return name.partition(":")[0].endswith(".py") or ".py:" in name


def label(name: str) -> str:
    """Return the name in records and tables of what an option names.

    >>> label("/home/me/mine.py:method"), label("fedavg")
    ('method', 'fedavg')
    """
    return name.rpartition(":")[2] if is_own(name) else name


def absolute(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return command-line arguments with the paths of own files made absolute, and what they name, by option.

    >>> absolute(["run", "--algorithm", "gd", "/mine.py:method", "--problem=/mine.py:make"])[1]
    {'problem': ['/mine.py:make'], 'algorithm': ['gd', '/mine.py:method'], 'criterion': []}
    """
    changed: list[str] = []
    named: dict[str, list[str]] = {kind: [] for kind in KINDS}
    option = ""
    for argument in arguments:
        flag, value = "", argument
        if argument.startswith("--"):
            option, equals, value = argument[2:].partition("=")
            flag = f"--{option}{equals}"
        if option in KINDS and value:
            value = _resolved(value) if is_own(value) else value
            named[option].append(value)
        changed.append(flag + value)
    return changed, named


def _resolved(reference: str) -> str:
    file, colon, name = _parts(reference)
    return f"{Path(file).expanduser().resolve()}{colon}{name}"


def _parts(reference: str) -> tuple[str, str, str]:
    file, colon, name = reference.rpartition(":")
    return (file, colon, name) if colon and file.endswith(".py") else (reference, "", "")


def find(reference: str) -> Any:
    """Return what ``FILE.py:NAME`` refers to.

    Raises:
      ValueError: if there is no such file, it cannot be imported, or it has no such name.
    """
    file, _, name = _parts(reference)
    module = _module(Path(file))
    if name in vars(module):
        return vars(module)[name]
    functions = [each for each, value in vars(module).items() if inspect.isfunction(value) and each[0] != "_"]
    if not name:
        raise ValueError(f"{reference} is a file: name a function in it, {file}:NAME. It has: {', '.join(functions)}")
    raise unknown(f"name in {file}", name, functions)


@functools.cache
def _module(path: Path) -> ModuleType:
    """Import a file, with its folder first on the module search path meanwhile, and last afterwards."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    digest, folder, before = _sha256(path), str(path.parent), set(sys.modules)
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}_{digest[:8]}", path)
    assert spec is not None and spec.loader is not None  # for any file whose name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename == str(path):
            line, why = error.lineno, f"{type(error).__name__}: {error.msg}"
        else:
            line, why = _frames(error, {str(path)})[-1].lineno, _told(error)
        raise ValueError(f"{path} cannot be imported: line {line}: {why}") from error
    finally:
        sys.path.remove(folder)
        sys.path.append(folder)
    more = {name: getattr(sys.modules[name], "__file__", None) for name in sys.modules.keys() - before}
    beside = {file for name, file in more.items() if file and _beside(Path(file), path.parent) and not _ours(name)}
    _SOURCES[path] = {str(path): digest} | {file: _sha256(Path(file)) for file in sorted(beside)}
    return module


_SOURCES: dict[Path, dict[str, str]] = {}
"""Imported file -> the SHA-256 of it, and of the modules that it imported from its folder, by their paths."""


def _beside(file: Path, folder: Path) -> bool:
    return folder in file.parents and "site-packages" not in file.parts


def _ours(module: str) -> bool:
    return module.partition(".")[0] == "sps_jax"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sources(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return path -> SHA-256 of the files that the settings of a run name, and of what these import from their folders.

    >>> sources({"problem": "digits", "algorithm": ("gd",), "criterion": "magnitude"})
    {}
    """
    files = dict.fromkeys(Path(_parts(name)[0]) for _, name in named(settings))
    for file in files:
        _module(file)
    return {path: digest for file in files for path, digest in _SOURCES[file].items()}


def named(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (option, reference) for each own function that the settings of a run name.

    >>> named({"problem": "digits", "algorithm": ["gd", "mine.py:method"]})
    [('algorithm', 'mine.py:method')]
    """
    values = {kind: settings.get(kind) for kind in KINDS}
    several = {kind: [value] if isinstance(value, str) else value for kind, value in values.items()}
    lists = {kind: value for kind, value in several.items() if isinstance(value, list | tuple)}
    return [(kind, name) for kind, names in lists.items() for name in names if isinstance(name, str) and is_own(name)]


def refuse_changed(before: Mapping[str, str]) -> None:
    """Raise a ``ValueError`` if a file is no longer what it was: ``before`` maps its path to its SHA-256."""
    for path, digest in before.items():
        if not Path(path).is_file():
            raise ValueError(f"{path}, with which this was begun, is missing: put it back, or start anew")
        if _sha256(Path(path)) != digest:
            raise ValueError(f"{path} has changed since this was begun: change it back, or start anew")


def blaming(work: Callable[[], T]) -> T:
    """Return ``work()``; an error that passes through an own file becomes one sentence that says where.

    Raises:
      ValueError: in place of such an error; the lines of the own files are printed on standard error.
    """
    try:
        return work()
    except Exception as error:
        own = _frames(error, {path for each in _SOURCES.values() for path in each})
        if not own:
            raise
        sys.stderr.write("".join(traceback.format_list(own)))
        at = own[-1]
        raise ValueError(f"{at.filename}, line {at.lineno}, in {at.name}: {_told(error)}") from error


def _frames(error: BaseException, files: set[str]) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]


def _told(error: BaseException) -> str:
    """Return the error in one line.

    >>> _told(KeyError("w"))
    "KeyError: 'w'"
    """
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".rstrip(": ")
