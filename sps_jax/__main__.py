"""``python -m sps_jax`` runs the command line ``sps-jax``."""

import os
import sys

from sps_jax.cli import streams
from sps_jax.runs import console, environment


def main() -> None:
    """Run the command line and exit with the status of :func:`sps_jax.cli.main.command`, or 1 if output was lost."""
    sys.stdout, sys.stderr = streams.tolerant(sys.stdout), streams.tolerant(sys.stderr)
    os.environ.pop("MPLBACKEND", None)  # plots go to files; a misspelt backend would break importing matplotlib
    status = begin()
    if sentence := streams.lost():
        print(f"sps-jax: error: {sentence}", file=sys.stderr)
        status = status or 1
    sys.exit(status)


def begin() -> int:
    """Import the commands and run the requested one; return the exit status."""
    console.hush("--quiet" in sys.argv)
    console.doing("importing")
    try:
        from sps_jax.cli.main import command  # here, so that failing to import is reported
    except Exception as error:
        environment.give_up(error)
    console.doing("")
    try:
        return command(sys.argv[1:])
    except SystemExit as end:  # raised by tyro, after --help or for an unknown option
        return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    main()
