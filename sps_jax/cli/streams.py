"""Standard output and standard error that keep a run alive after their reader has gone."""

import io
import os
import sys
from typing import Any, TextIO


class Pipe(io.FileIO):
    """A raw file whose writes never fail; ``failure`` keeps the first error, and later output is dropped."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write the data, or drop them after an error; :func:`lost` reports a full disk at the end."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def tolerant(stream: TextIO | None) -> TextIO:
    """Return ``stream`` behind a :class:`Pipe`, with ? for characters its encoding lacks; None drops everything."""
    if stream is None:  # the parent closed it
        return open(os.devnull, "w", encoding="utf-8")  # open until the process ends
    if os.name != "posix":  # a Windows console is not a file descriptor
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(Pipe(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream is sys.stderr or stream.isatty(),
        write_through=stream is sys.stderr,
    )


def lost() -> str | None:
    """Return the error message if writing standard output failed; None if it did not, or only its reader has gone."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, Pipe) else None
    if failure is None or isinstance(failure, BrokenPipeError):
        return None
    return f"standard output cannot be written: {failure.strerror}"
