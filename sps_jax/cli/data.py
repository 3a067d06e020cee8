"""``sps-jax data``: which data sets there are, where they lie, and getting them ready."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from sps_jax import results
from sps_jax.datasets import SETS
from sps_jax.datasets.prepare import root_of
from sps_jax.errors import unknown


@dataclass(frozen=True)
class Data:
    """The data sets: list them, prepare some, say where they are.

    Attributes:
      action: list, prepare or where.
      names: of the data sets; default is all, but to prepare they must be named.
      manual_dir: to prepare from files that were put into this folder by hand, instead of the network.
      data_dir: where prepared data are kept; default is TFDS_DATA_DIR, or TFDS's own folder.
      json: one JSON document instead of text.
    """

    action: Positional[Literal["list", "prepare", "where"]] = "list"
    names: Positional[tuple[str, ...]] = ()
    manual_dir: Path | None = None
    data_dir: Path | None = None
    json: bool = False


def data(options: Data) -> int:
    """Do what the action says; returns the exit status."""
    for name in options.names:
        if name not in SETS:
            raise unknown("data set", name, SETS)
    if options.action == "prepare":
        prepare(options)
    elif options.manual_dir is not None:
        raise ValueError("--manual-dir is for sps-jax data prepare")
    found = {name: about(name, options.data_dir) for name in options.names or SETS}
    if options.json:
        print(json.dumps(found, indent=2))
    elif options.action == "list":
        print(table(found))
    else:
        places = [path for each in found.values() for path in each["prepared"]]
        print("\n".join(places or [f"nothing is prepared in {root_of(options.data_dir)}"]))
    return 0


def prepare(options: Data) -> None:
    """Get the named data sets ready, one after the other.

    Raises:
      ValueError: where none is named, or a file is damaged.
      FileNotFoundError: where one is nowhere to be had.
    """
    if not options.names:
        raise ValueError(f"name what to prepare: {', '.join(SETS)}")
    for name in options.names:
        here = SETS[name].copies(options.data_dir)
        doing = "reading" if here else f"preparing, about {SETS[name].source.megabytes:g} MB,"
        print(f"sps-jax: {doing} {name}", file=sys.stderr)
        SETS[name].load(manual_dir=options.manual_dir, data_dir=options.data_dir)


def about(name: str, data_dir: Path | None = None) -> dict[str, Any]:
    """Source, licence and prepared copies of a data set."""
    source, places = SETS[name].source, SETS[name].copies(data_dir)
    return {
        "url": source.url,
        "files": list(source.files),
        "megabytes": source.megabytes,
        "licence": source.licence,
        "prepared": list(map(str, places)),
        "prepared_megabytes": round(sum(map(megabytes, places)), 1),
    }


def megabytes(folder: Path) -> float:
    """What the files in a folder take, 0 where there is none."""
    sizes = (os.path.getsize(path) for path in folder.rglob("*") if path.is_file())
    return sum(sizes) / 1e6


def table(found: dict[str, dict[str, Any]]) -> str:
    """The data sets for people: a table, then their sources and terms."""
    rows = [
        {
            "data set": name,
            "download": f"{each['megabytes']:g} MB",
            "prepared": f"{each['prepared_megabytes']:g} MB" if each["prepared"] else "no",
            "file": each["files"][0],
        }
        for name, each in found.items()
    ]
    terms = (f"{name}: {each['url']}\n  {each['licence']}" for name, each in found.items())
    return "\n\n".join([results.aligned(rows), *terms])
