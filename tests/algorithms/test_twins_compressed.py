"""The loops of methods that compress the message, held to what the papers prove."""

import itertools

import numpy as np
import pytest
from problems import Quadratic
from reference import METHODS
from reference.case import qsgd, rand_k
from reference.compressed import locodl_step
from twin_cases import case_of, coins_of, equal, masks_of, near, quadratic, rounds, squared

K = 3


def of_locodl(q: Quadratic, count: int) -> dict:
    """rho = chi = 1 / (1 + omega_av) = 4/5 as rand-9 of 18 has omega = 1 and omega_av = 1/4; eta is theirs of chi."""
    return {"rho": 0.8, "eta": 0.5 * 0.8 * q.L / 3, "shared": 0.25, "masks": masks_of(count)}


LIMITS = [
    ("gradskip", {"gamma": 0.25 / (1 - 0.75 * 0.75)}, lambda h: [h]),
    ("ef21", {"keep": 10, "gamma": 0.34}, lambda e: [e]),
    ("ef21_sgdm", {"keep": 10, "gamma": 0.2, "momentum": 0.5}, lambda memory: memory),
    ("scallion", {"masks": masks_of(400), "alpha": 0.5, "gamma": 0.5}, lambda own: [own]),
    ("scafcom", {"keep": 10, "gamma": 0.2, "beta": 0.5}, lambda memory: memory),
]
"""Steps times L: gradskip's is the largest of its theorem, and so is EF21's for TopK of 10 of 15 weights."""


@pytest.mark.parametrize(("name", "values", "own"), LIMITS, ids=[name for name, *_ in LIMITS])
def test_the_optimum_and_the_gradients_there(name, values, own):
    """x -> x* although the messages are compressed, and what the clients keep of f_i -> grad f_i(x*)."""
    q = quadratic()
    lengths = [2] * 400 if name in ("scallion", "scafcom") else rounds(400)
    case = case_of(q, lengths, **values | {"gamma": values["gamma"] / q.L, "coins": coins_of(lengths)})
    model, _, memory = METHODS[name](case)
    near(model, q.optimum)
    for kept in own(memory):
        near(kept, q.gradients(q.optimum))


def test_locodl_reaches_the_optimum():
    """x_i, y -> x*, u_i -> grad (f_i - g)(x*) and v -> grad g(x*), g(x) = ||x||^2 / 8."""
    q = quadratic()
    y, mean, (x, u, _, v) = METHODS["locodl"](case_of(q, rounds(400), **of_locodl(q, 400)))
    near(y, q.optimum)
    near(mean, 0)
    for all_of_them, limit in ((x, q.optimum), (u, q.gradients(q.optimum) - 0.25 * q.optimum), (v, 0.25 * q.optimum)):
        near(all_of_them, np.broadcast_to(limit, all_of_them.shape))


def test_ef21_keeps_the_promise_of_its_theorem():
    r"""f(x_T) - f* + (gamma/theta) G_T <= (1 - gamma mu)^T (the same at 0), G = mean ||e_i - grad f_i(x)||^2.

    Theorem 2 for full gradients: TopK of 10 of 15 weights contracts by 1 - 2/3, theta = 1 - sqrt(1/3), beta =
    (1/3)/theta and gamma = 1/(L + Lbar sqrt(2 beta/theta)) <= theta/(2 mu), with L and mu of f, Lbar^2 = mean L_i^2.
    """
    q = quadratic()
    own, common = np.linalg.eigvalsh(q.H), np.linalg.eigvalsh(q.H.mean(0))
    theta = 1 - np.sqrt(1 / 3)
    gamma = 1 / (common.max() + np.sqrt((own.max(1) ** 2).mean()) * np.sqrt(2 / 3) / theta)
    assert gamma <= theta / (2 * common.min())
    values = []
    for T in range(40):
        case = case_of(q, [1] * T, keep=10, gamma=gamma)
        x, e = METHODS["ef21"](case)[0], METHODS["ef21"](case._replace(lengths=[1] * (T + 1)))[2]
        gap = ((x - q.optimum) * (q.H.mean(0) @ (x - q.optimum))).sum() / 2
        values.append(gap + gamma / theta * squared(e - q.gradients(x)) / 4)
    assert (np.array(values) <= (1 - gamma * common.min()) ** np.arange(40) * values[0] * (1 + 1e-12)).all()


def test_ef21_of_whole_messages_is_gradient_descent():
    case = case_of(quadratic(), [2, 1, 3])
    equal(METHODS["ef21"](case)[0], METHODS["gd"](case)[0])


@pytest.mark.parametrize("first", ["gradient", "zero"])
def test_ef21_with_momentum_one_is_ef21(first):
    case = case_of(quadratic(), [1] * 20, keep=4, gamma=0.1, momentum=1.0)
    model, _, (v, e) = METHODS["ef21_sgdm"](case, first=first)
    equal(model, METHODS["ef21"](case)[0])
    equal(e, METHODS["ef21"](case)[2])
    last = METHODS["ef21"](case._replace(lengths=[1] * 19))[0]
    equal(v, quadratic().gradients(last))


@pytest.mark.parametrize("name", ["ef21", "ef21_sgdm"])
def test_the_server_needs_only_the_mean_of_the_states(name):
    """x_T - x_(T+1) = gamma mean e_i."""
    case = case_of(quadratic(), [1] * 6, keep=4, gamma=0.1, momentum=0.3)
    after, before = METHODS[name](case), METHODS[name](case._replace(lengths=[1] * 5))
    e = after[2] if name == "ef21" else after[2][1]
    equal(before[0] - after[0], 0.1 * e.mean(0))


def test_scallion_of_whole_messages_is_scaffold():
    case = case_of(quadratic(), rounds(10), gamma=0.1, alpha=1.0)
    for mine, theirs in zip(METHODS["scallion"](case), METHODS["scaffold"](case), strict=True):
        equal(mine, theirs)
    (own, v), theirs = METHODS["scafcom"](case._replace(beta=1.0))[2], METHODS["scaffold"](case)[2]
    equal(own, theirs)
    equal(v, theirs)


def test_scafcom_with_one_local_step_is_ef21_with_momentum():
    """v_i, c_i = e_i and the step server_stepsize gamma, from zeros; the local control variates drop out."""
    case = case_of(quadratic(), [1] * 12, keep=4, gamma=0.2, server_stepsize=0.5, beta=0.3)
    model, _, (own, v) = METHODS["scafcom"](case)
    other, _, (momentum, e) = METHODS["ef21_sgdm"](case._replace(gamma=0.1, momentum=0.3), first="zero")
    for mine, theirs in ((model, other), (own, e), (v, momentum)):
        equal(mine, theirs)


@pytest.mark.parametrize("name", ["scallion", "scafcom"])
def test_the_server_follows_the_mean_of_the_control_variates(name):
    """x_T - x_(T+1) = server_stepsize gamma k mean c_i, the new ones, for x moves by mean of the message plus c = mean
    c_i, the old ones: any compression changes it in step with the clients."""
    case = case_of(quadratic(), [K] * 6, gamma=0.1, server_stepsize=0.7, alpha=0.3, beta=0.3, keep=4)
    case = case._replace(masks=masks_of(6)) if name == "scallion" else case
    after, before = METHODS[name](case), METHODS[name](case._replace(lengths=[K] * 5))
    own = after[2] if name == "scallion" else after[2][0]
    equal(before[0] - after[0], 0.7 * 0.1 * K * own.mean(0))


def test_locodl_of_whole_messages_is_proxskip_of_twice_the_clients():
    """rho = 1, eta = p/gamma: n clients have f_i - g, and y is n clients that have g."""
    q, shared = quadratic(), 0.25
    case = case_of(q, rounds(20), gamma=0.3, eta=0.5 / 0.3, shared=shared)
    twice = lambda x: np.concatenate([q.gradients(x[:4]) - shared * x[:4], shared * x[4:]])  # noqa: E731
    y, _, (x, u, _, v) = METHODS["locodl"](case)
    b, _, h = METHODS["proxskip"](case._replace(gradients=twice, clients=8))
    equal(y, b)
    equal(x, np.stack([b] * 4))
    equal(u, h[:4])
    equal(v, h[4:])


def test_locodl_keeps_mean_u_plus_v_at_zero():
    _, _, (x, u, y, v) = METHODS["locodl"](case_of(quadratic(), rounds(7), **of_locodl(quadratic(), 7)))
    equal(u.mean(0) + v[0], 0)
    assert np.abs(v).max() > 0.1 and np.abs(x - y).max() > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_locodl_keeps_the_promise_of_its_theorem(seed):
    r"""E Psi(after) <= max((1 - gamma mu)^2, (gamma L - 1)^2, 1 - p^2 chi/(1 + 2 omega)) Psi, over coin and masks, with

    Psi = (1/gamma) (sum ||x_i - x*||^2 + n ||y - x*||^2)
        + gamma (1 + 2 omega)/(p^2 chi) (sum ||u_i - u*_i||^2 + n ||v - v*||^2),

    2 rho - rho^2 (1 + omega_av) - chi >= 0 and eta = p chi/(gamma (1 + 2 omega)). Here n = 2, rand-1 of 3: omega = 2,
    omega_av = 1, rho = chi = 1/2.
    """
    q, p, chi, omega, shared = quadratic(2, 3, 1), 0.6, 0.5, 2.0, 0.25
    L, mu = q.L - shared, shared  # of all f_i - g, and of g
    gamma = 1 / L
    case = case_of(q, [], p=p, gamma=gamma, shared=shared, rho=0.5, eta=p * chi / (gamma * (1 + 2 * omega)))
    one_of_three = np.eye(3)[:, :, None]
    case = case._replace(masks=[np.stack(pair) for pair in itertools.product(one_of_three, repeat=2)])
    generator, best = np.random.default_rng(seed), q.gradients(q.optimum) - shared * q.optimum
    x, u = generator.normal(size=(2, *q.c.shape))
    y, v = generator.normal(size=q.optimum.shape), -u.mean(0)

    def psi(x, y, u, v, _=None):
        primal = squared(x - q.optimum) + 2 * squared(y - q.optimum)
        dual = squared(u - best) + 2 * squared(v - shared * q.optimum)
        return primal / gamma + gamma * (1 + 2 * omega) / (p**2 * chi) * dual

    talk = np.mean([psi(*locodl_step(case, x, y, u, v, t)) for t in range(9)])
    after = p * talk + (1 - p) * psi(*locodl_step(case, x, y, u, v, None))
    rate = max((1 - gamma * mu) ** 2, (gamma * L - 1) ** 2, 1 - p**2 * chi / (1 + 2 * omega))
    assert after <= rate * psi(x, y, u, v)


def test_rand_k_is_unbiased_with_variance_omega():
    """Mean over all masks x, mean squared error (d/K - 1) ||x||^2; here 2 of 4."""
    x = np.array([[3.0, -1.0], [2.0, 0.5]])
    sent = [rand_k(x, np.isin(np.arange(4), kept).reshape(2, 2)) for kept in itertools.combinations(range(4), 2)]
    equal(np.mean(sent, axis=0), x)
    equal(np.mean([squared(c - x) for c in sent]), squared(x))


def test_the_quantiser_is_unbiased():
    """Mean over N uniforms at the midpoints of a grid: at most norm/(2 s N) off, s = 3; levels are norm/s apart."""
    x, N = np.array([[3.0, -4.0], [0.0, 12.0]]), 1000
    sent = [qsgd(x, np.full((2, 2), (j + 0.5) / N), bits=2) for j in range(N)]
    np.testing.assert_allclose(np.mean(sent, axis=0), x, rtol=0, atol=13 / (2 * 3 * N) + 1e-12)
    levels = np.array(sent) * 3 / 13
    equal(levels, np.round(levels))
