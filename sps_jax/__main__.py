"""``python -m sps_jax`` is the command line ``sps-jax``."""

import sys

from sps_jax import speech


def main() -> None:
    """Run the command line; it ends with the status of :func:`sps_jax.cli.command`."""
    speech.hush("--quiet" in sys.argv)
    speech.doing("importing")
    from sps_jax.cli import command  # matplotlib and data sets are not needed to import the package

    speech.doing("")
    sys.exit(command(sys.argv[1:]))


if __name__ == "__main__":
    main()
