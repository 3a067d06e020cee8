r"""What is proved about the methods, in float64.

x* minimises f, h*_i = grad f_i(x*), Psi = sum_i ||x_i - x*||^2 + (gamma/p)^2 sum_i ||h_i - h*_i||^2.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from problems import FEATURES, OUTPUTS, ZERO_SUM, hyper, least_squares, matrix, tree
from sklearn.linear_model import Lasso

from sps_jax import datasets
from sps_jax.algorithms import ALGORITHMS, gd, proxskip, randprox_l1, randprox_server
from sps_jax.datasets.partition import by_label
from sps_jax.problem import Problem
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.schedule import Schedule
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.stacking import stack_clients
from sps_jax.simulation.step import begin, iterate, step

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")


def squared(x: np.ndarray, axes: int) -> np.ndarray:
    """Sum of squares over the last ``axes`` axes."""
    return np.sum(np.square(x), axis=tuple(range(-axes, 0)))


def lyapunov(x, h, x_star, h_star, gamma, p):
    """Psi of iterates and control variates (..., n, F, C)."""
    return squared(x - x_star, 3) + (gamma / p) ** 2 * squared(h - h_star, 3)


def zero_sum(like: np.ndarray, seed: int = 1) -> np.ndarray:
    h = np.random.default_rng(seed).normal(size=like.shape)
    return h - h.mean(0)


# --- T1 to T3: the Lyapunov function -----------------------------------------------------------------------------

RESTRICTED = ["proxskip", "mask_proxskip"]
"""ProxSkip, and ProxSkip on a mask, of which everything holds with f on the mask."""


def begun(name, problem, gamma, p, h0):
    """The algorithm, its state with control variates h0, and the mask, chosen in a first round where nobody moves."""
    algorithm = ALGORITHMS[name](**hyper(name, stepsize=gamma, prob=p, sparsity=0.6))
    state = begin(algorithm, problem, KEY)
    mask = jax.tree.map(jnp.ones_like, algorithm.model(state.server))
    if name == "mask_proxskip":
        one = partial(step, algorithm, problem, Schedule(jnp.float64(p)), key=KEY, heads=jnp.bool_(True))
        state, _ = jax.jit(one)(state)
        mask = state.server.mask
    return algorithm, state._replace(memory=h0), mask


def minimiser_on(quadratic, mask: np.ndarray) -> np.ndarray:
    """The minimiser of f among the matrices that are zero outside the mask, column by column."""
    H, c, x = quadratic.H.mean(0), quadratic.c.mean(0), np.zeros(mask.shape)
    for j, on in enumerate(mask.T > 0):
        x[on, j] = np.linalg.solve(H[np.ix_(on, on)], c[on, j])
    return x


def both_sides(name, quadratic, gamma, p, h0, iterations=300):
    """Both sides of T1's equality, and Psi, along a trajectory; the two outcomes of each coin are both taken."""
    problem = quadratic.problem
    algorithm, first, mask = begun(name, problem, gamma, p, tree(h0))
    one = partial(step, algorithm, problem, Schedule(jnp.float64(p)), key=KEY)

    def body(state, _):
        drawn, _ = one(state)
        heads, _ = one(state, heads=jnp.bool_(True))
        tails, _ = one(state, heads=jnp.bool_(False))
        return drawn, [(s.x, s.memory) for s in (state, heads, tails)]

    _, seen = jax.jit(lambda state: lax.scan(body, state, length=iterations))(first)
    on = matrix(mask)
    (x, h), heads, tails = [(matrix(x), on * matrix(h)) for x, h in seen]
    x_star = minimiser_on(quadratic, on)
    h_star = on * quadratic.gradients(x_star)
    w, w_star = x - gamma * on * (quadratic.H @ x - quadratic.c), x_star - gamma * h_star
    psi = partial(lyapunov, x_star=x_star, h_star=h_star, gamma=gamma, p=p)
    left = p * psi(*heads) + (1 - p) * psi(*tails)
    right = squared(w - w_star, 3) + (1 - p**2) * (gamma / p) ** 2 * squared(h - h_star, 3)
    return left, right, psi(x, h)


@x64
@pytest.mark.parametrize("name", RESTRICTED)
@pytest.mark.parametrize(("gamma_L", "p"), [(1.0, 0.3), (1.9, 0.1), (0.2, 0.7)])
def test_t1_one_step_equality(gamma_L, p, name):
    """p Psi(heads) + (1-p) Psi(tails) = sum ||w_i - w*_i||^2 + (1-p^2)(gamma/p)^2 sum ||h_i - h*_i||^2."""
    quadratic = least_squares()
    left, right, psi = both_sides(name, quadratic, gamma_L / quadratic.L, p, zero_sum(quadratic.c))
    held = psi > 1e-12 * psi[0]
    assert held.sum() > 20
    np.testing.assert_allclose(left[held], right[held], rtol=1e-9)


@x64
def test_t1_needs_zero_sum():
    """The equality is lost with sum h != 0."""
    quadratic = least_squares()
    left, right, _ = both_sides("proxskip", quadratic, 1 / quadratic.L, 0.3, zero_sum(quadratic.c) + 1)
    assert np.median(np.abs(left / right - 1)) > 1e-3


def over_all_coins(algorithm, problem, p, first, T):
    """The iterates and control variates after each of the 2^T coin strings, and the strings' probabilities."""

    def run(string):
        one = lambda state, heads: step(algorithm, problem, Schedule(jnp.float64(p)), state, KEY, heads)  # noqa: E731
        state, _ = lax.scan(one, first, string)
        return state.x, state.memory

    strings = np.array(list(itertools.product([False, True], repeat=T)))
    heads = strings.sum(1)
    x, h = jax.jit(jax.vmap(run))(jnp.asarray(strings))
    return x, h, p**heads * (1 - p) ** (T - heads)


@x64
@pytest.mark.parametrize("name", RESTRICTED)
@pytest.mark.parametrize(("gamma_L", "p"), [(1.0, 0.3), (0.3, 0.8), (1.9, 0.5)])
def test_t2_expected_decrease(gamma_L, p, name):
    """E Psi_T <= max((1-gamma mu)^2, (gamma L - 1)^2, 1-p^2)^T Psi_0, and (1-min(gamma mu, p^2))^T if gamma <= 1/L."""
    T, quadratic = 10, least_squares()
    gamma, h0 = gamma_L / quadratic.L, zero_sum(quadratic.c)
    algorithm, state, mask = begun(name, quadratic.problem, gamma, p, tree(h0))
    x, h, weight = over_all_coins(algorithm, quadratic.problem, p, state, T)
    on = matrix(mask)
    x_star = minimiser_on(quadratic, on)
    psi = partial(lyapunov, x_star=x_star, h_star=on * quadratic.gradients(x_star), gamma=gamma, p=p)
    first, mean = psi(matrix(state.x), on * h0), weight @ psi(matrix(x), on * matrix(h))
    sharp = max((1 - gamma * quadratic.mu) ** 2, (gamma_L - 1) ** 2, 1 - p**2)
    assert mean <= sharp**T * first
    if gamma_L <= 1:
        assert mean <= (1 - min(gamma * quadratic.mu, p**2)) ** T * first


MU = 0.7


def distance(params, a):
    """(mu/2) ||x - a||^2 of each example."""
    return MU / 2 * jnp.sum((params[None] - a) ** 2, axis=1)


@x64
@pytest.mark.parametrize("name", RESTRICTED)
@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0])
def test_t3_exact_rate(gamma, name):
    """f_i = (mu/2)||x - a_i||^2 and p^2 = 1 - (1-gamma mu)^2: E Psi_T = (1-gamma mu)^(2T) Psi_0."""
    T, p = 10, float(np.sqrt(1 - (1 - gamma * MU) ** 2))
    a = np.random.default_rng(0).normal(size=(5, 1, 6))
    problem = Problem(
        (jnp.asarray(a),), jnp.ones(5, jnp.int32), None, jnp.float64(0), init=lambda _: jnp.ones(6), loss=distance
    )
    h0 = zero_sum(a[:, 0])
    algorithm, first, mask = begun(name, problem, gamma, p, jnp.asarray(h0))
    x, h, weight = over_all_coins(algorithm, problem, p, first, T)
    on = np.asarray(mask)
    x_star = on * a.mean(0)[0]
    h_star = on * MU * (x_star - a[:, 0])

    def psi(x, h):
        return squared(np.asarray(x) - x_star, 2) + (gamma / p) ** 2 * squared(on * np.asarray(h) - h_star, 2)

    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(weight @ psi(x, h), (1 - gamma * MU) ** (2 * T) * psi(first.x, h0), rtol=1e-9)


# --- T4: acceleration --------------------------------------------------------------------------------------------


def logistic(params, a, y):
    """log(1 + exp(-y <a, x>)) with y = -1 or 1."""
    return jnp.logaddexp(0.0, -y * (a @ params))


def newton(a, y, counts, rho):
    """The minimiser x* (d,) of the average client's regularised logistic loss."""
    weight = (np.arange(a.shape[1]) < counts[:, None]) / counts[:, None]
    x = np.zeros(a.shape[2])
    for _ in range(30):
        s = 1 / (1 + np.exp(y * (a @ x)))
        each = -np.einsum("ij,ijk->ik", weight * y * s, a) + rho * x
        flat, curvature = a.reshape(-1, a.shape[2]), (weight * s * (1 - s)).ravel() / len(a)
        x = x - np.linalg.solve(flat.T @ (curvature[:, None] * flat) + rho * np.eye(len(x)), each.mean(0))
    return x


def rounds_until(algorithm, problem, p, x_star, rounds, level=1e-20):
    """Communications until ||b - x*||^2 <= level ||x_0 - x*||^2."""
    first = start(algorithm, problem, KEY)

    def body(carry):
        state, done = carry
        state, _ = one_round(algorithm, problem, Schedule(jnp.float64(p)), state, KEY)
        return state, done + 1

    def go_on(carry):
        state, done = carry
        return (done < rounds) & (jnp.sum((state.server - x_star) ** 2) > level * jnp.sum((first.server - x_star) ** 2))

    _, done = jax.jit(lambda s: lax.while_loop(go_on, body, (s, jnp.int32(0))))(first)
    assert done < rounds
    return int(done)


@pytest.mark.slow
@x64
def test_t4_rounds_on_mushrooms(shared_data, tmp_path):
    """p = 1/sqrt(kappa) takes sqrt(kappa) log(1/eps) rounds, p = 1 (gradient descent) kappa log(1/eps).

    p = 1 is run as ``gd``: after 19,000 communications rounding has moved sum h so far that ProxSkip's own p = 1
    stops near 1e-19.
    """
    x, label = datasets.libsvm("mushrooms", manual_dir=shared_data / "libsvm", data_dir=tmp_path)
    y = 2.0 * label - 1
    (a, y), counts = stack_clients([x.astype(np.float64), y], by_label(label, 10))
    largest = max(np.linalg.eigvalsh(one.T @ one / m).max() for one, m in zip(a, counts, strict=True)) / 4
    kappa = 1000
    rho = largest / (kappa - 1)
    gamma = 1 / (largest + rho)
    problem = Problem(
        (jnp.asarray(a), jnp.asarray(y)),
        jnp.asarray(counts),
        None,
        jnp.float64(rho),
        init=lambda _: jnp.zeros(a.shape[2]),
        loss=logistic,
    )
    x_star, p = newton(a, y, counts, rho), kappa**-0.5
    few = rounds_until(proxskip(stepsize=gamma, prob=p), problem, p, x_star, 1000)
    many = rounds_until(gd(stepsize=gamma), problem, 1.0, x_star, 30_000)
    print(f"rounds: {few} at p = 1/sqrt(kappa), {many} at p = 1")
    assert many > 20 * few


# --- T5 and T6: the sum of the control variates ------------------------------------------------------------------


def relative_sum(name, dtype, iterations=2000):
    """max |sum_i h_i| / max |h_i| after many iterations from a dense start."""
    quadratic = least_squares(dtype=dtype)
    start = jax.tree.map(lambda a: a.astype(dtype), quadratic.problem.init(KEY))
    values = hyper(name, stepsize=0.5 / quadratic.L, prob=0.3, sparsity=0.7, l1=0.05, alpha=0.5)
    state, _ = iterate(ALGORITHMS[name], quadratic.problem, values, KEY, iterations=iterations, params=start)
    method = prepare(ALGORITHMS[name], values, dtype)
    h = matrix(jax.vmap(method.algorithm().control, in_axes=(0, None))(state.memory, state.server))
    assert h.dtype == dtype and np.abs(h).max() > 0.1
    return np.abs(h.sum(0)).max() / np.abs(h).max()


@x64
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-12), pytest.param(np.float32, 1e-4, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", ZERO_SUM)
def test_t5_sum_of_control_variates(name, dtype, tolerance):
    """sum_i h_i stays zero."""
    assert relative_sum(name, dtype) < tolerance


@x64
def test_t5_server_pruning_loses_the_sum():
    """Each round adds n (p/gamma)(TopK(xbar) - xbar) to sum h."""
    assert relative_sum("server_pruning", np.float64) > 1e-2


def pruned_run(name, quadratic, seed, rounds):
    """Fixed k = 2, gamma L = 0.2, K = 4, from x_0 = 2 N(0, I)."""
    values = {"stepsize": 0.2 / quadratic.L, "sparsity": 11 / 15}
    return simulate(
        ALGORITHMS[name],
        quadratic.problem,
        values,
        jax.random.key(seed),
        rounds=rounds,
        local_steps=2,
        evaluate_every=rounds,
    )


@x64
@pytest.mark.parametrize("seed", range(3))
def test_t6_limit_of_server_pruning(seed):
    """It ends at argmin over supp(x) in S of f(x) - <hbar, x>, with hbar = (1/n) sum h_i != 0."""
    quadratic = least_squares(seed=seed)
    state, _ = pruned_run("server_pruning", quadratic, seed, 3000)
    b, mean = matrix(state.server), matrix(state.memory).mean(0)
    assert np.abs(mean).max() > 1e-3
    on = (b != 0).ravel()
    assert on.sum() < b.size
    H = np.kron(quadratic.H.mean(0), np.eye(OUTPUTS))
    c = (quadratic.c.mean(0) + mean).ravel()
    limit = np.zeros(b.size)
    limit[on] = np.linalg.solve(H[np.ix_(on, on)], c[on])
    np.testing.assert_allclose(b.ravel(), limit, rtol=0, atol=1e-6)


@x64
def test_t6_server_pruning_is_far_worse_than_modified():
    """Median over seeds of the ratio of the two training losses, where a sparse model can fit well."""
    ratios = []
    for seed in range(9):
        quadratic = least_squares(seed=seed, sparse=True, ridge=0.01)
        loss = [
            pruned_run(name, quadratic, seed, 500)[1]["train_loss"][-1]
            for name in ("server_pruning", "server_pruning_modified")
        ]
        ratios.append(loss[0] / loss[1])
    assert np.median(ratios) > 5, ratios


# --- T7 to T9: what the methods are equal to ---------------------------------------------------------------------


@x64
@pytest.mark.parametrize("k", [1, 4])
def test_t7_scaffold_is_proxskip(k):
    """With k fixed, h_i = c_i - c and the same server model."""
    quadratic = least_squares()
    run = partial(simulate, problem=quadratic.problem, key=KEY, rounds=50, local_steps=k, evaluate_every=50)
    values = {"stepsize": 0.5 / quadratic.L}
    one, _ = run(ALGORITHMS["scaffold"], hyper=values)
    other, _ = run(proxskip, hyper=values)
    x, c = one.server
    np.testing.assert_allclose(matrix(x), matrix(other.server), rtol=0, atol=1e-10)
    np.testing.assert_allclose(matrix(one.memory) - matrix(c), matrix(other.memory), rtol=0, atol=1e-10)


def half_squares(params, a, y):
    """(<a, x> - y)^2 / 2 of each example."""
    return (a @ params - y) ** 2 / 2


@x64
@pytest.mark.parametrize("p", [1.0, 0.1])
@pytest.mark.parametrize("make", [randprox_l1, randprox_server])
def test_t8_randprox_reaches_the_lasso(make, p):
    """Minimiser of (1/n) sum ||A_i x - b_i||^2 / (2m) + lambda ||x||_1, where scikit-learn's alpha is lambda."""
    generator, l1 = np.random.default_rng(0), 0.2
    a = generator.normal(size=(4, 10, 12))
    y = a @ np.where(np.arange(12) < 4, 2.0, 0.0) + generator.normal(size=(4, 10))
    problem = Problem(
        (jnp.asarray(a), jnp.asarray(y)),
        jnp.full(4, 10, jnp.int32),
        None,
        jnp.float64(0),
        init=lambda _: jnp.ones(12),
        loss=half_squares,
    )
    L = max(np.linalg.eigvalsh(one.T @ one / 10).max() for one in a)
    values = {"stepsize": 1 / L, "prob": p, "l1": l1}
    state, _ = iterate(make, problem, values, KEY, iterations=20_000)
    lasso = Lasso(alpha=l1, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(a.reshape(40, 12), y.ravel())
    assert 0 < np.count_nonzero(lasso.coef_) < 12
    model = make(**values).model(state.server)
    np.testing.assert_allclose(model, lasso.coef_, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.abs(model) > 1e-6, lasso.coef_ != 0)
    if make is randprox_server:  # its control variates are the gradients, the l1 term has none
        gradients = np.einsum("ijk,ij->ik", a, a @ lasso.coef_ - y) / 10
        np.testing.assert_allclose(state.memory, gradients, rtol=0, atol=1e-5)
        np.testing.assert_allclose(state.server.mean_h, gradients.mean(0), rtol=0, atol=1e-5)
        assert np.abs(gradients.mean(0)).max() > l1 / 2


@x64
@pytest.mark.parametrize(("name", "pull"), [("fedavg", 0.0), ("fedprox", 0.7)])
def test_t9_biased_fixed_point(name, pull):
    """b = mean of M_i^k b + gamma sum_{j<k} M_i^j (c_i + mu_p b), with M_i = I - gamma (H_i + mu_p I)."""
    quadratic, k = least_squares(ridge=0.5), 4
    gamma, eye = 0.5 / quadratic.L, np.eye(1 + FEATURES)
    M = eye - gamma * (quadratic.H + pull * eye)
    powers = [np.stack([np.linalg.matrix_power(one, j) for one in M]) for j in range(k + 1)]
    total = gamma * sum(powers[:k])
    limit = np.linalg.solve(eye - (powers[k] + pull * total).mean(0), (total @ quadratic.c).mean(0))
    state, _ = simulate(
        ALGORITHMS[name],
        quadratic.problem,
        hyper(name, stepsize=gamma, mu=pull),
        KEY,
        rounds=1000,
        local_steps=k,
        evaluate_every=1000,
    )
    np.testing.assert_allclose(matrix(state.server), limit, rtol=0, atol=1e-10)
    assert np.abs(limit - quadratic.optimum).max() > 1e-3


@x64
@pytest.mark.parametrize("name", ["sparse_proxskip", "sparse_proxskip_local"])
def test_level_of_sparse_proxskip(name):
    """There is no convergence theory for TopK: asserted is the level, far below that of the start."""
    quadratic = least_squares()
    first = quadratic.problem.init(KEY)
    values = hyper(name, stepsize=0.2 / quadratic.L, prob=0.5, sparsity=0.7)
    _, history = simulate(
        ALGORITHMS[name], quadratic.problem, values, KEY, rounds=300, evaluate_every=300, params=first
    )
    assert history["train_loss"][-1] < 0.8 * quadratic.problem.objective(first)


@x64
def test_feddyn_reaches_the_minimiser():
    """x* itself, with l_i = grad f_i(x*), which FedAvg misses; the server's s is the mean of all l_i."""
    quadratic = least_squares(ridge=0.5)
    values = {"stepsize": 1 / quadratic.L, "alpha": 1.0}
    state, _ = simulate(
        ALGORITHMS["feddyn"], quadratic.problem, values, KEY, rounds=2000, local_steps=5, evaluate_every=2000
    )
    x_star, (x, s) = quadratic.optimum, state.server
    np.testing.assert_allclose(matrix(x), x_star, rtol=0, atol=1e-9)
    np.testing.assert_allclose(matrix(state.memory), quadratic.gradients(x_star), rtol=0, atol=1e-8)
    np.testing.assert_allclose(matrix(state.memory).mean(0), matrix(s), rtol=0, atol=1e-10)


@x64
def test_fednova_is_off_by_the_step_size():
    """With 1 to 4 steps a client: half the step size, half the distance to x*; averaging plainly stays away."""
    quadratic = least_squares(ridge=0.5)
    off = {}
    for gamma in (0.02, 0.01):
        values = {"stepsize": gamma / quadratic.L, "tau_max": 4}
        state, _ = simulate(
            ALGORITHMS["fednova"], quadratic.problem, values, KEY, rounds=6000, local_steps=4, evaluate_every=6000
        )
        off[gamma] = np.abs(matrix(state.server) - quadratic.optimum).max()
    assert 1.8 < off[0.02] / off[0.01] < 2.2
    tau = np.arange(1, 5)[:, None, None]  # the minimiser of sum tau_i f_i, which a plain average goes to
    plain = np.linalg.solve((tau * quadratic.H).mean(0), (tau * quadratic.c).mean(0))
    assert off[0.01] < np.abs(plain - quadratic.optimum).max() / 20
