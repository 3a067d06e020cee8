"""Progress messages of the command line on standard error; errors are printed elsewhere."""

import logging
import sys

_LOG = logging.getLogger("sps_jax")
CLEAR = "\r\033[K"
"""The control sequence that erases a terminal's current line."""


def hush(quiet: bool) -> None:
    """Turn progress messages off, or on again."""
    _LOG.setLevel(logging.WARNING if quiet else logging.INFO)


def quiet() -> bool:
    """Return whether progress messages are off."""
    return not _LOG.isEnabledFor(logging.INFO)


def say(sentence: str) -> None:
    """Print one line that stays."""
    if not quiet():
        print(f"{CLEAR if sys.stderr.isatty() else ''}{sentence}", file=sys.stderr)


def doing(what: str) -> None:
    """On a terminal, announce slow work in a line that the next message overwrites; ``""`` erases the last one."""
    if not quiet() and sys.stderr.isatty():
        print(f"{CLEAR}{what and f'sps-jax: {what} ...'}", end="", file=sys.stderr, flush=True)
