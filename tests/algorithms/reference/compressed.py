"""Methods that compress the message and keep the model dense."""

import numpy as np

from reference.case import Case, compressed, copies, topk_each


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


def ef21(case: Case):
    b = case.start
    e = np.zeros((case.clients, *b.shape))
    for _ in range(sum(case.lengths)):
        e = e + topk_each(case.gradients(copies(b, case.clients)) - e, case.keep)
        b = b - case.gamma * e.mean(0)
    return b, b, e


def ef21_sgdm(case: Case, first="gradient"):
    """v begins at the gradients at the start, as in the paper, or at "zero"; the memory is (v, e)."""
    b, eta = case.start, case.momentum
    e = np.zeros((case.clients, *b.shape))
    v = case.gradients(copies(b, case.clients)) if first == "gradient" else np.zeros_like(e)
    for _ in range(sum(case.lengths)):
        v = (1 - eta) * v + eta * case.gradients(copies(b, case.clients))
        e = e + topk_each(v - e, case.keep)
        b = b - case.gamma * e.mean(0)
    return b, b, (v, e)


def scallion(case: Case):
    b, c = case.start, np.zeros_like(case.start)
    own = np.zeros((case.clients, *b.shape))
    for t, steps in enumerate(case.lengths):
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - own + c)
        sent = compressed(case, case.alpha * ((b - x) / (steps * case.gamma) - c), t)
        own = own + sent
        b = b - case.server_stepsize * case.gamma * steps * (sent.mean(0) + c)
        c = c + sent.mean(0)
    return b, b, own


def scafcom(case: Case):
    """The memory is (c_i, v_i)."""
    b, c = case.start, np.zeros_like(case.start)
    own, v = np.zeros((2, case.clients, *b.shape))
    for t, steps in enumerate(case.lengths):
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(x) - own + c)
        v = (1 - case.beta) * v + case.beta * ((b - x) / (steps * case.gamma) + own - c)
        sent = compressed(case, v - own, t)
        own = own + sent
        b = b - case.server_stepsize * case.gamma * steps * (sent.mean(0) + c)
        c = c + sent.mean(0)
    return b, b, (own, v)


def locodl_step(case: Case, x, y, u, v, t: int | None):
    """An iteration of Algorithm 1, with communication t, or without one: x_i, y, u_i, v and what is broadcast."""
    x = x - case.gamma * (case.gradients(x) - case.shared * x) + case.gamma * u
    y = y - case.gamma * case.shared * y + case.gamma * v
    if t is None:
        return x, y, u, v, None
    d = compressed(case, x - y, t)
    mean = d.sum(0) / (2 * case.clients)
    x = (1 - case.rho) * x + case.rho * (y + mean)
    return x, y + case.rho * mean, u + case.eta * (mean - d), v + case.eta * mean, mean


def locodl(case: Case):
    """The model is y, which all clients know; the memory is (x_i, u_i, y, v)."""
    n, y, v = case.clients, case.start, np.zeros_like(case.start)
    x, u, mean = copies(y, n), copies(v, n), None
    for t, steps in enumerate(case.lengths):
        for j in range(steps):
            x, y, u, v, mean = locodl_step(case, x, y, u, v, t if j == steps - 1 else None)
    return y, mean, (x, u, copies(y, n), copies(v, n))
