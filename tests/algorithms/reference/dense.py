"""Methods whose messages are dense."""

import numpy as np

from reference.case import Case, copies


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


def gradskip_step(case: Case, x: np.ndarray, h: np.ndarray, coins: np.ndarray, communicate: bool):
    """An iteration of Algorithm 1: where the coin is 0 the shift becomes the gradient, and x stands still."""
    g = case.gradients(x)
    h = np.where(np.asarray(coins)[:, None, None], h, g)
    y = x - case.gamma * (g - h)
    x = copies((y - case.gamma / case.p * h).mean(0), case.clients) if communicate else y
    return x, h + case.p / case.gamma * (x - y)


def gradskip(case: Case):
    x = copies(case.start, case.clients)
    h = np.zeros_like(x)
    coins = iter(case.coins)
    for steps in case.lengths:
        for j in range(steps):
            x, h = gradskip_step(case, x, h, next(coins), j == steps - 1)
    return x[0], x[0], h


def scafflix(case: Case):
    """alpha b + (1 - alpha) own is a client's personal model; b is the one that is shipped.

    Without ``own`` each client descends to its own optimum beside, a step before each local step; the memory is then
    (h, own).
    """
    b, n = case.start, case.clients
    h, own = np.zeros((n, *b.shape)), copies(b, n) if case.own is None else case.own
    alpha, gamma = (np.broadcast_to(v, n)[:, None, None] for v in (case.alpha, case.gamma))
    weight = alpha**2 / gamma
    for steps in case.lengths:
        x = copies(b, n)
        for _ in range(steps):
            if case.own is None:
                own = own - gamma * case.gradients(own)
            x = x - gamma / alpha * (case.gradients(alpha * x + (1 - alpha) * own) - h)
        b = (weight * x).sum(0) / weight.sum(0)
        h = h + case.p * alpha / gamma * (b - x)
    return b, b, (h, own) if case.own is None else h
