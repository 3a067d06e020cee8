"""``sps-jax data``: list the data sets, prepare them, and print where they are."""

import os
import sys
from json import dumps
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from sps_jax import results
from sps_jax.datasets import SETS
from sps_jax.datasets.prepare import root_of
from sps_jax.errors import refuse_unknown


def data(
    action: Positional[Literal["list", "prepare", "where"]] = "list",
    names: Positional[tuple[str, ...]] = (),
    manual_dir: Path | None = None,
    data_dir: Path | None = None,
    json: bool = False,
) -> int:
    """List or prepare the data sets, or print where they are.

    Args:
      action: list (sources, terms, sizes), prepare (download and convert), or where (folders of prepared data).
      names: names of the data sets; default is all, except for prepare, which needs names.
      manual_dir: folder of files downloaded by hand, to prepare from instead of the network.
      data_dir: folder of the prepared data; default is the variable TFDS_DATA_DIR, or else the default of TFDS.
      json: print one JSON document instead of text.
    """
    for name in names:
        refuse_unknown("data set", name, SETS)
    if action == "prepare":
        prepare(names, manual_dir, data_dir)
    elif manual_dir is not None:
        raise ValueError("--manual-dir needs the action prepare: sps-jax data prepare NAME --manual-dir DIR")
    found = {name: about(name, data_dir) for name in names or SETS}
    if json:
        print(dumps(found, indent=2))
    elif action == "list":
        print(table(found))
    else:
        places = [path for each in found.values() for path in each["prepared"]]
        print("\n".join(places or [f"nothing is prepared in {root_of(data_dir)}"]))
    return 0


def prepare(names: tuple[str, ...], manual_dir: Path | None, data_dir: Path | None) -> None:
    """Prepare the named data sets one by one; data that are prepared already are only read, as a check.

    Raises:
      ValueError: if no data set is named, or a file is damaged.
      FileNotFoundError: if a source is neither in ``manual_dir`` nor on the network.
    """
    if not names:
        raise ValueError(f"name at least one data set to prepare: {', '.join(SETS)}")
    for name in names:
        here = SETS[name].copies(data_dir)
        doing = "reading" if here else f"preparing, about {SETS[name].source.megabytes:g} MB,"
        print(f"sps-jax: {doing} {name}", file=sys.stderr)
        SETS[name].load(manual_dir=manual_dir, data_dir=data_dir)


def about(name: str, data_dir: Path | None = None) -> dict[str, Any]:
    """Return the source, licence and prepared copies of a data set."""
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
    """Return the size of all files in a folder, in MB; 0 if the folder does not exist."""
    sizes = (os.path.getsize(path) for path in folder.rglob("*") if path.is_file())
    return sum(sizes) / 1e6


def table(found: dict[str, dict[str, Any]]) -> str:
    """Format the data sets as text: a table, then their sources and terms of use."""
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
