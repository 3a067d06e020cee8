"""Methods that prune the model."""

import numpy as np

from reference.case import Case, copies, mask_of, topk, topk_each


def sparse_proxskip(case: Case, error_feedback="none"):
    """With error feedback the memory is (h, e).

    ef14: TopK(x + e) is sent, and e is what was not. ef21: TopK(x - e) is sent, and e, which the server follows, is
    averaged in place of x. Either way h learns from the vectors that were averaged.
    """
    b = case.start
    h, e = np.zeros((2, case.clients, *b.shape))
    for steps in case.lengths:
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * (case.gradients(topk_each(x, case.keep)) - h)
        if error_feedback == "ef14":
            sent = topk_each(x + e, case.keep)
            e = x + e - sent
        elif error_feedback == "ef21":
            sent = e = e + topk_each(x - e, case.keep)
        else:
            sent = topk_each(x, case.keep)
        b = sent.mean(0)
        h = h + case.p / case.gamma * (b - sent)
    return topk(b, case.keep), b, h if error_feedback == "none" else (h, e)


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


SCORES = {
    "weight_gradient": lambda w, g, gamma: np.abs(w * g).mean(0),
    "gradient": lambda w, g, gamma: np.abs(g).mean(0),
    "step": lambda w, g, gamma: np.abs((w - gamma * g).mean(0)),
}
"""Of the clients' weights w and gradients g there."""


def mask_proxskip(case: Case, every=None, score="weight_gradient", forget=False):
    """The mask is chosen at the start, before any step, and after every ``every`` rounds anew, from the clients' x_i.

    h of a weight that leaves the mask waits there, or becomes 0 if ``forget``.
    """

    def best(x):
        return mask_of(SCORES[score](x, case.gradients(x), case.gamma), np.ones_like(case.start), case.keep)

    mask = best(copies(case.start, case.clients)) if case.mask is None else case.mask
    b = mask * case.start
    h = np.zeros((case.clients, *b.shape))
    for r, steps in enumerate(case.lengths, start=1):
        x = copies(b, case.clients)
        for _ in range(steps):
            x = x - case.gamma * mask * (case.gradients(x) - h)
        b = x.mean(0)
        h = h + case.p / case.gamma * (b - x)
        if every and r % every == 0:
            mask = best(x)
            b, h = mask * b, mask * h if forget else h
    return b, b, h


def powered(t: np.ndarray, power: float) -> np.ndarray:
    """w = sign(t) |t|^power of the weights, rows 1 and on."""
    weights = t[..., 1:, :]
    return np.concatenate([t[..., :1, :], np.sign(weights) * np.abs(weights) ** power], axis=-2)


def powerpropagation(case: Case, power=2.0, method=sparse_proxskip):
    """``method`` on t -> f_i(w(t)) from the t with w(t) the start; broadcast and memory are of t, the model is w."""

    def gradients(t):
        g = case.gradients(powered(t, power))
        return np.concatenate([g[:, :1], power * np.abs(t[:, 1:]) ** (power - 1) * g[:, 1:]], axis=1)

    model, b, memory = method(case._replace(gradients=gradients, start=powered(case.start, 1 / power)))
    return powered(model, power), b, memory
