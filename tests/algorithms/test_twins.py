"""What the papers prove, or what follows by hand, of the loops in ``reference``, so that these can judge the methods.

Methods with dense messages and optimisers at the server; in NumPy alone, as in the other files of this name.
"""

import itertools

import numpy as np
import pytest
from problems import Quadratic
from reference import METHODS, Case
from reference.dense import gradskip_step
from twin_cases import case_of, coins_of, equal, near, personal, quadratic, rounds, squared


@pytest.mark.parametrize("probabilities", [(1.0, 1.0, 1.0), (0.9, 0.5, 0.2)])
def test_gradskip_contracts_by_an_equality(probabilities):
    r"""With w_i = x_i - gamma grad f_i(x_i), w*_i = x* - gamma h*_i, h*_i = grad f_i(x*), from any (x, h),

    E Psi(after) = sum ||w_i - w*_i||^2
        + (1 - p^2) (gamma/p)^2 sum (q_i ||h_i - h*_i||^2 + (1 - q_i) ||grad f_i(x_i) - h*_i||^2),

    over the common coin and the clients' own. For with the shifts s_i and y_i = w_i + gamma s_i communication projects
    z_i = y_i - (gamma/p) s_i on its mean, and h_i = -(p/gamma) (z_i - mean z): Psi is sum ||z_i - z*_i||^2 then; the
    cross terms of both cases cancel as in ProxSkip's proof. Theorem 3.5 follows. At q_i = 1 it is ProxSkip's.
    """
    q, p, generator = quadratic(clients=3), 0.4, np.random.default_rng(5)
    case = case_of(q, [], p=p, gamma=1.5 / q.L)
    x, h = generator.normal(size=(2, *q.c.shape))
    best, ratio, g = q.gradients(q.optimum), (case.gamma / p) ** 2, q.gradients(x)
    mean = 0.0
    for *coins, communicate in itertools.product([True, False], repeat=4):
        after = gradskip_step(case, x, h, np.array(coins), communicate)
        chance = np.prod(np.where(coins, probabilities, 1 - np.array(probabilities))) * (p if communicate else 1 - p)
        mean += chance * (squared(after[0] - q.optimum) + ratio * squared(after[1] - best))
    shifts = sum(c * squared(h[i] - best[i]) + (1 - c) * squared(g[i] - best[i]) for i, c in enumerate(probabilities))
    expected = squared(x - q.optimum - case.gamma * (g - best)) + (1 - p**2) * ratio * shifts
    np.testing.assert_allclose(mean, expected, rtol=1e-12)


def test_gradskip_without_skipping_is_proxskip():
    lengths = rounds(20)
    case = case_of(quadratic(), lengths, coins=coins_of(lengths, q=1))
    for mine, theirs in zip(METHODS["gradskip"](case), METHODS["proxskip"](case), strict=True):
        equal(mine, theirs)


def test_a_client_of_gradskip_that_stopped_stands_still():
    """Until the next communication, whatever its coins: h_i = grad f_i(x_i) from then on."""
    q, generator = quadratic(), np.random.default_rng(6)
    case = case_of(q, [])
    x, h = generator.normal(size=(2, *q.c.shape))
    stopped = gradskip_step(case, x, h, np.zeros(4), False)
    equal(stopped[0], x)
    equal(stopped[1], q.gradients(x))
    for mine, theirs in zip(gradskip_step(case, *stopped, np.ones(4), False), stopped, strict=True):
        equal(mine, theirs)


def test_scafflix_of_the_common_model_is_proxskip():
    case = case_of(quadratic(), rounds(20), alpha=1.0, own=personal(quadratic()))
    for mine, theirs in zip(METHODS["scafflix"](case), METHODS["proxskip"](case), strict=True):
        equal(mine, theirs)


def test_scafflix_is_proxskip_on_the_personal_objectives():
    """Equal alpha and steps: proxskip on x -> f_i(alpha x + (1 - alpha) own_i), step gamma / alpha^2, with alpha h."""
    q, alpha = quadratic(), 0.3
    case = case_of(q, rounds(20), alpha=alpha, own=personal(q))
    gradients = lambda x: alpha * q.gradients(alpha * x + (1 - alpha) * personal(q))  # noqa: E731
    b, _, h = METHODS["scafflix"](case)
    model, _, variates = METHODS["proxskip"](case._replace(gradients=gradients, gamma=case.gamma / alpha**2))
    equal(b, model)
    equal(alpha * h, variates)


def test_scafflix_with_steps_and_weights_of_each_client():
    """sum alpha_i h_i = 0, not sum h_i; the limit has sum alpha_i^2 (H_i x - c_i) = 0, as H_i own_i = c_i."""
    q, alpha = quadratic(), np.linspace(0.3, 1, 4)
    steps = 1 / np.linalg.eigvalsh(q.H).max(1)
    case = case_of(q, rounds(200), alpha=alpha, gamma=steps, own=personal(q))
    h = METHODS["scafflix"](case._replace(lengths=case.lengths[:5]))[2]
    equal(np.einsum("i,ifc->fc", alpha, h), 0)
    assert np.abs(h.sum(0)).max() > 0.1
    limit = np.linalg.solve(np.einsum("i,ifg->fg", alpha**2, q.H), np.einsum("i,ifc->fc", alpha**2, q.c))
    b, _, h = METHODS["scafflix"](case)
    near(b, limit)
    near(h, alpha[:, None, None] * (q.H @ limit - q.c))
    together, _, (_, own) = METHODS["scafflix"](case._replace(own=None))
    near(own, personal(q))
    near(together, limit)


K = 3


def where_fedavg_stops(q: Quadratic, gamma: float) -> np.ndarray:
    """b = mean x_i with x_i = A_i b + (I - A_i) own_i, A_i = (I - gamma H_i)^K."""
    decay = np.linalg.matrix_power(np.eye(6) - gamma * q.H, K)
    return np.linalg.solve(np.eye(6) - decay.mean(0), (personal(q) - decay @ personal(q)).mean(0))


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi"])
def test_optimisers_at_the_server_stop_where_fedavg_does(name):
    """mean Delta_i = 0 there. The second moments are small beside epsilon = 1000: momentum at steps of 1/2 to 1."""
    q = quadratic()
    case = case_of(q, [K] * 150, gamma=0.5 / q.L, momentum=0.5, server_stepsize=0.5)
    if name != "fedavgm":
        case = case._replace(beta1=0.5, beta2=0.5, epsilon=1000.0, server_stepsize=1000.0)
    stop = where_fedavg_stops(q, case.gamma)
    near(METHODS[name](case)[0], stop)
    near(METHODS[name](case._replace(start=stop, lengths=[K] * 3))[0], stop)
    assert np.abs(stop - q.optimum).max() > 0.01


def test_fedavgm_without_momentum_is_fedavg_and_with_it_a_heavy_ball():
    """x_3 - x_2 = beta (x_2 - x_1) + server_stepsize Delta(x_2), with no factor 1 - beta."""
    case = case_of(quadratic(), [K] * 3, gamma=0.2, momentum=0.0)
    equal(METHODS["fedavgm"](case)[0], METHODS["fedavg"](case)[0])
    case = case._replace(momentum=0.9, server_stepsize=0.3)
    first, second, third = (METHODS["fedavgm"](case._replace(lengths=[K] * t))[0] for t in (1, 2, 3))
    delta = METHODS["fedavg"](case._replace(start=second, lengths=[K]))[0] - second
    equal(third - second, 0.9 * (second - first) + 0.3 * delta)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_second_moments_by_hand(name):
    """f(x) = x^2/2 from 4, one local step of 1/2, so Delta = -x/2; beta1 = 1/2, beta2 = 1/4, epsilon = 1, step 3.

    Round 1: Delta = -2, m = -1, and v from epsilon^2 = 1: Adam's is 1/4 + 3/4 * 4 = 13/4, Yogi's 1 + 3/4 * 4 = 4, so
    that x = 4 - 3/(1 + sqrt v), which is 3 for Yogi. Round 2 for Yogi: Delta = -3/2, m = -5/4 and v falls, being above
    9/4, by 3/4 * 9/4.
    """
    case = Case(lambda x: x, 1, np.array([[4.0]]), [1], gamma=0.5, p=1.0, keep=1)
    case = case._replace(server_stepsize=3.0, beta1=0.5, beta2=0.25, epsilon=1.0)
    v = {"fedadam": 13 / 4, "fedyogi": 4.0}[name]
    equal(METHODS[name](case)[0], 4 - 3 / (1 + np.sqrt(v)))
    if name == "fedyogi":
        equal(METHODS[name](case._replace(lengths=[1, 1]))[0], 3 - 3 * 1.25 / (1 + np.sqrt(4 - 27 / 16)))


def test_fedsmu_hears_directions_only():
    """With one local step the clients' objectives may be scaled as one likes; no entry moves by more than the step."""
    q, scales = quadratic(), np.array([1.0, 10.0, 0.1, 3.0])[:, None, None]
    case = case_of(q, [1] * 9, server_stepsize=0.1)
    model = METHODS["fedsmu"](case)[0]
    equal(METHODS["fedsmu"](case._replace(gradients=lambda x: scales * q.gradients(x)))[0], model)
    before = METHODS["fedsmu"](case._replace(lengths=[1] * 8))[0]
    moves = np.abs(model - before) / 0.1
    assert moves.max() <= 1 + 1e-12
    equal(moves * 4, np.round(moves * 4))


def test_fedsmu_goes_to_the_median():
    """f_i = ||x - a_i||^2/2 of three clients: the signs are of a_i - x, whose mean, a third at least, leads there."""
    a = np.array([-5.0, 0.25, 1.0])[:, None, None] * np.ones((3, 1, 2))
    case = Case(lambda x: x - a, 3, np.array([[4.0, -6.0]]), [2] * 400, gamma=0.5, p=0.5, keep=1, server_stepsize=0.1)
    assert np.abs(METHODS["fedsmu"](case)[0] - 0.25).max() <= 0.1 / 3 + 1e-12


def test_fedsmu_with_momentum_by_hand():
    """f(x) = x^2/2 from 1/2, one local step of 1/2, beta1 = 0.8, beta2 = 1/4, step 1, decay 0.1.

    Round 1: d = -1/4, the sign is -1, m = -3/16 and x = 0.45 - 1 = -0.55. Round 2: d = 0.275, but 0.8 m + 0.2 d =
    -0.095: the sign stays, m = -3/64 + 0.20625 and x = -0.495 - 1.
    """
    case = Case(lambda x: x, 1, np.array([[0.5]]), [1, 1], gamma=0.5, p=1.0, keep=1)
    model, _, m = METHODS["fedsmu"](case._replace(beta1=0.8, beta2=0.25, decay=0.1))
    equal(model, -1.495)
    equal(m, 0.159375)
