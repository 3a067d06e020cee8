"""The processes of one run: all compute, the first alone writes, and where one cannot go on none does.

Start the command once on each host, with the same options but the last:

    sps-jax run --clients 8 --devices 2 --out results --coordinator host0:1234 --num-processes 2 --process-id 0
    sps-jax run --clients 8 --devices 2 --out results --coordinator host0:1234 --num-processes 2 --process-id 1

The processes share the clients, whose number their devices together must divide. Each reads the data and keeps those of
its own clients alone; process 0 alone writes files and prints. A process that is killed ends the others with status 4,
in half a minute at most. With ``--checkpoint-every``, Ctrl-C or SIGTERM to one process stops all, and ``sps-jax resume
results``, with the same three options or without them, goes on with any number of processes and devices; all must see
the folder.
"""

import ctypes
import os
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from sps_jax.runs import environment

T = TypeVar("T")

LOST = (
    "another process of this run has gone, or did not come; "
    "what was finished is kept, and a run with checkpoints goes on with: sps-jax resume"
)


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    """Meet the other processes of the run where there are some; returns whether.

    Args:
      coordinator: host:port of process 0.
      num_processes: how many, on all hosts together.
      process_id: which of them this is, from 0.

    Raises:
      ValueError: where only some of the three are given, they do not fit each other, or devices differ in number.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        return False
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(f"a run on several processes needs {' and '.join(missing)} too")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator must be host:port, not {coordinator!r}")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"--process-id must be from 0 to {num_processes - 1}, not {process_id}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if os.name == "posix":
        ctypes.CDLL(None).signal(int(signal.SIGABRT), _lost)
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=20)
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        part()
        raise ValueError(f"each process must have as many --devices, not {', '.join(map(str, counts.values()))}")
    return True


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _lost(_: int) -> None:
    """JAX's runtime aborts a process that has lost another, from a thread of its own: say so and end with status 4.

    To be called there, in place of the abort: what JAX takes a callback for fails (std::bad_cast, jaxlib 0.10).
    """
    os.write(2, f"sps-jax: error: {LOST}\n".encode())
    os._exit(4)


def no_devices() -> str | None:
    """The sentence that says what keeps JAX from computing at all, None where it has devices."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that there is a backend
        said = (str(error).splitlines() or ["it does not say why"])[0]
        return f"JAX has no device to compute on: {said}{environment.chosen()}"
    return None


def several() -> bool:
    """Whether there are others; asked after :func:`join`."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes; where there is one alone, it is."""
    return jax.process_index() == 0


def part() -> None:
    """Wait for the others to come here too; from then on none waits for another, or minds that it ends."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
        signal.signal(signal.SIGABRT, signal.SIG_DFL)


def leave(status: int) -> int:
    """The exit status, for a process that has parted; ends one that has not at once, so that the others notice."""
    if status and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def agree(work: Callable[[], T]) -> T:
    """What ``work`` returns, where it raises in no process; else all part and raise.

    Raises:
      ValueError: where it raised in another process alone, which says why.
      Exception: what it raised here.
    """
    if not several():
        return work()
    done = failure = None
    try:
        done = work()
    except Exception as error:
        failure = error
    well = multihost_utils.process_allgather(np.array(failure is None))
    if well.all():
        return cast(T, done)  # there is one, having raised nothing
    part()
    raise failure or ValueError(f"process {int(well.argmin())} of this run cannot go on, see what it says")


def refuse_others(what: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` in all processes where ``what``, of the same names, differs; then they have parted."""
    if not several():
        return
    sums = np.array([zlib.crc32(repr(value).encode()) for value in what.values()], np.uint32)
    gathered = multihost_utils.process_allgather(sums)
    same = (gathered == gathered[0]).all(axis=0)
    if not same.all():
        part()
        odd = [f"{name} {value!r}" for (name, value), one in zip(what.items(), same, strict=True) if not one]
        raise ValueError(f"the processes of a run must be started alike, but differ in what is here {', '.join(odd)}")


def largest(number: int) -> int:
    """The largest of the numbers that the processes bring."""
    return int(multihost_utils.process_allgather(np.int32(number)).max()) if several() else number


def from_first(tree: Any) -> Any:
    """The arrays of the first process, NumPy ones, in all; the others bring a tree of the same shapes and dtypes."""
    if not first():
        tree = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), tree)
    return multihost_utils.broadcast_one_to_all(tree)


def whole(tree: Any) -> Any:
    """Arrays that the processes share, each of them whole in all, as NumPy arrays."""

    def gather(a: Any) -> np.ndarray:
        shared = isinstance(a, jax.Array) and not (a.is_fully_addressable or a.is_fully_replicated)
        return multihost_utils.process_allgather(a, tiled=True) if shared else np.asarray(a)

    return jax.tree.map(gather, tree)
