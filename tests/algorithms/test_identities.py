r"""Closed forms of the methods, derived by hand from the papers' equations, in float64.

Where f_i(x) = ||x - a_i||^2 / 2, k local steps x <- x - gamma (x - a_i - h_i) from b end at

    x_i = q^k b + (1 - q^k) (a_i + h_i),   q = 1 - gamma,                                                       (1)

and the mean over all clients is q^k b + (1 - q^k) mean a_i, for sum_i h_i = 0. All that is below but FedComLoc-Local's
and TAMUNA's identities is (1) and what the method adds to it.

What defines a method was undone, one method at a time, and these tests failed (``benchmarks/mutation.py --named``).
Seen is the largest error of a number over the test's cases, for TAMUNA the relative one:

========================================================  ===============================================  ===========
mutant                                                    test                                             seen
========================================================  ===============================================  ===========
sparse_proxskip: gradient masked by the support of C(x)   a_round_of_client_pruning                        0.50
fedcomloc_local: gradient at x                            fedcomloc_local_at_p_1_descends_at_...           0.60
fednova: tau_eff halved                                   fednova_moves_by_the_mean_number_of_steps        0.31, 0.41
server_pruning_modified: clients start from the dense b   server_pruning_modified_starts_from_...          0.66 to 1.6
feddyn: the server's share is 1                           the_first_round_of_feddyn_with_a_cohort          0.47 to 1.0
tamuna: eta with the cohort's c in place of n             tamuna_one_step_identity_of_cohorts              0.5 to 13 %
========================================================  ===============================================  ===========
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import communicate, keys_of_all_ranks, least_squares, matrix, run_rounds, unit_quadratics

from sps_jax.algorithms import tamuna
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.schedule import split_key

KEY = jax.random.key(0)
pytestmark = pytest.mark.usefixtures("x64")
equal = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


def largest(x, keep=2):
    """The ``keep`` largest magnitudes along the last axis, zero elsewhere."""
    order = np.argsort(-np.abs(x), axis=-1)
    kept = x.copy()
    np.put_along_axis(kept, order[..., keep:], 0.0, axis=-1)
    return kept


# --- pruning at the clients --------------------------------------------------------------------------------------

STEPS, GAMMA = 5, 0.2
BROADCAST = np.array([[3.0, -2.0, 0.5, 0.0]])
TARGET = np.array([[[2.0, 0.0, 0.3, -0.1]], [[0.2, -3.0, -0.2, 0.4]]])
H = np.array([1.0, -1.0])[:, None, None] * np.array([[0.5, -1.0, 0.25, 1.0]])
"""The clients' pull a_i + h_i, and h_i of sum zero: for STEPS local steps the two largest are weights 0 and 1."""


def client_pruning_round(pruned_weights):
    """The messages C(x_i), their mean b and h_i + (p/gamma)(b - C(x_i)); ``pruned_weights``: how those not kept move.

    While the support S of C(x_i) stands still, a weight of S moves as in (1) wherever the gradient is taken. Of the
    others the gradient at C(x_i) is 0 - a_i, so that straight-through they move on a line, b + k gamma (a_i + h_i), and
    may overtake (weight 2 of client 0 does at the last step: 0.8 against 2 q^5 = 0.66); with the gradient at x_i they
    move as in (1); pruned after every step they are zero.
    """
    decay = (1 - GAMMA) ** STEPS
    dense = decay * BROADCAST + (1 - decay) * TARGET
    others = {"straight": BROADCAST + STEPS * GAMMA * TARGET, "dense": dense, "zero": 0 * dense}[pruned_weights]
    message = largest(np.where(np.arange(4) < 2, dense, others))
    b = message.mean(0)
    return message, b, H + 1 / (STEPS * GAMMA) * (b - message)


@pytest.mark.parametrize(
    ("name", "pruned_weights", "options"),
    [
        ("sparse_proxskip", "straight", {}),
        ("fedavg_client_pruning", "straight", {"straight_through": True}),
        ("fedavg_client_pruning", "dense", {"straight_through": False}),
        ("fedcomloc_com", "dense", {}),
        ("sparse_proxskip_local", "zero", {}),
    ],
)
def test_a_round_of_client_pruning(name, pruned_weights, options):
    """Where the gradient is taken and where x is pruned shows in how the pruned weights move, see above."""
    message, b, h = client_pruning_round(pruned_weights)
    controlled = not name.startswith("fedavg")
    problem = unit_quadratics(TARGET - H if controlled else TARGET)
    values = {"stepsize": GAMMA, "sparsity": 0.5} | options
    memory = {"h": jnp.asarray(H)} if controlled else {}
    state = run_rounds(name, problem, jnp.asarray(BROADCAST), rounds=1, k=STEPS, **memory, **values)
    assert (message[0, 0, 2] != 0) == (pruned_weights == "straight")
    equal(state.server, b)
    if controlled:
        equal(state.memory, h)


def test_fedcomloc_local_at_p_1_descends_at_the_compressed_iterate():
    """b+ = b - gamma grad f(C(b)) and h_i = grad f_i(C(b)) - grad f(C(b)), on least squares.

    x_i = b - gamma (grad f_i(C(b)) - h_i); the mean loses h_i, for their sum is zero, which gives b+, and
    h_i + (1/gamma)(b+ - x_i) = grad f_i(C(b)) - grad f(C(b)), whatever h_i was.
    """
    quadratic, rounds = least_squares(), 4
    gamma, first = 0.5 / quadratic.L, quadratic.problem.init(KEY)
    b = matrix(first)
    for _ in range(rounds):
        weights = largest(b[1:].ravel(), 6)  # of 15; the bias, row 0, is not compressed
        compressed = np.concatenate([b[:1], weights.reshape(b[1:].shape)])
        gradients = quadratic.gradients(compressed)
        b = b - gamma * gradients.mean(0)
    values = {"stepsize": gamma, "sparsity": 0.6}
    state = run_rounds("fedcomloc_local", quadratic.problem, first, rounds=rounds, k=1, **values)
    equal(matrix(state.server), b)
    equal(matrix(state.memory), gradients - gradients.mean(0))


# --- pruning at the server ---------------------------------------------------------------------------------------

MEAN = np.array([[3.0, -2.0, 2.5, 0.5]])
"""Of the a_i; from a start whose largest are weights 0 and 1 these stay the largest, though the third is above -2."""
APART = np.array([1.0, -1.0, 0.0])[:, None, None] * np.array([[0.7, -0.4, 0.2, 1.0]])
KEPT = np.arange(4) < 2


@pytest.mark.parametrize("rounds", [1, 2, 60])
def test_server_pruning_modified_starts_from_the_pruned_broadcast(rounds):
    """With S the support of C(b), which stands still, and abar = mean a_i: after t rounds

        b = abar + q^(kt) (b_0 - abar) on S,   (1 - q^k) abar off S,   h_i = (1 - r^t) (abar - a_i)

    with r = 1 - (p/gamma)(1 - q^k), for (1) from C(b) gives b+ = q^k C(b) + (1 - q^k) abar and b+ - x_i = (1 - q^k)
    (abar - a_i - h_i). From the dense b it would be abar + q^(kt) (b_0 - abar) everywhere.
    """
    k, gamma, first = 4, 0.1, np.array([[4.0, -3.0, 1.0, 0.0]])
    problem, decay = unit_quadratics(MEAN + APART), (1 - gamma) ** k
    values = {"stepsize": gamma, "sparsity": 0.5}
    state = run_rounds("server_pruning_modified", problem, jnp.asarray(first), rounds=rounds, k=k, **values)
    equal(state.server, np.where(KEPT, MEAN + decay**rounds * (first - MEAN), (1 - decay) * MEAN))
    equal(state.memory, (1 - (1 - (1 - decay) / (k * gamma)) ** rounds) * -APART)


# --- FedNova and FedDyn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 7])
def test_fednova_moves_by_the_mean_number_of_steps(rounds):
    """b_t = bhat + rho^t (b_0 - bhat), rho = 1 - taubar wbar, w_i = (1 - q^tau_i) / tau_i, bhat = mean w_i a_i / wbar.

    By (1) with h_i = 0 and tau_i steps d_i = (b - x_i) / tau_i = w_i (b - a_i), so b+ = b - taubar wbar (b - bhat). The
    fixed point bhat says nothing of the server's factor tau_eff = taubar (Wang et al. 2020, arXiv 2007.07481); the
    rate does.
    """
    gamma, tau = 0.2, np.arange(1, 5)[:, None, None]
    a, first = np.random.default_rng(0).normal(size=(4, 1, 3)), np.array([[2.0, -1.0, 0.5]])
    w = (1 - (1 - gamma) ** tau) / tau
    limit, rate = (w * a).mean(0) / w.mean(), 1 - tau.mean() * w.mean()
    state = run_rounds("fednova", unit_quadratics(a), jnp.asarray(first), rounds=rounds, k=4, stepsize=gamma, tau_max=4)
    equal(state.server, limit + rate**rounds * (first - limit))


@pytest.mark.parametrize("weights", [None, (0.1, 0.2, 0.3, 0.4)], ids=["equal", "unequal"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_first_round_of_feddyn_with_a_cohort(size, weights):
    """b_1 = b_0 + r (1 + W_S) (a_S - b_0), W_S what the cohort's weights w_i add up to, a_S the cohort's mean of a_i.

    From l_i = s = 0, k steps x <- x - gamma ((x - a_i) + alpha (x - b_0)) end at x_i - b_0 = r (a_i - b_0) with
    r = (1 - (1 - gamma (1 + alpha))^k) / (1 + alpha). Then l_i = -alpha r (a_i - b_0) in the cohort and zero outside;
    the server's s is the mean of all l_i, sum_i w_i l_i = -alpha r W_S (a_S - b_0) (arXiv 2111.04263, where |S|/n is
    W_S); and b_1 = mean x_i - s / alpha.
    """
    k, gamma, alpha, first = 3, 0.2, 0.7, np.array([[2.0, -1.0, 0.5]])
    a, cohort = np.random.default_rng(0).normal(size=(4, 1, 3)), Cohort(size)
    problem = unit_quadratics(a, weights)
    state = run_rounds("feddyn", problem, jnp.asarray(first), rounds=1, k=k, cohort=cohort, stepsize=gamma, alpha=alpha)
    ids = np.asarray(taking_part(problem, cohort, split_key(KEY), jnp.int32(0)).who.ids)
    each = np.full((4, 1, 1), 0.25) if weights is None else np.array(weights)[:, None, None]
    r = (1 - (1 - gamma * (1 + alpha)) ** k) / (1 + alpha)
    share = each[ids].sum()
    center = (each * a)[ids].sum(0) / share
    l = np.zeros_like(a)
    l[ids] = -alpha * r * (a[ids] - first)
    b, s = state.server
    equal(b, first + r * (1 + share) * (center - first))
    equal(s, (each * l).sum(0))
    equal(state.memory, l)


# --- TAMUNA ------------------------------------------------------------------------------------------------------

N, COHORT = 5, 3


@pytest.mark.parametrize("p", [1.0, 0.3])
@pytest.mark.parametrize("s", [2, 3])
def test_tamuna_one_step_identity_of_cohorts(s, p):
    r"""p E Psi(heads) + (1-p) Psi(tails) = sum ||w_i - w*_i||^2 + (1 - p^2 eta (s-1)/(n-1)) W sum ||h_i - h*_i||^2.

    The mean is over all cohorts of c = 3 of n = 5 clients and all permutations in the cohort. Psi is n ||b - x*||^2
    + W sum ||h_i - h*_i||^2 after a communication (heads), sum ||x_i - x*||^2 + W ... after none (tails), with W =
    (gamma/p)^2 (n-1) / ((s-1) eta); w_i = x_i - gamma grad f_i(x_i), and any w_i and w*_i are those of some f_i. The
    theorem of linear convergence of TAMUNA (Condat et al. 2023, arXiv 2302.09832) is this equality with its first sum
    bounded: E Psi falls by the factor max((1 - gamma mu)^2, (gamma L - 1)^2, 1 - p^2 eta (s-1)/(n-1)) per iteration,
    with eta = n(s-1)/(s(n-1)).

    Proof, for one coordinate: u_i = w_i + gamma h_i - x*, v_i = h_i - h*_i of sum zero, V = sum (u_i - ubar)^2. Its s
    owners are every set of s of the n clients as likely, so that sampling without replacement gives n E (b - x*)^2 =
    sum u_i^2 - eta V with this eta; and with h_i + (p eta'/gamma)(b - x_i) at the owners W E sum v_i+^2 = W sum v_i^2 -
    2 (gamma/p)(eta'/eta) sum u_i v_i + (eta'^2/eta) V. For eta' = eta the two V cancel, and the rest is the right side
    (u_i = w_i - w*_i + gamma v_i). With c for n eta' is 3/4 (s = 2) and 1 (s = 3), and eta 5/8 and 5/6.
    """
    gamma, d = 0.3, 6
    generator = np.random.default_rng(0)
    w, h, h_star = (generator.normal(size=(N, d)) for _ in range(3))
    h, h_star, x_star = h - h.mean(0), h_star - h_star.mean(0), generator.normal(size=d)
    w_star, x = x_star - gamma * h_star, w + gamma * h
    eta = N * (s - 1) / (s * (N - 1))
    W = (gamma / p) ** 2 * (N - 1) / ((s - 1) * eta)
    algorithm = tamuna(stepsize=gamma, prob=p, owners=s)

    @jax.jit
    def everyone(ids, key):
        """The broadcast, and the control variates of all n clients."""
        b, own = communicate(algorithm, jnp.asarray(x)[ids], jnp.asarray(h)[ids], key, N)
        return b, jnp.asarray(h).at[ids].set(own)

    cohorts = [jnp.array(ids, jnp.int32) for ids in itertools.combinations(range(N), COHORT)]
    outcomes = [everyone(ids, key) for ids in cohorts for key in keys_of_all_ranks(COHORT)]
    b, after = map(np.array, zip(*outcomes, strict=True))
    equal(after.sum(1), 0)
    communicated = N * np.sum((b - x_star) ** 2, axis=-1) + W * np.sum((after - h_star) ** 2, axis=(-2, -1))
    own = np.sum((h - h_star) ** 2)
    left = p * np.mean(communicated) + (1 - p) * (np.sum((x - x_star) ** 2) + W * own)
    right = np.sum((w - w_star) ** 2) + (1 - p**2 * eta * (s - 1) / (N - 1)) * W * own
    np.testing.assert_allclose(left, right, rtol=1e-12)
