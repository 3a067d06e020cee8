"""LoCoDL: the equality from which its theorem follows, its rate, what it is equal to; and rand-k."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import FEATURES, least_squares, matrix

from sps_jax.algorithms import RoundInfo, locodl
from sps_jax.algorithms.locodl import LoCoDLMemory, LoCoDLState
from sps_jax.compression.rand_k import rand_k
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.lost import Lost
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import iterate

KEY, N = jax.random.key(0), 4
x64 = pytest.mark.usefixtures("x64")


def squared(a):
    return float((np.asarray(a) ** 2).sum())


# --- rand-k ------------------------------------------------------------------------------------------------------


@x64
def test_rand_k_is_unbiased_and_has_the_variance_it_promises():
    """20,000 keys: K = 3 of 8 numbers times 8/3, each as often; E ||C(x) - x||^2 = (8/3 - 1) ||x||^2.

    Within five standard errors, those of the numbers from P = 3/8, that of the variance from the draws.
    """
    x = {"a": jnp.arange(1.0, 7.0).reshape(2, 3), "b": -jnp.ones(2)}
    flat, draws = np.concatenate([np.ravel(x["a"]), x["b"]]), 20_000
    drawn = jax.jit(jax.vmap(partial(rand_k, x, sparsity=5 / 8)))(jax.random.split(KEY, draws))
    drawn = np.concatenate([drawn["a"].reshape(-1, 6), drawn["b"]], axis=1)
    assert ((drawn != 0).sum(1) == 3).all()
    np.testing.assert_allclose(drawn[drawn != 0], (8 / 3 * flat * np.ones_like(drawn))[drawn != 0], rtol=1e-15)
    assert (np.abs(drawn.mean(0) - flat) < 5 * np.abs(flat) * np.sqrt(5 / 3 / draws)).all()
    error = ((drawn - flat) ** 2).sum(1)
    assert abs(error.mean() - 5 / 3 * squared(flat)) < 5 * error.std() / np.sqrt(draws)


def test_rand_k_of_everything_is_everything():
    x = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
    got = rand_k(x, KEY, 0.0)
    assert all((got[name] == x[name]).all() for name in x)


# --- the theorem -------------------------------------------------------------------------------------------------

GAMMA, P, RHO, ETA, RIDGE = 0.3, 0.4, 0.6, 0.1, 0.5


def all_messages(send, d):
    """A client's d messages of rand-1, from keys that choose each of its d numbers."""
    found = {}
    for seed in itertools.count():
        message = np.asarray(send(jax.random.key(seed)))
        found.setdefault(int(np.flatnonzero(message)[0]), message)
        if len(found) == d:
            return list(found.values())


@x64
def test_one_step_identity():
    r"""p E Psi(heads) + (1-p) Psi(tails), in the mean over all 9 pairs of rand-1 of n = 2 clients and d = 3 numbers.

    Let a_i = x_i - x* and a = y - x* after a step, delta_i = a_i - a, delta = sum delta_i / (2n), and V = sum
    ||delta_i||^2 - 2n ||delta||^2. For E d_i = delta_i, and s = E ||dbar - delta||^2 = omega sum ||delta_i||^2 /
    (4 n^2), expanding the squares gives

        E [sum ||x_i+ - x*||^2 + n ||y+ - x*||^2] = sum ||a_i||^2 + n ||a||^2 - (2 rho - rho^2) V + 2n rho^2 s
        E [sum ||u_i+ - u_i*||^2 + n ||v+ - v*||^2] = D - 2 eta (sum <u_i - u_i*, a_i> + n <v - v*, a>)
                                                     + eta^2 ((1 + omega) sum ||delta_i||^2 - 2n ||delta||^2 - 2n s)

    while sum (u_i + v) = 0. With the weight gamma / (p eta) of the second in Psi the inner products go, since a_i = w_i
    - w_i* + gamma (u_i - u_i*), w_i = x_i - gamma grad f_i(x_i) before the step; what is left is

        sum ||w_i - w_i*||^2 + n ||w - w*||^2 + (1 - gamma p eta) (gamma / (p eta)) D
        - p ((2 rho - rho^2) V - 2n rho^2 s) + gamma eta ((1 + omega) sum ||delta_i||^2 - 2n ||delta||^2 - 2n s)

    whose last line is at most zero for gamma eta (1 + 2 omega) <= p (2 rho - rho^2 (1 + omega/n)), by 2n ||delta||^2 <=
    sum ||delta_i||^2 / 2 <= V: the theorem.
    """
    n, d = 2, 3
    generator = np.random.default_rng(0)
    x, u, u_star, gradient = (generator.normal(size=(n, d)) for _ in range(4))  # gradient: of f_i + g, at x_i
    y, x_star = generator.normal(size=(2, d))
    v, v_star = -u.mean(0), RIDGE * x_star
    u_star = u_star - u_star.mean(0) - v_star
    algorithm = locodl(stepsize=GAMMA, prob=P, rho=RHO, eta=ETA, ridge=RIDGE, sparsity=2 / 3)
    before = [LoCoDLMemory(*map(jnp.asarray, (x[i], u[i], y, v))) for i in range(n)]
    iterates = []
    for i, h in enumerate(before):
        start = algorithm.start(None, h)
        g = algorithm.direction(start, h, None, lambda _, i=i: jnp.asarray(gradient[i]), None)
        iterates.append(algorithm.move(start, g))
    info = lambda key: RoundInfo(key, key, jnp.int32(0), jnp.float64(1), cohort=n, clients=n)  # noqa: E731
    send = jax.jit(lambda x, key: algorithm.send(x, None, None, None, info(key)))
    messages = [all_messages(partial(send, x), d) for x in iterates]
    weight = GAMMA / (P * ETA)

    def psi(x, y, u, v):
        primal = squared(np.asarray(x) - x_star) + n * squared(np.asarray(y) - x_star)
        return primal + weight * (squared(np.asarray(u) - u_star) + n * squared(np.asarray(v) - v_star))

    heads, first = [], LoCoDLState(jnp.asarray(y), jnp.asarray(v), None)
    for sent in itertools.product(*messages):
        server = algorithm.serve(first, jnp.asarray(np.mean(sent, 0)), info(KEY))
        after = [
            algorithm.receive(x, h, jnp.asarray(m), server.dbar, info(KEY))
            for x, h, m in zip(iterates, before, sent, strict=True)
        ]
        np.testing.assert_allclose(sum(h.u + server.v for h in after), 0, atol=1e-14)
        np.testing.assert_allclose([[*h.y, *h.v] for h in after], n * [[*server.y, *server.v]], atol=1e-14)
        heads.append(psi([h.x for h in after], server.y, [h.u for h in after], server.v))
    moved, common = np.array([x.x for x in iterates]), np.asarray(iterates[0].y)
    left = P * np.mean(heads) + (1 - P) * psi(moved, common, u, v)

    w = x - GAMMA * (gradient - RIDGE * x)
    own = squared(w - x_star + GAMMA * u_star) + n * squared((1 - GAMMA * RIDGE) * (y - x_star))
    dual = squared(u - u_star) + n * squared(v - v_star)
    delta, omega = moved - common, d - 1
    total, mean = squared(delta), squared(delta.sum(0) / (2 * n))
    V, s = total - 2 * n * mean, omega * total / (4 * n**2)
    last = -P * ((2 * RHO - RHO**2) * V - 2 * n * RHO**2 * s)
    last += GAMMA * ETA * ((1 + omega) * total - 2 * n * mean - 2 * n * s)
    np.testing.assert_allclose(left, own + (1 - GAMMA * P * ETA) * weight * dual + last, rtol=1e-12)
    assert GAMMA * ETA * (1 + 2 * omega) <= P * (2 * RHO - RHO**2 * (1 + omega / n)) and last <= 0


def chosen(gamma, p, omega):
    """rho and the largest eta of the theorem."""
    rho = 1 / (1 + omega / N)
    return {"rho": rho, "eta": p * rho / (gamma * (1 + 2 * omega))}


@x64
def test_linear_rate_to_the_minimiser():
    """The mean of Psi over seeds falls at least as fast as max((1 - gamma mu)^2, 1 - gamma p eta)^T; K = 6 of 18."""
    quadratic, ridge, p, T = least_squares(ridge=0.5), 0.25, 0.5, 1500
    L, mu = quadratic.L - ridge, min(quadratic.mu - ridge, ridge)  # of f_i and g
    gamma, x_star = 1 / L, quadratic.optimum
    values = {"stepsize": gamma, "prob": p, "ridge": ridge, "sparsity": 2 / 3} | chosen(gamma, p, omega=2)
    u_star, weight = quadratic.gradients(x_star) - ridge * x_star, gamma / (p * values["eta"])
    start = quadratic.problem.init(KEY)
    first = 2 * N * squared(matrix(start) - x_star) + weight * (squared(u_star) + N * squared(ridge * x_star))
    last = []
    for seed in range(8):
        state, _ = iterate(locodl, quadratic.problem, values, jax.random.key(seed), iterations=T, params=start)
        x, y = matrix(state.x.x), matrix(state.x.y)
        u, v = matrix(state.memory.u), matrix(state.memory.v)
        dual = squared(u - u_star) + squared(v - ridge * x_star)
        last.append(squared(x - x_star) + squared(y - x_star) + weight * dual)
    rate = max((1 - gamma * mu) ** 2, 1 - gamma * p * values["eta"])
    assert rate**T < 1e-12 and np.mean(last) < rate**T * first


@x64
def test_the_quantiser_leaves_no_floor():
    """Q_r of a difference that vanishes: x* itself, where FedComLoc-Com, which quantises x_i, stalls."""
    quadratic, ridge, bits = least_squares(ridge=0.5), 0.25, 4
    gamma, omega = 1 / quadratic.L, min(18 / (2**bits - 1) ** 2, np.sqrt(18) / (2**bits - 1))
    values = {"stepsize": gamma, "ridge": ridge, "sparsity": 0.0, "quantize_bits": bits} | chosen(gamma, 1 / 3, omega)
    run = {"rounds": 600, "local_steps": 3, "evaluate_every": 600}
    state, history = simulate(locodl, quadratic.problem, values, KEY, **run)
    np.testing.assert_allclose(matrix(state.server.y), quadratic.optimum, rtol=0, atol=1e-9)
    assert history["control_sum"][-1] < 1e-12


@x64
def test_uncompressed_it_is_proxskip_of_twice_as_many_clients():
    """rho = 1, eta = p / gamma: n clients with f_i and n with g, whose x is y and whose h is v."""
    quadratic, ridge, p = least_squares(), 0.05, 0.3
    gamma, start = 0.5 / quadratic.L, quadratic.problem.init(KEY)
    values = {"stepsize": gamma, "prob": p, "rho": 1.0, "eta": p / gamma, "ridge": ridge, "sparsity": 0.0}
    state, heads = iterate(locodl, quadratic.problem, values, KEY, iterations=200, params=start)
    eye = np.eye(1 + FEATURES)
    H = np.concatenate([quadratic.H - ridge * eye, N * [ridge * eye]])
    c = np.concatenate([quadratic.c, np.zeros_like(quadratic.c)])
    x = np.stack(2 * N * [matrix(start)])
    h = np.zeros_like(x)
    for head in heads:
        x = x - gamma * (H @ x - c - h)
        if head:
            b = x.mean(0)
            h, x = h + p / gamma * (b - x), np.stack(2 * N * [b])
    np.testing.assert_allclose(matrix(state.x.x), x[:N], rtol=0, atol=1e-10)
    np.testing.assert_allclose(matrix(state.x.y), x[N:], rtol=0, atol=1e-10)
    np.testing.assert_allclose(matrix(state.memory.u), h[:N], rtol=0, atol=1e-9)
    np.testing.assert_allclose(matrix(state.memory.v), h[N:], rtol=0, atol=1e-9)


# --- what is sent, and who has to be there -----------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "each", "header"), [(None, 32 + 5, 0), (8, 9 + 5, 32)])
def test_bits(bits, each, header):
    """K = 6 of 18 numbers up, with a position of 5 bits each; down dbar alone, not y and v."""
    quadratic = least_squares(dtype=np.float32)
    values = {"stepsize": 0.3 / quadratic.L, "rho": 0.3, "eta": 0.2, "ridge": 0.05, "sparsity": 2 / 3}
    run = {"rounds": 5, "local_steps": 3, "evaluate_every": 5, "encoding": "indices"}
    _, history = simulate(locodl, quadratic.problem, values | {"quantize_bits": bits}, KEY, **run)
    sent, most = history["uplink_bits"][-1] - 5 * N * header, 5 * N * 6 * each
    assert sent == most if bits is None else 0.9 * most < sent <= most and sent % each == 0
    assert 0 < history["downlink_bits"][-1] <= 5 * N * 18 * (32 + 5)


def test_a_cohort_and_losses_are_refused(command, tmp_path):
    """In one sentence, by the package and on the command line, where nothing is written."""
    options = {"rho": 0.3, "eta": 0.2, "ridge": 0.05}
    with pytest.raises(ValueError, match="locodl needs all clients in every round"):
        values = {"stepsize": 0.1, "sparsity": 0.5} | options
        simulate(locodl, least_squares(dtype=np.float32).problem, values, KEY, rounds=1, local_steps=2, cohort=2)
    with pytest.raises(ValueError, match="leave out the cohort, and losses"):
        lossy = Cohort(4, lost=Lost(up=0.1))
        simulate(locodl, least_squares(dtype=np.float32).problem, values, KEY, rounds=1, local_steps=2, cohort=lossy)
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    done = command("run", "--algorithm", "locodl", "--clients", "4", "--rounds", "2", "--cohort", "2", *given)
    assert done.returncode == 2 and "locodl needs all clients in every round" in done.stderr
    assert list(tmp_path.iterdir()) == []
