"""Standard output and standard error whose reader may go away: the work goes on, and is not lost with them."""

import io
import os
import sys
from typing import Any, TextIO


class Pipe(io.FileIO):
    """A file descriptor that takes everything; ``failure`` is the first error that kept it from passing it on."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written: a full disk is told at the end, see :func:`lost`."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def tolerant(stream: TextIO | None) -> TextIO:
    """``stream`` through a :class:`Pipe`, with ? for letters that its encoding lacks; for None one that drops all."""
    if stream is None:  # closed when the process was started
        return open(os.devnull, "w", encoding="utf-8")  # as long as the process
    if os.name != "posix":  # consoles of Windows are no file descriptors
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(Pipe(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream is sys.stderr or stream.isatty(),
        write_through=stream is sys.stderr,
    )


def lost() -> str | None:
    """The sentence to end with where standard output could not be written; None where its reader only went away."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, Pipe) else None
    if failure is None or isinstance(failure, BrokenPipeError):
        return None
    return f"standard output cannot be written: {failure.strerror}"
