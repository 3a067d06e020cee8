"""Optimisers at the server on what fedavg's clients have moved by, and signs of it."""

import numpy as np

from reference.case import Case, copies


def moved(case: Case, b: np.ndarray, steps: int) -> np.ndarray:
    """Delta_i = x_i - b after the local steps."""
    x = copies(b, case.clients)
    for _ in range(steps):
        x = x - case.gamma * case.gradients(x)
    return x - b


def fedavgm(case: Case):
    b, m = case.start, np.zeros_like(case.start)
    for steps in case.lengths:
        m = case.momentum * m + moved(case, b, steps).mean(0)
        b = b + case.server_stepsize * m
    return b, b, None


def fedadam(case: Case):
    """v begins at epsilon^2, the least that the paper allows, and nothing is corrected for it."""
    b, m = case.start, np.zeros_like(case.start)
    v = np.full_like(b, case.epsilon**2)
    for steps in case.lengths:
        d = moved(case, b, steps).mean(0)
        m = case.beta1 * m + (1 - case.beta1) * d
        v = case.beta2 * v + (1 - case.beta2) * d**2
        b = b + case.server_stepsize * m / (np.sqrt(v) + case.epsilon)
    return b, b, None


def fedyogi(case: Case):
    b, m = case.start, np.zeros_like(case.start)
    v = np.full_like(b, case.epsilon**2)
    for steps in case.lengths:
        d = moved(case, b, steps).mean(0)
        m = case.beta1 * m + (1 - case.beta1) * d
        v = v - (1 - case.beta2) * d**2 * np.sign(v - d**2)
        b = b + case.server_stepsize * m / (np.sqrt(v) + case.epsilon)
    return b, b, None


def fedsmu(case: Case):
    """beta1 = beta2 = 0: the plain signs of the updates; else the Lion optimiser, its momentum at the clients."""
    b = case.start
    m = np.zeros((case.clients, *b.shape))
    for steps in case.lengths:
        d = moved(case, b, steps)
        sent = np.sign(case.beta1 * m + (1 - case.beta1) * d)
        m = case.beta2 * m + (1 - case.beta2) * d
        b = (1 - case.server_stepsize * case.decay) * b + case.server_stepsize * sent.mean(0)
    return b, b, m
