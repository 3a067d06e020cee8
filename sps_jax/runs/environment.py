"""Import JAX before all else: on import it reads its environment variables, and raises for invalid ones.

Users of the package get JAX's own exception; the command line reports it in one sentence, see :func:`give_up`.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn


def chosen() -> str:
    """Return JAX's environment variables for the end of an error, ``" (JAX_PLATFORMS=tpu is set)"``, or ``""``."""
    variables = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_")]
    return f" ({', '.join(variables)} {'is' if len(variables) == 1 else 'are'} set)" if variables else ""


def is_command_line() -> bool:
    """Return whether this process is ``sps-jax`` or ``python -m sps_jax``; valid while the package is imported."""
    return sys.argv[:1] == ["-m"] or Path(*sys.argv[:1]).stem == "sps-jax"


def give_up(error: Exception) -> NoReturn:
    """Report a failed import in one sentence, and exit with status 2."""
    first = (str(error).splitlines() or [""])[0]
    print(f"sps-jax: error: cannot start: {type(error).__name__}: {first}{chosen()}", file=sys.stderr)
    raise SystemExit(2)


try:
    import jax as jax
except Exception as error:
    if is_command_line():
        give_up(error)
    raise
