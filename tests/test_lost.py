"""Lost messages: how often, in which bursts, and what becomes of the sum of the control variates."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import COHORTS, VALUES, hyper, least_squares, matrix

from sps_jax import ALGORITHMS, Algorithm, Cohort, Lost, descend
from sps_jax.layout import Layout
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import iterate
from sps_jax.simulation.stream import stream

KEY, N, C, K, GAMMA = jax.random.key(4), 8, 6, 3, 0.02
x64 = pytest.mark.usefixtures("x64")
PROXSKIP = {"stepsize": GAMMA}


# --- the chain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "burst"), [(0.2, None), (0.2, 5.0), (0.5, 4.0)])
def test_links_fail_as_often_and_as_long_as_asked(rate, burst):
    """500 links in 200 rounds. A bad link stays bad with probability 1 - 1/L, a good one turns bad with
    q / (L (1 - q)); independent losses have L = 1 / (1 - q). Given the states before, the steps are independent coins.
    The share of bad ones has the variance of that many coins times (1 + rho) / (1 - rho), rho the correlation of
    successive states, 1 - 1 / (L (1 - q)). All within five standard deviations."""
    lost, ids = Lost(up=rate, burst=burst), jnp.arange(500, dtype=jnp.int32)
    bad, other = jax.jit(jax.vmap(lambda t: lost.draw(KEY, ids, t)))(jnp.arange(200, dtype=jnp.int32))
    bad, length = np.asarray(bad), burst or 1 / (1 - rate)
    assert not other.any()
    before, after = bad[:-1], bad[1:]
    for coins, chance in ((after[before], 1 - 1 / length), (after[~before], rate / (length * (1 - rate)))):
        assert abs(coins.mean() - chance) < 5 * np.sqrt(chance * (1 - chance) / len(coins))
    rho = 1 - 1 / (length * (1 - rate))
    deviation = np.sqrt(rate * (1 - rate) / bad.size * (1 + rho) / (1 - rho))
    assert abs(bad.mean() - rate) < 5 * deviation
    apart = np.corrcoef(bad.T[:2])[0, 1]  # of two links: 200 rounds, correlated as above
    assert abs(apart) < 5 * np.sqrt((1 + rho**2) / (1 - rho**2) / 200)


def test_links_up_and_down_fail_apart():
    """100,000 pairs: both fail as often as independent coins do, within five standard deviations."""
    lost, ids = Lost(up=0.3, down=0.2), jnp.arange(100_000, dtype=jnp.int32)
    up, down = map(np.asarray, jax.jit(lost.draw)(KEY, ids, jnp.int32(3)))
    assert abs((up & down).mean() - 0.06) < 5 * np.sqrt(0.06 * 0.94 / 100_000)
    known = Lost(up=0.3, down=0.2).arrive(KEY, ids, jnp.int32(3))
    assert all((np.asarray(who) == ~(up | down)).all() for who in known)
    received, updates = Lost(up=0.3, down=0.2, known=False).arrive(KEY, ids, jnp.int32(3))
    assert (np.asarray(received) == ~up).all() and (np.asarray(updates) == ~down).all()
    assert (lost.share, Lost(up=0.3, down=0.2, known=False).share) == (0.7 * 0.8, 0.7)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Lost(up=1.0), r"the probability of loss up must be in \[0, 1\), not 1.0"),
        (lambda: Lost(down="0.1"), r"the probability of loss down must be in \[0, 1\), not '0.1'"),
        (lambda: Lost(up=0.5, burst=1.5), r"a burst must last at least 1 / \(1 - probability of loss\) = 2 rounds"),
        (lambda: Cohort(2, lost=0.1), r"lost must be an sps.Lost, such as sps.Lost\(up=0.1\), not 0.1"),
    ],
)
def test_what_is_no_loss(build, says):
    with pytest.raises(ValueError, match=says):
        build()


# --- one round ---------------------------------------------------------------------------------------------------


def one_round(lost, cohort=C):
    """The model and the control variates after a round of ProxSkip from h = 0."""
    problem = least_squares(clients=N).problem
    run = {"rounds": 1, "local_steps": K, "cohort": Cohort(cohort, lost=lost)}
    state, history = simulate(ALGORITHMS["proxskip"], problem, PROXSKIP, KEY, **run)
    return matrix(state.server), matrix(state.memory), history


LOSSES = [Lost(up=0.5), Lost(down=0.5), Lost(up=0.5, known=False), Lost(down=0.5, known=False)]
LOSSES += [Lost(up=0.4, down=0.4, burst=2, known=False)]


@pytest.mark.slow
@x64
@pytest.mark.parametrize("lost", LOSSES, ids=str)
def test_the_sum_after_one_round(lost):
    """Without losses h_i = (p / gamma) (b_0 - x_i) tells each iterate x_i of the cohort S. With them the server has
    b = mean_R x_i, the members of A have h_i = (p / gamma) (b - x_i), the others 0. Where losses are known A = R, and
    the sum is (p / gamma) (|R| b - sum_R x_i) = 0; else it is (p / gamma) sum_A (b - x_i), and not zero."""
    b0, h0, _ = one_round(None)
    scale = 1 / K / GAMMA
    x = b0 - h0 / scale
    problem = least_squares(clients=N).problem
    (ids, _, updates), _, shares = taking_part(problem, Cohort(C, lost=lost), split_key(KEY), jnp.int32(0))
    received, updates = ids[shares.weights > 0], ids[updates]
    assert len(received) > 0 and len(received) + len(updates) < 2 * C
    b, h, _ = one_round(lost)
    want = np.zeros_like(h0)
    want[updates] = scale * (x[received].mean(0) - x[updates])
    np.testing.assert_allclose(b, x[received].mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(h, want, rtol=0, atol=1e-9)
    largest = np.abs(want).max()
    assert np.abs(h.sum(0)).max() < 1e-12 * largest if lost.known else np.abs(h.sum(0)).max() > 0.01 * largest


@x64
def test_a_round_in_which_nothing_arrives_changes_nothing():
    """Of messages that are as good as always lost."""
    b, h, history = one_round(Lost(up=1 - 1e-12))
    first = matrix(least_squares(clients=N).problem.init(jax.random.split(KEY, 4)[0]))
    np.testing.assert_array_equal(b, first)
    assert not h.any() and history["uplink_bits"][0] > 0


@x64
def test_messages_that_cannot_be_lost_are_all_there():
    b0, h0, _ = one_round(None)
    b, h, _ = one_round(Lost())
    np.testing.assert_allclose(b, b0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(h, h0, rtol=0, atol=1e-10)


# --- many rounds -------------------------------------------------------------------------------------------------

BURSTY = Lost(up=0.3, down=0.2, burst=3)


@x64
@pytest.mark.parametrize("name", COHORTS)
def test_the_sum_of_those_who_know(name):
    """It stays zero; a method that deals coordinates out to clients says that it cannot lose one."""
    values = hyper(name, **VALUES | {"stepsize": GAMMA})
    run = {"rounds": 6, "evaluate_every": 6, "cohort": Cohort(C, lost=BURSTY)}
    if not ALGORITHMS[name](**values).weighted:
        with pytest.raises(ValueError, match="needs clients of equal weights, and no losses"):
            simulate(ALGORITHMS[name], least_squares(clients=N).problem, values, KEY, **run)
        return
    _, history = simulate(ALGORITHMS[name], least_squares(clients=N).problem, values, KEY, **run)
    assert history["control_sum"][-1] < 1e-12


@x64
def test_the_minimiser_is_reached_by_those_who_know_and_not_by_others():
    """Known losses are absences, which ProxSkip bears. Otherwise sum h drifts, and with it the minimiser."""
    quadratic, found = least_squares(clients=4, ridge=0.5), {}
    for known in (True, False):
        cohort = Cohort(4, lost=Lost(up=0.2, known=known))
        run = {"rounds": 1500, "evaluate_every": 1500, "local_steps": 5, "cohort": cohort}
        state, _ = simulate(ALGORITHMS["proxskip"], quadratic.problem, {"stepsize": 0.5 / quadratic.L}, KEY, **run)
        found[known] = np.abs(matrix(state.server) - quadratic.optimum).max()
    assert found[True] < 1e-8 and found[False] > 1e-3


@pytest.mark.slow
@x64
def test_layouts_streaming_and_steps_agree():
    """The states after 6 rounds of bursty losses, to the last bits."""
    problem = least_squares(clients=N, batch_size=2).problem
    run = {"local_steps": 2, "cohort": Cohort(C, lost=BURSTY)}
    whole, history = simulate(ALGORITHMS["proxskip"], problem, PROXSKIP, KEY, rounds=6, **run)
    chunks, _ = simulate(ALGORITHMS["proxskip"], problem, PROXSKIP, KEY, rounds=6, layout=Layout(chunk=4), **run)
    host, seen = stream(ALGORITHMS["proxskip"], problem, PROXSKIP, KEY, rounds=6, **run)
    steps, _ = iterate(ALGORITHMS["proxskip"], problem, PROXSKIP, KEY, iterations=12, **run)
    for other in (chunks, host, steps):
        np.testing.assert_allclose(matrix(other.server), matrix(whole.server), rtol=0, atol=1e-12)
        np.testing.assert_allclose(matrix(other.memory), matrix(whole.memory), rtol=0, atol=1e-11)
    np.testing.assert_allclose(seen["train_loss"], history["train_loss"], rtol=1e-11)


@x64
def test_the_estimate_of_those_who_arrive_is_unbiased():
    """Drawn by size, and lost one time in three: over 20,000 keys each client's weight is its own, 1 / 5, on average,
    within five standard errors."""
    problem, cohort = least_squares(clients=5).problem, Cohort(3, "size", lost=Lost(up=1 / 3))

    def weights(key):
        who, _, shares = taking_part(problem, cohort, split_key(key), jnp.int32(0))
        return jnp.zeros(5).at[who.ids].set(shares.estimate)

    found = np.asarray(jax.jit(jax.vmap(weights))(jax.random.split(KEY, 20_000)))
    assert (np.abs(found.mean(0) - 0.2) < 5 * found.std(0) / np.sqrt(20_000)).all()


def test_a_method_that_needs_all_messages_cannot_lose_one():
    def last(*, stepsize):
        take = lambda server, all_of_them, info: jax.tree.map(lambda m: m[-1], all_of_them)  # noqa: E731
        return Algorithm(move=descend(stepsize), serve=take, needs_all=True)

    problem = least_squares(clients=N, dtype=np.float32).problem
    with pytest.raises(ValueError, match="drawn uniformly without losses"):
        simulate(last, problem, PROXSKIP, KEY, rounds=1, cohort=Cohort(N, lost=Lost(up=0.1)))


# --- the command line --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line(command, tmp_path):
    """All clients without --cohort; the sum is what tells whether the losses were known."""
    run = ["run", "--problem", "quadratic", "--algorithm", "proxskip", "--rounds", 4, "--local-steps", 2, "--quiet"]
    sums = []
    for more in ([], ["--unaware"]):
        out = f"out{len(more)}"
        done = command(*run, "--lose-up", 0.3, "--burst", 3, "--out", out, *more)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        sums.append(rows[-1]["control_sum"])
    assert sums[0] < 1e-5 and sums[1] > 1e-2
    for options, says in (
        (["--burst", 3], "--burst and --unaware need --lose-up or --lose-down"),
        (["--lose-up", 1.5], "the probability of loss up must be in [0, 1), not 1.5"),
        (["--lose-down", 0.5, "--burst", 1], "a burst must last at least"),
    ):
        done = command(*run, *options)
        assert done.returncode == 2 and says in done.stderr
