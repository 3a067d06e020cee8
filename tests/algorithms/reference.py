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
    alpha: float = 0.1
    tau: Sequence[int] = ()  # of each client
    owners: int = 2
    ranks: Sequence[Sequence[int]] = ()  # at each communication, of each client
    mask: np.ndarray | None = None  # the first
    drop: float = 0.2
    every: int = 10


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


def randprox_server(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - h)
        y = (x - case.gamma / case.p * h).mean(0)
        b = np.sign(y) * np.maximum(np.abs(y) - case.gamma / case.p * case.l1, 0)
        h = h + case.p / case.gamma * (b - x)
    return b, b, h


def fednova(case: Case):
    b = case.start
    for steps in case.lengths:
        tau = np.minimum(case.tau, steps)
        x = copies(b, case.clients)
        for j in range(steps):
            x = np.where((j < tau)[:, None, None], x - case.gamma * case.gradients(x), x)
        b = b - tau.mean() * ((b - x) / tau[:, None, None]).mean(0)
    return b, b, np.asarray(case.tau, float)


def feddyn(case: Case):
    b, s = case.start, np.zeros_like(case.start)
    own = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - own + case.alpha * (x - b))
        own = own - case.alpha * (x - b)
        s = s - case.alpha * (x - b).mean(0)
        b = x.mean(0) - s / case.alpha
    return b, b, own


def fedcomloc_com(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - h)
        sent = topk_each(x, case.keep)
        b = sent.mean(0)
        h = h + case.p / case.gamma * (b - sent)
    return b, b, h


def fedcomloc_local(case: Case):
    b = case.start
    h = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(topk_each(x, case.keep)) - h)
        b = x.mean(0)
        h = h + case.p / case.gamma * (b - x)
    return b, b, h


def compressed_scaffnew(case: Case):
    b, n, s = case.start, case.clients, case.owners
    h = np.zeros((n, *b.shape))
    eta = n * (s - 1) / (s * (n - 1))
    coordinates = np.arange(b.size).reshape(b.shape)  # the bias comes first in the package too
    for steps, ranks in zip(case.lengths, case.ranks, strict=True):
        x = copies(b, n)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - h)
        q = np.stack([(rank - coordinates * s) % n < s for rank in ranks])
        assert (q.sum(0) == s).all()
        b = (q * x).sum(0) / s
        h = h + case.p * eta / case.gamma * q * (b - x)
    return b, b, h


def mask_of(score: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Ones at the ``count`` largest scores of the weights in ``among``, lowest index first among equals; row 0 too."""
    chosen = np.argsort(-np.where(among > 0, score, -np.inf)[1:].ravel(), kind="stable")[:count]
    mask = np.zeros_like(score)
    mask[0] = 1
    mask[1:].reshape(-1)[chosen] = 1
    return mask


def feddst(case: Case):
    mask, n = case.mask.astype(float), case.clients
    b = mask * case.start
    middle = round(1 / case.p) // 2
    kept = max(1, round(case.keep * (1 - case.drop)))
    for r, steps in enumerate(case.lengths):
        readjust = (r + 1) % case.every == 0
        x, masks = copies(b, n), copies(mask, n)
        for done in range(steps):
            if readjust and done == middle:
                g = case.gradients(x)
                stay = np.stack([mask_of(np.abs(x[i]), masks[i], kept) for i in range(n)])
                grown = [mask_of(np.abs(g[i]), 1 - stay[i], case.keep - kept) for i in range(n)]
                x, masks = stay * x, np.maximum(stay, grown)
            x = x - case.gamma * masks * case.gradients(x)
        owners = masks.sum(0)
        b = (masks * x).sum(0) / np.maximum(owners, 1)
        if readjust:
            mask = mask_of(np.abs(b), owners, case.keep)
            b = mask * b
    return b, b, None


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
        randprox_server,
        fednova,
        feddyn,
        fedcomloc_com,
        fedcomloc_local,
        compressed_scaffnew,
        feddst,
    )
}
METHODS |= {"fedcomloc_global": server_pruning, "tamuna": compressed_scaffnew}  # the same numbers
