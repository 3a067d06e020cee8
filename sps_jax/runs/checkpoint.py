"""Checkpoints: save the last few pytrees of arrays in a folder, each with a JSON record, by orbax.

They are written in the background and atomically. Reading one returns the same bits or raises: orbax's format has no
checksum of large arrays, so every checkpoint carries its own.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from sps_jax.results.files import at_home
from sps_jax.runs.checkpoint_leaves import Tree, checksum, generators, given_back, like_stored, named, stored


class Unreadable(ValueError):
    """Raised for a checkpoint that is damaged, or differs from what was requested."""


class Checkpoints:
    """A context manager over the last ``keep`` checkpoints of a folder; leaving it waits for pending writes.

    Args:
      folder: the folder, created if it is missing. Its checkpoints are the subfolders named by a number; others are
        left alone.
      keep: the number of checkpoints to keep.
      read_only: whether never to write, not even to remove the unfinished checkpoint of an earlier process.

    Raises:
      FileNotFoundError: if the folder is missing and ``read_only`` is set.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3, read_only: bool = False) -> None:
        self.folder = at_home(folder).resolve()
        if read_only and not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}")
        import orbax.checkpoint as ocp  # slow to import
        from orbax.checkpoint.checkpoint_managers import preservation_policy
        from orbax.checkpoint.options import MultiprocessingOptions

        # each process checkpoints alone: orbax must not wait for the others
        own = None if jax.process_count() == 1 else {jax.process_index()}
        if not read_only:
            self.folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.LatestN(keep),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=False,
            multiprocessing_options=MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes=own, barrier_sync_key_prefix="first"
            ),
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quiet())
            self._args, self._manager = ocp.args, ocp.CheckpointManager(self.folder, options=options)
            self._open = stack.pop_all()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for pending writes and close; if an exception is already propagating, raise no other."""
        with self._open:
            try:
                self._manager.close()
            except Exception as failure:
                if kind is None:
                    raise self._not_saved(failure) from None

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Tree, about: Mapping[str, Any] | None = None) -> None:
        """Begin to write a copy of ``tree``, and ``about``, which must be JSON-serialisable, in the background.

        Leaves are arrays, JAX random keys of any generator, or Python numbers.

        Raises:
          OSError: if this checkpoint, or the one before, could not be written; earlier ones are unchanged.
          ValueError: if this step or a later one has a checkpoint, or a leaf is of another type.
        """
        if any(step <= before for before in self.steps()):
            raise ValueError(f"{self.folder} already has a checkpoint of step {step}, or a later one")
        leaves = {name: stored(name, leaf) for name, leaf in named(tree).items()}
        sums = {name: checksum(leaf) for name, leaf in leaves.items()}
        record = {"about": dict(about or {}), "checksums": sums, "generators": generators(tree)}
        items = {
            "state": self._args.StandardSave({n: leaf for n, leaf in leaves.items() if leaf.size} or EMPTY),
            "about": self._args.JsonSave(record | {"record": _record_checksum(record)}),
        }
        try:
            self._manager.save(step, args=self._args.Composite(**items), force=True)
        except Exception as failure:
            raise self._not_saved(failure) from None

    def wait(self) -> None:
        """Wait until all checkpoints are written; raises as :meth:`save`."""
        try:
            self._manager.wait_until_finished()
        except Exception as failure:
            raise self._not_saved(failure) from None

    def about(self, step: int) -> dict[str, Any]:
        """Return the ``about`` record of a checkpoint; raises :class:`Unreadable`."""
        return self._record(step)["about"]

    def restore(self, step: int, like: Tree) -> Tree:
        """Return the tree of a checkpoint: NumPy arrays, and random keys and Python numbers where ``like`` has them.

        Args:
          step: the checkpoint's step.
          like: a tree of the same structure, whose leaves are arrays or ``ShapeDtypeStruct`` of the same shapes and
            dtypes, or Python numbers.

        Raises:
          Unreadable: if the checkpoint is damaged, or has another structure, shapes or dtypes.
        """
        record = self._record(step)
        sums = record["checksums"]
        found = self._read(step, "state", self._args.StandardRestore())
        wanted = named(like)
        if sums.keys() != wanted.keys():
            odd = sorted(sums.keys() ^ wanted.keys())[0]
            raise self._unreadable(step, f"its leaves differ from those requested, first in {odd}")
        kept, requested = record["generators"], generators(like)
        for name in sums if kept is not None else ():
            if kept.get(name) != requested.get(name):
                was, like_it = (f"a key of {g[name]}" if name in g else "no random key" for g in (kept, requested))
                raise self._unreadable(step, f"{name} is {was}, but {like_it} was requested")
        leaves = []
        for name, one in wanted.items():
            want = like_stored(name, one)
            leaf = np.asarray(found.get(name, np.zeros(want.shape, want.dtype)))
            if (leaf.shape, leaf.dtype) != (want.shape, want.dtype):
                raise self._unreadable(
                    step, f"{name} is {leaf.dtype}{leaf.shape}, not {np.dtype(want.dtype)}{want.shape}"
                )
            if checksum(leaf) != sums[name]:
                raise self._unreadable(step, f"the numbers of {name} are not those that were written")
            leaves.append(given_back(leaf, one))
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def set_aside(self, step: int) -> None:
        """Rename a checkpoint to ``unreadable-STEP``, which is not a checkpoint, so that another can take its place."""
        aside = self.folder / f"unreadable-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        (self.folder / str(step)).rename(aside)
        self._manager.reload()

    def _record(self, step: int) -> dict[str, Any]:
        record = self._read(step, "about", self._args.JsonRestore())
        parts = {"about", "checksums"}
        if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in parts):
            raise self._unreadable(step, "it was not written by sps_jax")
        written = record.pop("record", None)  # None: older checkpoints have neither this checksum nor generators
        if record.keys() - {"generators"} != parts or written not in (None, _record_checksum(record)):
            raise self._unreadable(step, "its record is not what was written")
        return {"generators": None} | record

    def _read(self, step: int, item: str, how: Any) -> Any:
        try:
            return self._manager.restore(step, args=self._args.Composite(**{item: how}))[item]
        except MemoryError:
            raise
        except Exception as error:
            raise self._unreadable(step, (str(error).strip() or type(error).__name__).splitlines()[0][:200]) from None

    def _unreadable(self, step: int, why: str) -> Unreadable:
        return Unreadable(f"checkpoint {self.folder / str(step)} cannot be used: {why}")

    def _not_saved(self, failure: Exception) -> OSError:
        full = os.strerror(errno.ENOSPC)
        why = full if full in str(failure) else (str(failure) or type(failure).__name__).splitlines()[0][:200]
        return OSError(f"cannot save a checkpoint to {self.folder}: {why}")


def save(
    folder: str | os.PathLike[str], step: int, tree: Tree, about: Mapping[str, Any] | None = None, keep: int = 3
) -> None:
    """Write one checkpoint, and wait until it is written; see :class:`Checkpoints` to write in the background."""
    with Checkpoints(folder, keep) as checkpoints:
        checkpoints.save(step, tree, about)


def restore(folder: str | os.PathLike[str], like: Tree, step: int | None = None) -> Tree:
    """Return the tree of the checkpoint of ``step``, by default the newest; see :meth:`Checkpoints.restore`.

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      Unreadable: if it is damaged, or holds a tree of another structure, shapes or dtypes.
    """
    with Checkpoints(folder, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if step not in steps and (step is not None or not steps):
            raise FileNotFoundError(f"there is no checkpoint{'' if step is None else f' {step}'} in {folder}")
        return checkpoints.restore(steps[-1] if step is None else step, like)


EMPTY = {"nothing": np.zeros(1, np.uint8)}
"""Stands for a tree without any number, because orbax cannot write an empty tree."""


def _record_checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence orbax's log, which repeats the errors that it raises, and the warnings of its closed event loop."""
    log, before = logging.getLogger("absl"), sys.unraisablehook

    def foreign(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    def hook(raised: Any) -> None:
        if not (isinstance(raised.exc_value, RuntimeError) and "Event loop is closed" in str(raised.exc_value)):
            before(raised)

    log.addFilter(foreign)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        log.removeFilter(foreign)
