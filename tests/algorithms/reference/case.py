"""What a method is given, TopK, and compressors whose draws are given."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """What a method is given; a method reads what it needs."""

    gradients: Callable[[np.ndarray], np.ndarray]
    clients: int
    start: np.ndarray
    lengths: Sequence[int]
    gamma: float | np.ndarray  # scafflix: or of each client
    p: float
    keep: int
    mu: float = 0.0
    l1: float = 0.0
    alpha: float | np.ndarray = 0.1  # scafflix: or of each client
    tau: Sequence[int] = ()  # of each client
    owners: int = 2
    ranks: Sequence[Sequence[int]] = ()  # at each communication, of each client
    mask: np.ndarray | None = None  # the first
    drop: float = 0.2
    every: int = 10
    coins: Sequence[np.ndarray] = ()  # gradskip: at each local step, of each client; 1 has probability q_i
    own: np.ndarray | None = None  # scafflix: the clients' own optima
    server_stepsize: float = 1.0
    momentum: float = 0.0  # beta of fedavgm, eta of ef21_sgdm
    beta: float = 1.0  # of scafcom
    beta1: float = 0.0
    beta2: float = 0.0
    epsilon: float = 1e-3
    decay: float = 0.0  # of the weights, fedsmu
    rho: float = 1.0
    eta: float = 1.0  # of locodl
    shared: float = 0.0  # locodl: g(x) = shared ||x||^2 / 2, and the clients have f_i - g
    masks: Sequence[np.ndarray] = ()  # rand-k: at each communication, of each client
    uniforms: Sequence[np.ndarray] = ()  # quantiser: at each communication, of each client and entry
    bits: int = 1  # of the quantiser


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


def mask_of(score: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Ones at the ``count`` largest scores of the weights in ``among``, lowest index first among equals; row 0 too."""
    chosen = np.argsort(-np.where(among > 0, score, -np.inf)[1:].ravel(), kind="stable")[:count]
    mask = np.zeros_like(score)
    mask[0] = 1
    mask[1:].reshape(-1)[chosen] = 1
    return mask


def rand_k(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """d/K times the K entries of ``mask``, of all d, the bias too."""
    return mask.size / mask.sum() * mask * x


def qsgd(x: np.ndarray, u: np.ndarray, bits: int) -> np.ndarray:
    """The stochastic quantiser of all entries with levels 0 to s = 2^bits - 1: up with probability a - floor(a)."""
    norm, s = np.linalg.norm(x), 2**bits - 1
    a = s * np.abs(x) / (norm or 1)
    return norm * np.sign(x) / s * (np.floor(a) + (u < a - np.floor(a)))


def compressed(case: Case, x: np.ndarray, t: int) -> np.ndarray:
    """C_i(x_i) at communication t: rand-k where there are masks, the quantiser where there are uniforms, or TopK."""
    if len(case.masks):
        return np.stack([rand_k(*pair) for pair in zip(x, case.masks[t], strict=True)])
    if len(case.uniforms):
        return np.stack([qsgd(*pair, case.bits) for pair in zip(x, case.uniforms[t], strict=True)])
    return topk_each(x, case.keep)
