"""Being asked to stop: Ctrl-C and SIGTERM as a wish that a loop can honour between two of its steps."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Work ended before its end because a signal asked for it.

    Attributes:
      status: the exit status that shells know for that signal, 130 for Ctrl-C and 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Wish:
    """Whether a signal has asked to stop: its number ``signal``, or None."""

    signal: int | None = None

    def check(self) -> None:
        """Raise :class:`Stopped` where it has."""
        if self.signal is not None:
            raise Stopped(self.signal)


@contextlib.contextmanager
def wishes(first: str, second: str) -> Iterator[Wish]:
    """Within, the first Ctrl-C or SIGTERM says ``first`` on standard error and is a wish; Ctrl-C after it ends at once.

    At once is before the main thread, which may be computing, has a say; ``second`` is said then. A signal that the
    process was started to ignore is still ignored. For the main thread alone.
    """
    wish = Wish()
    ears, mouth = socket.socketpair()
    mouth.setblocking(False)

    def listen() -> None:
        while heard := ears.recv(1):
            if heard[0] not in SIGNALS:
                continue
            if wish.signal is None:
                wish.signal = heard[0]
                print(first, file=sys.stderr, flush=True)
            elif heard[0] == signal.SIGINT:
                print(second, file=sys.stderr, flush=True)
                os._exit(128 + signal.SIGINT)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    outer = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: None) for number in heeded}
    try:
        yield wish
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(outer)
        mouth.close()
        listener.join()
        ears.close()
