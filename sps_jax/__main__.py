"""``python -m sps_jax`` is the command line ``sps-jax``."""

import os
import sys

from sps_jax.cli import streams
from sps_jax.runs import console, environment


def main() -> None:
    """Run the command line; it ends with the status of :func:`sps_jax.cli.main.command`, 1 where its output is lost."""
    sys.stdout, sys.stderr = streams.tolerant(sys.stdout), streams.tolerant(sys.stderr)
    os.environ.pop("MPLBACKEND", None)  # pictures are files; matplotlib does not even import where it is misspelt
    status = begin()
    if sentence := streams.lost():
        print(f"sps-jax: error: {sentence}", file=sys.stderr)
        status = status or 1
    sys.exit(status)


def begin() -> int:
    """Import the commands and run the one that is asked for; returns the exit status."""
    console.hush("--quiet" in sys.argv)
    console.doing("importing")
    try:
        from sps_jax.cli.main import command  # matplotlib and data sets are not needed to import the package
    except Exception as error:
        environment.give_up(error)
    console.doing("")
    try:
        return command(sys.argv[1:])
    except SystemExit as end:  # tyro's, after help or for an option that it does not know
        return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    main()
