"""API pages from the docstrings: ``python -W error .ci/docs.py FOLDER`` fails at the first warning."""

import pkgutil
import sys
from pathlib import Path

import pdoc

import sps_jax


def modules() -> list[str]:
    """Modules that together with those pdoc finds below them are the whole package, each once.

    Below a module with an ``__all__`` pdoc finds what is named there alone.
    """
    chosen: list[str] = []
    found: set[str] = set()
    names = (module.name for module in pkgutil.walk_packages(sps_jax.__path__, "sps_jax."))
    for name in ["sps_jax", *(name for name in names if not name.endswith("__main__"))]:
        if name not in found:
            chosen.append(name)
            found |= set(pdoc.extract.walk_specs([name]))
    return chosen


def main(folder: str) -> None:
    """Write a page for each module into ``folder``."""
    for name in sps_jax.__all__:  # pdoc does not ask for what a module imports late
        setattr(sps_jax, name, getattr(sps_jax, name))
    pdoc.render.configure(docformat="google", math=True, footer_text=f"sps_jax {sps_jax.__version__}")
    pdoc.pdoc(*modules(), output_directory=Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
