"""Imported before all else: JAX reads its environment when it is imported, and refuses what it cannot read.

Users of the package get JAX's own exception; the command line says it in one sentence, see :func:`give_up`.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn


def chosen() -> str:
    """What the environment says to JAX, for the end of a sentence: ``" (JAX_PLATFORMS=tpu is set)"``, or nothing."""
    said = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_")]
    return f" ({', '.join(said)} {'is' if len(said) == 1 else 'are'} set)" if said else ""


def is_command_line() -> bool:
    """Whether this process is ``sps-jax`` or ``python -m sps_jax``, asked while the package is imported."""
    return sys.argv[:1] == ["-m"] or Path(*sys.argv[:1]).stem == "sps-jax"


def give_up(error: Exception) -> NoReturn:
    """End the process with one sentence and status 2: something could not be imported."""
    first = (str(error).splitlines() or [""])[0]
    print(f"sps-jax: error: cannot start: {type(error).__name__}: {first}{chosen()}", file=sys.stderr)
    raise SystemExit(2)


try:
    import jax as jax
except Exception as error:
    if is_command_line():
        give_up(error)
    raise
