"""Quadratics with eigenvalues in [0.5, 2], and draws, to try the loops of ``reference`` on."""

from functools import cache, partial

import numpy as np
from problems import Quadratic
from reference import Case

ALL = 15
"""Weights; with the 3 entries of the bias there are 18 numbers."""
equal = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
near = partial(np.testing.assert_allclose, rtol=0, atol=1e-9)


@cache
def quadratic(clients=4, features=6, outputs=3, seed=0) -> Quadratic:
    generator = np.random.default_rng(seed)
    bases = np.linalg.qr(generator.normal(size=(clients, features, features)))[0]
    H = bases * generator.uniform(0.5, 2, (clients, 1, features)) @ bases.swapaxes(1, 2)
    return Quadratic(None, H, 3 * generator.normal(size=(clients, features, outputs)))


def personal(q: Quadratic) -> np.ndarray:
    """The clients' own optima."""
    return np.linalg.solve(q.H, q.c)


def case_of(q: Quadratic, lengths, **values) -> Case:
    start = np.random.default_rng(1).normal(size=q.c.shape[1:])
    return Case(q.gradients, len(q.H), start, lengths, **{"gamma": 1 / q.L, "p": 0.5, "keep": ALL} | values)


def rounds(count: int, p=0.5) -> list[int]:
    """Numbers of local steps by the coin."""
    return np.random.default_rng(2).geometric(p, count).tolist()


def coins_of(lengths, q=0.75) -> np.ndarray:
    """Of gradskip."""
    return np.random.default_rng(3).random((sum(lengths), 4)) < q


def masks_of(count: int, keep=9) -> np.ndarray:
    """Of rand-k: which ``keep`` of the 18 numbers each of 4 clients sends."""
    ranks = np.tile(np.arange(18), (count, 4, 1))
    return (np.random.default_rng(4).permuted(ranks, axis=2) < keep).reshape(count, 4, 6, 3)


def squared(x: np.ndarray) -> float:
    return float((x**2).sum())
