"""The loops of methods that prune the model, and sums of control variates, held to what follows by hand."""

from functools import partial

import numpy as np
import pytest
from reference import METHODS, Case
from reference.pruned import powerpropagation
from twin_cases import case_of, coins_of, equal, near, quadratic, rounds


def sparse(option: str, case: Case):
    """The model, the broadcast and h of sparse_proxskip with error feedback."""
    model, b, (h, _) = METHODS["sparse_proxskip"](case, error_feedback=option)
    return model, b, h


ZERO_SUMS = {
    "gradskip": METHODS["gradskip"],
    "ef14": partial(sparse, "ef14"),
    "ef21": partial(sparse, "ef21"),
    "powerpropagation": powerpropagation,
    "mask": METHODS["mask_proxskip"],
    "moving": partial(METHODS["mask_proxskip"], every=2, score="gradient"),
    "waiting": partial(METHODS["mask_proxskip"], every=2, score="gradient", forget=False),
}


@pytest.mark.parametrize("name", ZERO_SUMS)
def test_control_variates_sum_to_zero(name):
    lengths = rounds(7)
    memory = ZERO_SUMS[name](case_of(quadratic(), lengths, keep=5, gamma=0.1, coins=coins_of(lengths)))[2]
    assert np.abs(memory).max() > 0.1
    equal(memory.sum(0), 0)


@pytest.mark.parametrize("option", ["ef14", "ef21"])
def test_error_feedback_of_whole_messages_is_proxskip(option):
    case = case_of(quadratic(), rounds(10))
    for mine, theirs in zip(sparse(option, case), METHODS["proxskip"](case), strict=True):
        equal(mine, theirs)


@pytest.mark.parametrize(
    ("option", "sent", "kept"),
    [
        ("none", [[7, 1.5, 0], [7, 1, 0], [7, 0.5, 0]], None),
        ("ef14", [[7, 1.5, 0], [7, 0, 1.5], [7, 0, 1.5]], [0, 0.5, 0]),
        ("ef21", [[7, 1.5, 0], [7, 1, 0], [7, 0.5, 0]], [7, 0.5, 0]),
    ],
)
def test_error_feedback_by_hand(option, sent, kept):
    """One client, TopK of 1 of 2 weights, the bias 7 is sent whole; each step lowers the first weight by 1/2.

    From (2, 1.5), ef14: x = (1.5, 1.5), the first is sent, e = (0, 1.5); x = (1, 0), x + e = (1, 1.5), the second is
    sent, e = (1, 0); x = (-0.5, 1.5), x + e = (0.5, 1.5), the second is sent, e = (0.5, 0). ef21: e = (1.5, 0), then
    x = (1, 0) and e changes by (-0.5, 0), and so on.
    """
    slope = np.array([[0.0], [1.0], [0.0]])
    case = Case(lambda x: 0 * x + slope, 1, np.array([[7.0], [2.0], [1.5]]), [], gamma=0.5, p=1.0, keep=1)
    for t, expected in enumerate(sent, start=1):
        _, b, memory = METHODS["sparse_proxskip"](case._replace(lengths=[1] * t), error_feedback=option)
        equal(b.ravel(), expected)
    if kept is not None:
        equal(memory[1].ravel(), kept)


def test_powerpropagation_of_power_one_changes_nothing():
    case = case_of(quadratic(), rounds(10), keep=5)
    for mine, theirs in zip(powerpropagation(case, 1.0), METHODS["sparse_proxskip"](case), strict=True):
        equal(mine, theirs)


def test_powerpropagation_descends_in_t():
    """Gradients are those of t -> f_i(w(t)), by central differences, and w(t) is the start; the bias is as it was."""
    q, seen = quadratic(), []
    case = case_of(q, [])
    model = powerpropagation(case, 1.5, lambda inner: (seen.append(inner) or inner.start, None, None))[0]
    equal(model, case.start)
    t, width = seen[0].start, 1e-6
    equal(t[0], case.start[0])

    def values(t):
        w = np.concatenate([t[:1], np.sign(t[1:]) * np.abs(t[1:]) ** 1.5])
        return ((q.H @ w) * w / 2 - q.c * w).sum((1, 2))

    for j in range(t.size):
        step = (width * (np.arange(t.size) == j)).reshape(t.shape)
        slopes = (values(t + step) - values(t - step)) / (2 * width)
        np.testing.assert_allclose(seen[0].gradients(np.stack([t] * 4)).reshape(4, -1)[:, j], slopes, atol=1e-6)


def test_powerpropagation_rests_at_the_optimum():
    """p = 1 and nothing is pruned: gradient descent in t, and w'(t) grad f = 0. Stable: w'(t)^2 L <= 4 max |x*| L."""
    q = quadratic()
    case = case_of(q, [1] * 9, p=1.0, gamma=1 / (4 * np.abs(q.optimum).max() * q.L))._replace(start=q.optimum)
    near(powerpropagation(case)[0], q.optimum)


def test_the_mask_is_of_the_mean_of_absolute_scores():
    """Gradients (1, -3) and (1, 3) at w = (2, 1): mean |g w| = (2, 3), though |mean g w| = (2, 0).

    And |mean (w - 0.1 g)| = (1.9, 1).
    """
    slopes = np.array([[0.0, 1.0, -3.0], [0.0, 1.0, 3.0]])[:, :, None]
    case = Case(lambda x: 0 * x + slopes, 2, np.array([[5.0], [2.0], [1.0]]), [1], gamma=0.1, p=1.0, keep=1)
    equal(METHODS["mask_proxskip"](case)[0].ravel(), [5, 0, 1])
    equal(METHODS["mask_proxskip"](case, score="step")[0].ravel(), [5, 1.9, 0])


def test_mask_proxskip_reaches_the_optimum_of_its_subspace():
    """Each column of x* solves the equations of its own rows; h_i -> the mask times grad f_i(x*)."""
    q = quadratic()
    case = case_of(q, rounds(200), keep=5)
    model, _, h = METHODS["mask_proxskip"](case)
    score = np.abs(case.start * q.gradients(case.start)).mean(0)
    mask = (score >= np.sort(score[1:].ravel())[-5]) | (np.arange(6) == 0)[:, None]
    assert mask.sum() == 3 + 5
    limit = np.zeros((6, 3))
    for j, rows in enumerate(mask.T):
        limit[rows, j] = np.linalg.solve(q.H.mean(0)[rows][:, rows], q.c.mean(0)[rows, j])
    near(model, limit)
    near(h, mask * q.gradients(limit))
    assert (model[~mask] == 0).all()


def test_a_mask_by_weight_times_gradient_never_moves():
    """What is off the mask is 0, and so is its score: choosing anew is choosing the same."""
    case = case_of(quadratic(), rounds(12), keep=5)
    moving = METHODS["mask_proxskip"](case, every=3)
    for mine, theirs in zip(moving, METHODS["mask_proxskip"](case), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("forget", [True, False])
def test_a_mask_by_gradients_moves(forget):
    """The largest gradients are not where they were at the start. K weights remain; h of those that left is 0 if it is
    forgotten, else not."""
    case = case_of(quadratic(), rounds(13), keep=5)
    still = METHODS["mask_proxskip"](case, score="gradient")
    model, _, h = METHODS["mask_proxskip"](case, score="gradient", every=12, forget=forget)
    assert (model != 0).sum() == (still[0] != 0).sum() == 3 + 5
    assert ((model != 0) != (still[0] != 0)).any()
    assert (h[:, model == 0] == 0).all() == forget
    equal(h.sum(0), 0)
