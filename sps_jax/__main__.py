"""``python -m sps_jax`` is the command line ``sps-jax``."""

import sys


def main() -> None:
    """Run the command line; exit status 0, 1 for a full disk, 2 for a wrong input, 3 for divergence, 130 for Ctrl-C."""
    from sps_jax.cli import command  # matplotlib and data sets are not needed to import the package

    sys.exit(command(sys.argv[1:]))


if __name__ == "__main__":
    main()
