"""What the command line says on standard error while it works; errors are not said here."""

import logging
import sys

_LOG = logging.getLogger("sps_jax")
CLEAR = "\r\033[K"
"""Takes a terminal's last line away."""


def hush(quiet: bool) -> None:
    """From now on say everything, or nothing."""
    _LOG.setLevel(logging.WARNING if quiet else logging.INFO)


def quiet() -> bool:
    """Whether nothing is said."""
    return not _LOG.isEnabledFor(logging.INFO)


def say(sentence: str) -> None:
    """One line that stays."""
    if not quiet():
        print(f"{CLEAR if sys.stderr.isatty() else ''}{sentence}", file=sys.stderr)


def doing(what: str) -> None:
    """On a terminal, what may take more than a moment; the next line takes its place. Nothing ends the last one."""
    if not quiet() and sys.stderr.isatty():
        print(f"{CLEAR}{what and f'sps-jax: {what} ...'}", end="", file=sys.stderr, flush=True)
