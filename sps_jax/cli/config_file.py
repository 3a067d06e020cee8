"""``--config FILE``: options from the ``config.json`` of an earlier run, or from a TOML file written by hand.

    sps-jax run --config results/config.json --seeds 3
    sps-jax run --config study.toml --out results

A TOML file has one line per option, by its name: ``local-steps = 5`` or ``local_steps = 5``, ``algorithm = ["gd",
"fedavg"]``. An option on the command line replaces that of the file. The output folder in a ``config.json`` is not
taken, because a new run needs a new one.
"""

import dataclasses
import itertools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from sps_jax.errors import described, refuse_unknown
from sps_jax.results.files import at_home


def defaults(made: type, arguments: list[str]) -> dict[str, Any]:
    """Return the options that the file of ``--config`` gives, if the arguments name one; they are new defaults.

    Args:
      made: the class of options of the command.
      arguments: those of the command line.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read, or has an unknown name or a value of another type.
    """
    path = named(arguments)
    if path is None:
        return {}
    fields = {field.name: field for field in dataclasses.fields(made) if field.name != "config"}
    found = {}
    for name, value in settings(path).items():
        name = name.replace("-", "_")
        refuse_unknown(f"option in {path}", name, fields)
        if value is not None:
            found[name] = converted(path, name, value, fields[name].type)
    return found


def named(arguments: list[str]) -> Path | None:
    """Return the last file that ``--config`` names among the arguments, None without one.

    >>> named(["run", "--config", "a.toml", "--config=b.json"]), named(["run"])
    (PosixPath('b.json'), None)
    """
    found = [two for one, two in itertools.pairwise(arguments) if one == "--config"]
    found += [one.removeprefix("--config=") for one in arguments if one.startswith("--config=")]
    return at_home(found[-1]) if found else None


def settings(path: Path) -> Mapping[str, Any]:
    """Return name -> value of the options in a file; raises as :func:`defaults`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} for --config")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:  # both decoders' errors are
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold options by their names, not {described(found)}")
    if not isinstance(found.get("settings"), dict):
        return found
    return {name: value for name, value in found["settings"].items() if name != "out"}


def converted(path: Path, name: str, value: Any, kind: Any) -> Any:
    """Return ``value`` as an option of type ``kind``; a number serves as text, and one value as a list of one.

    >>> converted(Path("a.toml"), "stepsize", 0.5, str), converted(Path("a.toml"), "algorithm", "gd", tuple[str, ...])
    ('0.5', ('gd',))
    """
    kinds = [kind, *get_args(kind)]
    several = next((one for one in kinds if get_origin(one) is tuple), None)
    if several is not None:
        value = value if isinstance(value, list) else [value]
        if str in get_args(several):
            value = [_text(one) for one in value]
    elif str in kinds:
        value = _text(value)
    try:
        return msgspec.convert(value, kind, dec_hook=lambda want, given: want(given))
    except (msgspec.ValidationError, TypeError) as error:
        raise ValueError(f"{name} in {path} cannot be {described(value)}: {error}") from None


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
