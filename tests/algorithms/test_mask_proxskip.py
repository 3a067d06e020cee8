"""ProxSkip on a mask: how the mask is chosen, what a mask that moves does to the control variates, what is sent.

That T1 to T3 and T5 hold on the mask is tested in ``test_theory.py``.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from problems import OUTPUTS, least_squares, matrix
from test_theory import minimiser_on

from sps_jax.algorithms import mask_proxskip, proxskip, pruned
from sps_jax.compression import Sparsifier, topk
from sps_jax.simulation.contract import check_algorithm
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.simulate import simulate

KEY = jax.random.key(4)
x64 = pytest.mark.usefixtures("x64")
SPARSITY, KEEP = 0.6, 6
"""Of the 15 weights; the bias, row 0 of a matrix, is not pruned."""


def largest(scores: np.ndarray, keep: int = KEEP) -> np.ndarray:
    """Ones at the bias and at the ``keep`` largest of the other entries."""
    mask = np.ones(scores.shape)
    order = np.argsort(-np.abs(scores[1:]).ravel(), kind="stable")
    mask[1:].ravel()[order[keep:]] = 0
    return mask


def run(quadratic, rounds, local_steps=3, evaluate_every=None, transform=None, **values):
    values = {"stepsize": 0.5 / quadratic.L, "sparsity": SPARSITY} | values
    every = rounds if evaluate_every is None else evaluate_every
    how = {"rounds": rounds, "local_steps": local_steps, "evaluate_every": every, "transform": transform}
    return simulate(mask_proxskip, quadratic.problem, values, KEY, params=quadratic.problem.init(KEY), **how)


def trajectory(quadratic, rounds, **values):
    """The masks, models and control variates of the start and after each round, as matrices; 3 local steps a round."""
    values = {"stepsize": 0.5 / quadratic.L, "sparsity": SPARSITY} | values
    method = prepare(mask_proxskip, values, np.float64, local_steps=3)
    algorithm, problem = method.algorithm(), quadratic.problem

    def shown(state):
        mask = (state.server[0] if "sparsity_rounds" in values else state.server).mask
        return mask, algorithm.model(state.server), state.memory

    def body(state, _):
        state, _ = one_round(algorithm, problem, method.schedule, state, KEY)
        return state, shown(state)

    first = start(algorithm, problem, KEY, problem.init(KEY))
    _, seen = jax.jit(lambda state: lax.scan(body, state, length=rounds))(first)
    return [np.concatenate([matrix(a)[None], matrix(rest)]) for a, rest in zip(shown(first), seen, strict=True)]


def own_score(params, gradient):
    """Twice the gradient."""
    return jax.tree.map(lambda g: 2 * g, gradient)


@x64
@pytest.mark.parametrize("score", ["weight_gradient", "step", own_score])
def test_the_mask_is_of_the_mean_scores_at_the_start(score):
    """mean |x_0 g_i|, the magnitudes of x_0 - gamma mean g_i, and of mean g_i; the model is then x_0 on the mask."""
    quadratic = least_squares()
    state, _ = run(quadratic, 1, score=score)
    x = matrix(quadratic.problem.init(KEY))
    g = quadratic.gradients(x)
    by = {"weight_gradient": np.abs(x * g).mean(0), "step": x - 0.5 / quadratic.L * g.mean(0), own_score: g.mean(0)}
    mask = largest(by[score])
    np.testing.assert_array_equal(matrix(state.server.mask), mask)
    np.testing.assert_array_equal(matrix(state.server.model), mask * x)
    assert not matrix(state.memory).any()


@x64
def test_it_converges_to_the_minimiser_on_the_mask():
    """x* on S, with h_i = grad f_i(x*) on S, and zero outside."""
    quadratic = least_squares(ridge=0.5)
    state, _ = run(quadratic, 2000)
    mask = matrix(state.server.mask)
    x_star = minimiser_on(quadratic, mask)
    np.testing.assert_allclose(matrix(state.server.model), x_star, rtol=0, atol=1e-10)
    np.testing.assert_allclose(matrix(state.memory), mask * quadratic.gradients(x_star), rtol=0, atol=1e-9)
    assert np.abs(x_star - quadratic.optimum).max() > 1e-2


@x64
def test_without_sparsity_it_is_proxskip_a_round_later():
    """Nobody moves in the first round; with full gradients the rounds after it are those of ProxSkip."""
    quadratic = least_squares()
    masked, _ = run(quadratic, 9, sparsity=0.0)
    values, how = {"stepsize": 0.5 / quadratic.L}, {"rounds": 8, "local_steps": 3, "evaluate_every": 8}
    plain, _ = simulate(proxskip, quadratic.problem, values, KEY, params=quadratic.problem.init(KEY), **how)
    np.testing.assert_allclose(matrix(masked.server.model), matrix(plain.server), rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix(masked.memory), matrix(plain.memory), rtol=0, atol=1e-12)


# --- a mask that moves -------------------------------------------------------------------------------------------


@x64
def test_control_variates_outside_the_mask_stay_what_they_were():
    """Round by round: h_i changes on the mask of the round alone, and sum h is zero, while the mask moves."""
    quadratic = least_squares()
    masks, _, memory = trajectory(quadratic, 8, every=2, score="step")
    outside = 1 - masks[:-1, None]  # of the mask of each round
    np.testing.assert_array_equal(outside * memory[1:], outside * memory[:-1])
    np.testing.assert_allclose(memory.sum(1), 0, rtol=0, atol=1e-13)
    moved = (masks[2:] != masks[1:-1]).any((1, 2))  # after the first choice
    assert moved.any() and np.abs(outside * memory[1:]).max() > 0.1


@x64
def test_the_sum_needs_the_mean_of_the_old_mask():
    """With the next mask's b instead, as in server pruning, h_i + (p/gamma) (P_S' b - x_i) have another sum."""
    quadratic = least_squares()
    masks, models, memory = trajectory(quadratic, 3, every=2, score="step")
    assert (models[2] * (1 - masks[3])).any()  # what would be lost, times p/gamma, in every h_i
    np.testing.assert_allclose(memory[3].sum(0), 0, rtol=0, atol=1e-13)


@x64
@pytest.mark.parametrize("seed", range(3))
def test_a_mask_that_moves_by_the_step_settles(seed):
    """At a fixed point of iterative hard thresholding: x* minimises f on S, and S is that of x* - gamma grad f(x*)."""
    quadratic = least_squares(seed=seed, ridge=0.5)
    state, history = run(quadratic, 3000, every=3, score="step", evaluate_every=500)
    mask = matrix(state.server.mask)
    x_star = minimiser_on(quadratic, mask)
    np.testing.assert_allclose(matrix(state.server.model), x_star, rtol=0, atol=1e-9)
    step = x_star - 0.5 / quadratic.L * quadratic.gradients(x_star).mean(0)
    np.testing.assert_array_equal(largest(step), mask)
    assert history["control_sum"].max() < 1e-12


@x64
def test_momentum_does_not_leave_the_mask():
    """Momentum of weights that have left points outside the mask: nothing of it is sent, kept or shipped."""
    quadratic = least_squares()
    state, history = run(quadratic, 9, every=2, score="step", evaluate_every=1, transform=optax.trace(0.8))
    left = matrix(state.memory[1].trace) * (1 - matrix(state.server.mask))
    assert np.abs(left).max() > 1e-3 and not (matrix(state.server.model) * (1 - matrix(state.server.mask))).any()
    np.testing.assert_array_equal(history["uplink_bits"], 4 * 64 * np.array([18, 27, 54, 63, 90, 99, 126, 135, 162]))
    assert history["control_sum"].max() < 1e-12

    method, x = mask_proxskip(stepsize=0.1, prob=0.5, sparsity=SPARSITY), quadratic.problem.init(KEY)
    seen, h = [], jax.tree.map(lambda a: a[0], state.memory[0])
    method.direction(x, h, state.server, lambda x: seen.append(x) or x, KEY)
    assert not (matrix(seen[0]) * (1 - matrix(state.server.mask))).any()  # where gradients are taken


@x64
@pytest.mark.slow
@pytest.mark.parametrize("cohort", [None, 3])
def test_the_contract_with_a_mask_that_moves(cohort):
    """And sum h, over all clients, while some of them are away when the mask moves."""
    options = {"every": 2, "score": "step"}
    assert "control variates" in check_algorithm(mask_proxskip, options)
    quadratic = least_squares(batch_size=2)
    values = options | {"stepsize": 0.3 / quadratic.L, "prob": 0.3, "sparsity": 0.7}
    run = {"rounds": 60, "evaluate_every": 20, "cohort": cohort}
    _, history = simulate(mask_proxskip, quadratic.problem, values, KEY, **run)
    assert history["control_sum"].max() < 1e-12


# --- what is sent ------------------------------------------------------------------------------------------------


@x64
def test_positions_cost_nothing_once_they_are_known():
    """4 clients and 64 bits a number: 18 scores up, then 9 numbers up and down, with their positions when they change.

    With ``every=4`` masks are chosen in rounds 0 and 4, and told in a bitmap of 18 bits; 9 indices of 5 bits are more.
    """
    quadratic = least_squares()
    _, history = run(quadratic, 8, every=4, score="step", evaluate_every=1)
    numbers = 4 * 64 * (KEEP + OUTPUTS)
    up, down = (np.diff(history[f"{link}_bits"], prepend=0) for link in ("uplink", "downlink"))
    scores = 4 * 64 * 18
    np.testing.assert_array_equal(up, [scores, *[numbers] * 3, numbers + scores, *[numbers] * 3])
    told = 4 * 18
    np.testing.assert_array_equal(down, [numbers + told, *[numbers] * 3, numbers + told, *[numbers] * 3])


@x64
def test_the_mask_may_have_a_structure_and_a_growing_sparsity():
    """Rows of 3 weights: 2 of 5 are left at the end, fewer are dropped before; the mask only shrinks."""
    quadratic = least_squares()
    masks, _, _ = trajectory(quadratic, 6, prune=Sparsifier(structure="rows"), sparsity_rounds=4)
    masks = masks[1:, 1:]  # after the first round, without the bias
    assert (masks.all(2) == masks.any(2)).all()
    kept = [int(mask.any(1).sum()) for mask in masks]
    assert kept == [max(1, round(5 * (1 - 0.6 * (1 - (1 - min(t / 4, 1)) ** 3)))) for t in range(1, 7)]
    assert (masks[1:] <= masks[:-1]).all()


def test_an_unknown_score():
    with pytest.raises(ValueError, match="unknown score 'weight': did you mean 'weight_gradient'"):
        mask_proxskip(stepsize=0.1, prob=0.5, sparsity=0.5, score="weight")


@x64
def test_pruning_the_shipped_model_again_changes_nothing():
    """``pruned`` with the same sparsity finds what is kept already."""
    quadratic = least_squares()
    state, _ = run(quadratic, 5)
    method = mask_proxskip(stepsize=0.5, prob=0.5, sparsity=SPARSITY)
    again = partial(pruned(method, topk, SPARSITY).model)(state.server)
    jax.tree.map(np.testing.assert_array_equal, again, method.model(state.server))
    assert int(jnp.count_nonzero(again["w"])) == KEEP
