"""The methods as loops in NumPy, from their equations alone.

``x`` holds the clients' iterates (n, 1 + F, C), ``b`` the last broadcast (1 + F, C) with the bias in row 0,
``lengths`` the numbers of local steps between communications. Each function returns the shipped model, the last
broadcast, and the clients' memory.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """What a method is given; a method reads what it needs."""

    gradients: Callable[[np.ndarray], np.ndarray]
    clients: int
    start: np.ndarray
    lengths: Sequence[int]
    gamma: float
    p: float
    keep: int
    mu: float = 0.0
    l1: float = 0.0


def topk(x: np.ndarray, keep: int) -> np.ndarray:
    """The ``keep`` largest magnitudes of the weights, rows 1 and on, lowest index first among equals."""
    flat = x[1:].ravel()
    chosen = np.argsort(-np.abs(flat), kind="stable")[:keep]
    pruned = np.zeros_like(flat)
    pruned[chosen] = flat[chosen]
    return np.concatenate([x[:1], pruned.reshape(x[1:].shape)])


def topk_each(x: np.ndarray, keep: int) -> np.ndarray:
    return np.stack([topk(one, keep) for one in x])


def copies(b: np.ndarray, n: int) -> np.ndarray:
    return np.stack([b] * n)


def gd(case: Case):
    b = case.start
    for _ in range(sum(case.lengths)):
        b = b - case.gamma * case.gradients(copies(b, case.clients)).mean(0)
    return b, b, None


def fedavg(case: Case):
    b = case.start
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * case.gradients(x)
        b = x.mean(0)
    return b, b, None


def fedprox(case: Case):
    b = case.start
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) + case.mu * (x - b))
        b = x.mean(0)
    return b, b, None


def scaffold(case: Case):
    b, c = case.start, np.zeros_like(case.start)
    own = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - own + c)
        new = own - c + (b - x) / (steps * case.gamma)
        b, c, own = x.mean(0), c + (new - own).mean(0), new
    return b, b, own


def proxskip(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - h)
        b = x.mean(0)
        h = h + case.p / case.gamma * (b - x)
    return b, b, h


def sparse_proxskip(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(topk_each(x, case.keep)) - h)
        sent = topk_each(x, case.keep)
        b = sent.mean(0)
        h = h + case.p / case.gamma * (b - sent)
    return topk(b, case.keep), b, h


def sparse_proxskip_local(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = topk_each(x - case.gamma * (case.gradients(x) - h), case.keep)
        b = x.mean(0)
        h = h + case.p / case.gamma * (b - x)
    return topk(b, case.keep), b, h


def server_pruning(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - h)
        b = topk(x.mean(0), case.keep)
        h = h + case.p / case.gamma * (b - x)
    return b, b, h


def server_pruning_modified(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(topk(b, case.keep), case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - h)
        b = x.mean(0)
        h = h + case.p / case.gamma * (b - x)
    return topk(b, case.keep), b, h


def fedavg_server_pruning(case: Case):
    b = case.start
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * case.gradients(x)
        b = topk(x.mean(0), case.keep)
    return b, b, None


def fedavg_client_pruning(case: Case, straight_through=True):
    b = case.start
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * case.gradients(topk_each(x, case.keep) if straight_through else x)
        b = topk_each(x, case.keep).mean(0)
    return topk(b, case.keep), b, None


def randprox_l1(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            y = x - case.gamma * (case.gradients(x) - h)
            x = np.sign(y) * np.maximum(np.abs(y) - case.gamma * case.l1, 0)
        b = x.mean(0)
        h = h + case.p / case.gamma * (b - x)
    return b, b, h


METHODS = {
    f.__name__: f
    for f in (
        gd,
        fedavg,
        fedprox,
        scaffold,
        proxskip,
        sparse_proxskip,
        sparse_proxskip_local,
        server_pruning,
        server_pruning_modified,
        fedavg_server_pruning,
        fedavg_client_pruning,
        randprox_l1,
    )
}
