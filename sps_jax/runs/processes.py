"""Run on several processes: all compute, process 0 writes, and if one fails, all stop.

Start the command once on each host, with the same options except the last:

    sps-jax run --clients 8 --devices 2 --out results --coordinator host0:1234 --num-processes 2 --process-id 0
    sps-jax run --clients 8 --devices 2 --out results --coordinator host0:1234 --num-processes 2 --process-id 1

``--coordinator auto``, without the other two, asks the launcher instead: what JAX detects of Slurm, Open MPI or
Kubernetes (``srun sps-jax run --coordinator auto ...``, one process for each accelerator). Under Open MPI 5 this needs
mpi4py, ``pip install 'sps_jax[mpi]'``.

The clients are sharded over the devices of all processes, whose total must divide the number of clients. Each process
reads the data and keeps only those of its own clients; only process 0 writes files and prints. If a process is killed,
the others exit with status 4 within half a minute. With ``--checkpoint-every``, Ctrl-C or SIGTERM to one process stops
all, and ``sps-jax resume results``, with or without the last three options, resumes on any number of processes and
devices; all processes must see the folder.
"""

import ctypes
import os
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from sps_jax.runs import environment

T = TypeVar("T")

AUTO = "auto"
"""The coordinator that stands for what JAX detects."""
LOST = (
    "another process of this run has ended, or did not start; "
    "finished runs are kept, and a run with checkpoints can be resumed with: sps-jax resume"
)


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    """Connect to the other processes of the run, and return whether there are any.

    Args:
      coordinator: host:port of process 0; or :data:`AUTO` alone, for all three from what launched the processes.
      num_processes: the number of processes on all hosts.
      process_id: the number of this process, from 0.

    Raises:
      ValueError: if only some of the three are given, one is out of range, no launcher is detected, or the processes
        have unequal numbers of devices.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        return False
    if coordinator == AUTO:
        if len(missing) < 2:
            raise ValueError(f"--coordinator {AUTO} finds the other processes: leave out --num-processes, --process-id")
        _connect(None, None, None)
        return True
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(f"a run on several processes also needs {' and '.join(missing)}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator must be host:port or {AUTO}, not {coordinator!r}")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"--process-id must be from 0 to {num_processes - 1}, not {process_id}")
    _connect(coordinator, num_processes, process_id)
    return True


def _connect(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connect to the other processes; JAX detects what is None."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if os.name == "posix":
        ctypes.CDLL(None).signal(int(signal.SIGABRT), _lost)
    how = None if coordinator is not None else _launcher()
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=20, cluster_detection_method=how
        )
    except ValueError as error:
        if coordinator is not None:
            raise
        raise ValueError(
            f"--coordinator {AUTO} found no other processes: start them by Slurm (srun), Open MPI (mpirun) or "
            f"Kubernetes, or give host:port, --num-processes and --process-id ({error})"
        ) from None
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        shutdown()
        raise ValueError(f"all processes must have equally many --devices, not {', '.join(map(str, counts.values()))}")


def _launcher() -> str | None:
    """Return JAX's name of the way to find the other processes; None for what it tries by itself.

    JAX recognises Open MPI by the address of the first process, which Open MPI 5 no longer gives; with mpi4py the
    processes tell each other.

    Raises:
      ValueError: if Open MPI 5 started them and mpi4py is not installed.
    """
    if "OMPI_COMM_WORLD_SIZE" not in os.environ or "OMPI_MCA_orte_hnp_uri" in os.environ:
        return None
    if find_spec("mpi4py") is None:
        raise ValueError(f"--coordinator {AUTO} needs mpi4py under Open MPI 5: pip install 'sps_jax[mpi]'")
    return "mpi4py"


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _lost(_: int) -> None:
    """Report that another process is lost, and exit with status 4.

    A SIGABRT handler in C, because JAX's runtime aborts from its own thread when it loses a process, and its
    callback for that fails (std::bad_cast, jaxlib 0.10).
    """
    os.write(2, f"sps-jax: error: {LOST}\n".encode())
    os._exit(4)


def no_devices() -> str | None:
    """Return one sentence that says why JAX has no devices; None if it has some."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX raises AssertionError if it has no backend
        said = (str(error).splitlines() or ["it does not say why"])[0]
        return f"JAX has no device to compute on: {said}{environment.chosen()}"
    return None


def several() -> bool:
    """Return whether the run has several processes; call it after :func:`join`."""
    return jax.process_count() > 1


def first() -> bool:
    """Return whether this is process 0, which writes; true for a single process."""
    return jax.process_index() == 0


def shutdown() -> None:
    """Wait until all processes call this, then disconnect: from then on each may end on its own."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
        signal.signal(signal.SIGABRT, signal.SIG_DFL)


def leave(status: int) -> int:
    """Return the exit status; a process that fails while connected exits at once, so that the others notice."""
    if status and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def all_or_none(work: Callable[[], T]) -> T:
    """Run ``work`` in every process and return its result; if any process raises, all shut down and raise.

    Raises:
      ValueError: if ``work`` raised only in another process, which reports why.
      Exception: the exception that ``work`` raised in this process.
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
        return cast(T, done)  # no exception was raised, so done is set
    shutdown()
    raise failure or ValueError(f"process {int(well.argmin())} of this run failed: see its error")


def refuse_others(what: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` in all processes, after shutting down, if any value of ``what`` differs between them."""
    if not several():
        return
    sums = np.array([zlib.crc32(repr(value).encode()) for value in what.values()], np.uint32)
    gathered = multihost_utils.process_allgather(sums)
    same = (gathered == gathered[0]).all(axis=0)
    if not same.all():
        shutdown()
        odd = [f"{name} {value!r}" for (name, value), one in zip(what.items(), same, strict=True) if not one]
        raise ValueError(f"all processes of a run need the same options, but these differ; here: {', '.join(odd)}")


def largest(number: int) -> int:
    """Return the largest ``number`` of all processes."""
    return int(multihost_utils.process_allgather(np.int32(number)).max()) if several() else number


def from_first(tree: Any) -> Any:
    """Broadcast the arrays of process 0 to all, as NumPy arrays; the others pass a tree of equal shapes and dtypes."""
    if not first():
        tree = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), tree)
    return multihost_utils.broadcast_one_to_all(tree)


def whole(tree: Any) -> Any:
    """Gather arrays that are sharded over the processes, and return them complete in all, as NumPy arrays."""

    def gather(a: Any) -> np.ndarray:
        shared = isinstance(a, jax.Array) and not (a.is_fully_addressable or a.is_fully_replicated)
        return multihost_utils.process_allgather(a, tiled=True) if shared else np.asarray(a)

    return jax.tree.map(gather, tree)
