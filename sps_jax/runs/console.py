"""Progress messages of the command line on standard error; errors are printed elsewhere."""

import io
import logging
import sys
import time
from typing import Any

from tqdm import tqdm

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


PACE = 10.0
"""The seconds between two lines of progress in a log: so many, and a tenth of all seconds before, whichever is more."""


class Bar(tqdm):
    """A progress bar, which writes a whole line now and then where standard error is no terminal."""

    lines = False
    _next = 0.0

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar; in a log, write it as a line when :data:`PACE` says so."""
        if not self.lines:
            return super().display(msg, pos)
        now = time.time()
        begun = getattr(self, "start_t", now)  # it is drawn once before it has begun
        if now >= max(self._next, begun + PACE) and msg != "":
            print(f"sps-jax: {self}".rstrip(), file=sys.stderr, flush=True)
            self._next = now + max(PACE, (now - begun) / 10)
        return True


class _Lines(Bar):
    lines = True


def progress(total: int, done: int, unit: str, hidden: bool = False) -> Bar:
    """Return a bar of ``total`` units, of which some are done; it draws nothing if ``hidden`` or :func:`quiet`."""
    hidden = hidden or quiet()
    if sys.stderr.isatty():
        return Bar(total=total, initial=done, unit=unit, disable=hidden, leave=False)
    form = "{desc}{n_fmt} of {total_fmt} {unit}s, {elapsed} so far, about {remaining} left"
    nowhere = io.StringIO()  # tqdm's own control characters
    return _Lines(total=total, initial=done, unit=unit, disable=hidden, bar_format=form, miniters=1, file=nowhere)


def doing(what: str) -> None:
    """On a terminal, announce slow work in a line that the next message overwrites; ``""`` erases the last one."""
    if not quiet() and sys.stderr.isatty():
        print(f"{CLEAR}{what and f'sps-jax: {what} ...'}", end="", file=sys.stderr, flush=True)
