"""Turn Ctrl-C and SIGTERM into a request to stop that a loop honours between two of its steps."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Raised when work stops early because of a signal.

    Attributes:
      status: the exit status by shell convention, 130 for Ctrl-C and 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class StopRequest:
    """A request to stop: ``signal`` is the number of the signal received, or None."""

    signal: int | None = None

    def check(self) -> None:
        """Raise :class:`Stopped` if a signal has been received."""
        if self.signal is not None:
            raise Stopped(self.signal)


@contextlib.contextmanager
def stop_requests(first: str, second: str) -> Iterator[StopRequest]:
    """Context manager in which the first Ctrl-C or SIGTERM prints ``first`` and requests a stop; a later Ctrl-C exits.

    That Ctrl-C prints ``second`` and exits from a listener thread, because the main thread may be inside a long
    computation. Signals that the process was started to ignore stay ignored. Call it in the main thread only.
    """
    stop = StopRequest()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def listen() -> None:
        while heard := receiver.recv(1):
            if heard[0] not in SIGNALS:
                continue
            if stop.signal is None:
                stop.signal = heard[0]
                print(first, file=sys.stderr, flush=True)
            elif heard[0] == signal.SIGINT:
                print(second, file=sys.stderr, flush=True)
                os._exit(128 + signal.SIGINT)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    outer = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: None) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(outer)
        sender.close()
        listener.join()
        receiver.close()
