"""Clients in the host's memory: NumPy arrays or memory-mapped files, of which some rows go to the devices."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.layout import Layout, place
from sps_jax.problem import Problem
from sps_jax.results.files import at_home
from sps_jax.simulation.participation import Member
from sps_jax.tree import Tree


def columns(metrics: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stack the metrics of R rounds into arrays (R, ...), with zeros in rounds that were not evaluated."""
    examples = {"train_loss": np.zeros(())} | {name: value for one in metrics for name, value in one.items()}
    return {name: np.stack([one.get(name, np.zeros_like(like)) for one in metrics]) for name, like in examples.items()}


def to_host(problem: Problem) -> Problem:
    """Return ``problem`` with the clients' data in NumPy arrays; data on a CPU device are not copied."""
    return replace(problem, data=tuple(np.asarray(a) for a in problem.data))  # type: ignore[misc]  # one or the other


def empty(folder: str | os.PathLike[str] | None, number: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Allocate an array in host memory, or as the memory-mapped file ``memory-NUMBER.npy`` in ``folder``."""
    if folder is None or 0 in shape:  # an empty file cannot be memory-mapped
        return np.empty(shape, dtype)
    folder = at_home(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(folder / f"memory-{number}.npy", "w+", dtype, shape)


def copied(folder: str | os.PathLike[str] | None, memory: Tree) -> Tree:
    """Return ``memory`` in the arrays of :func:`empty`; a file that is mapped already stays as it is."""
    leaves, structure = jax.tree.flatten(memory)
    rooms: list[np.ndarray] = []
    for number, a in enumerate(leaves):
        path = None if folder is None else os.path.realpath(at_home(folder) / f"memory-{number}.npy")
        if isinstance(a, np.memmap) and os.path.realpath(str(a.filename)) == path:
            rooms.append(a)
            continue
        rooms.append(empty(folder, number, a.shape, a.dtype))
        rooms[-1][...] = np.asarray(a)
    return jax.tree.unflatten(structure, rooms)


def rows_of(stacked: Tree, who: Member) -> Tree:
    """Return a copy of the members' rows of ``stacked``, arrays (n, ...)."""
    ids = np.asarray(who.ids)
    return jax.tree.map(lambda a: a[ids], stacked)


def put(memory: Tree, who: Member, own: Tree) -> None:
    """Write the members' rows ``own`` into ``memory``, arrays (n, ...), in place."""
    ids = np.asarray(who.ids)
    for a, new in zip(jax.tree.leaves(memory), jax.tree.leaves(own), strict=True):
        a[ids] = np.asarray(new)


def load(layout: Layout, problem: Problem, who: Member, weights: Any) -> Problem:
    """Return the problem of the members, with these weights, on the device."""
    held = replace(problem, data=(), weights=None, test=None, validation=None, smoothness=None, convexity=None)
    data, counts, sizes = rows_of((problem.data, np.asarray(problem.counts), problem.sizes), who)
    data = own_padding(data, counts)
    data, counts, sizes, weights = place(layout, jax.tree.map(jnp.asarray, (data, counts, sizes, weights)))
    return replace(held, data=data, counts=counts, sizes=sizes, weights=weights)


def own_padding(data: tuple[np.ndarray, ...], counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pad each client's rows with its first example, in the cohort's own copy of the data; see :class:`Problem`."""
    padding = np.arange(data[0].shape[1]) >= counts[:, None]
    client, _ = np.nonzero(padding)
    if not len(client):
        return data
    data = tuple(np.require(a, requirements="W") for a in data)
    for a in data:
        a[padding] = a[client, 0]
    return data


def parts(n: int, size: int) -> Iterator[tuple[Member, np.ndarray]]:
    """Yield all n clients, ``size`` at a time, and which are real: the last part repeats client n - 1 to fill up."""
    for first in range(0, n, size):
        ids = np.arange(first, first + size, dtype=np.int32)
        members = np.minimum(ids, n - 1), np.arange(size, dtype=np.int32)
        yield Member(*members), ids < n  # type: ignore[arg-type]  # NumPy: they index NumPy arrays
