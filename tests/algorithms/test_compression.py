r"""Compressed messages: the quantiser, FedComLoc, and masks from a common key."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import communicate, keys_of_all_ranks, least_squares, matrix

from sps_jax.algorithms import compressed_scaffnew, fedcomloc_com, fedcomloc_global, fedcomloc_local, tamuna
from sps_jax.compression.quantize import quantize
from sps_jax.simulation.method import prepare
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import iterate

KEY = jax.random.key(0)
N = 4
x64 = pytest.mark.usefixtures("x64")
quick = settings(deadline=None, database=None, max_examples=20)


# --- the quantiser -----------------------------------------------------------------------------------------------


@quick
@given(bits=st.integers(1, 8), seed=st.integers(0, 1000), scale=st.sampled_from([1e-20, 1.0, 1e15]))
def test_numbers_are_steps_of_the_norm(bits, seed, scale):
    """Every number is the norm times a whole number of steps next to what it was, with its sign."""
    x = scale * np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32)
    got = np.asarray(quantize({"w": jnp.asarray(x)}, jax.random.key(seed), bits)["w"], np.float64)
    norm, steps = np.linalg.norm(x.astype(np.float64)), 2**bits - 1
    level = got / norm * steps
    assert np.abs(level - np.round(level)).max() < 1e-3
    assert np.abs(level - x / norm * steps).max() < 1 + 1e-3
    assert (got * x >= 0).all()


@x64
def test_it_is_unbiased_and_its_variance_is_bounded():
    """Over 20,000 keys: E Q(x) = x, E ||Q(x) - x||^2 <= min(d/s^2, sqrt(d)/s) ||x||^2; all leaves are one vector."""
    x = {"a": jnp.arange(1.0, 7.0).reshape(2, 3), "b": -jnp.ones(10)}
    flat = np.concatenate([np.ravel(x["a"]), x["b"]])
    for bits in (1, 3):
        keys = jax.random.split(KEY, 20_000)
        drawn = jax.vmap(partial(quantize, x, bits=bits))(keys)
        drawn = np.concatenate([drawn["a"].reshape(-1, 6), drawn["b"]], axis=1)
        steps, norm = 2**bits - 1, np.linalg.norm(flat)
        assert np.abs(drawn.mean(0) - flat).max() < 5 * norm / steps / 2 / np.sqrt(len(keys))
        bound = min(flat.size / steps**2, np.sqrt(flat.size) / steps) * norm**2
        assert bound / 20 < ((drawn - flat) ** 2).sum(1).mean() <= bound


def test_zeros_stay_zeros():
    got = quantize({"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}, KEY, 4)
    assert all((leaf == 0).all() and leaf.dtype == jnp.float32 for leaf in got.values())


# --- FedComLoc ---------------------------------------------------------------------------------------------------


def run(make, quadratic, rounds=5, encoding="cheapest", **hyper):
    values = {"stepsize": 0.5 / quadratic.L} | hyper
    return simulate(
        make, quadratic.problem, values, KEY, rounds=rounds, local_steps=3, evaluate_every=rounds, encoding=encoding
    )


@pytest.mark.parametrize(
    ("make", "up", "down"),
    [
        (fedcomloc_com, 18 * 5 + 32, 18 * 32),
        (fedcomloc_local, 18 * 32, 18 * 32),
        (fedcomloc_global, 18 * 32, 18 * 5 + 32),
    ],
)
def test_bits_of_quantised_messages(make, up, down):
    """r = 4: five bits a number with the sign, and the norm, where the method compresses."""
    _, history = run(make, least_squares(dtype=np.float32), encoding="dense", sparsity=0.0, quantize_bits=4)
    assert history["uplink_bits"][-1] == 5 * N * up
    assert history["downlink_bits"][-1] == 5 * N * down


def test_bits_of_topk_and_quantiser_together():
    """At most K weights of 15 and 3 biases in five bits each, at positions of 5 bits; never more than dense."""
    _, history = run(fedcomloc_com, least_squares(dtype=np.float32), encoding="indices", sparsity=0.8, quantize_bits=4)
    each, left = divmod(history["uplink_bits"][-1] - 5 * N * 32, 5 + 5)
    assert left == 0 and 5 * N * 3 < each <= 5 * N * 6


@x64
@pytest.mark.slow
def test_the_quantiser_sets_a_floor():
    """With Q_r the error stalls, at a level that falls by 2^-2r; the sum of control variates stays zero."""
    quadratic = least_squares(ridge=0.5)
    floor = {}
    for bits in (4, 8):
        state, history = run(fedcomloc_com, quadratic, rounds=600, sparsity=0.0, quantize_bits=bits)
        floor[bits] = ((matrix(state.server) - quadratic.optimum) ** 2).sum()
        assert history["control_sum"][-1] < 1e-10
    assert 2**4 < floor[4] / floor[8] < 2**12
    assert floor[4] < (matrix(quadratic.problem.init(KEY)) ** 2).sum() / 100


# --- masks from the common key -----------------------------------------------------------------------------------


def squared(a):
    return float((np.asarray(a) ** 2).sum())


@x64
@pytest.mark.parametrize("s", [2, 3, 4])
@pytest.mark.parametrize("make", [compressed_scaffnew, tamuna])
def test_t1_with_masks(make, s):
    """p Psi(heads) + (1-p) Psi(tails), heads in the mean over masks, by the formula; s = n is proxskip's own."""
    gamma, p, d = 0.3, 0.4, 7
    generator = np.random.default_rng(0)
    w, h, h_star = (generator.normal(size=(N, d)) for _ in range(3))  # w: after the local step
    h, h_star = h - h.mean(0), h_star - h_star.mean(0)
    x_star = generator.normal(size=d)
    w_star = np.tile(x_star, (N, 1)) - gamma * h_star
    x = w + gamma * h
    eta = N * (s - 1) / (s * (N - 1))
    weight = (gamma / p) ** 2 * (N - 1) / ((s - 1) * eta)

    def psi(x, h):
        return squared(x - x_star) + weight * squared(h - h_star)

    algorithm = make(stepsize=gamma, prob=p, owners=s)
    heads = [communicate(algorithm, jnp.asarray(x), jnp.asarray(h), key, N) for key in keys_of_all_ranks(N)]
    for _, h_new in heads:
        assert np.abs(np.asarray(h_new).sum(0)).max() < 1e-12
    left = p * np.mean([psi(np.tile(b, (N, 1)), h_new) for b, h_new in heads]) + (1 - p) * psi(x, h)
    right = squared(w - w_star) + (1 - p**2 * eta * (s - 1) / (N - 1)) * weight * squared(h - h_star)
    np.testing.assert_allclose(left, right, rtol=1e-12)


@x64
@pytest.mark.parametrize("s", [2, 3])
def test_linear_rate_with_masks(s):
    """The mean of Psi over seeds falls at least as fast as max((1 - gamma mu)^2, 1 - p^2 eta (s-1)/(n-1))^T."""
    quadratic, p, T = least_squares(ridge=0.5), 0.5, 300
    gamma, eta = 1 / quadratic.L, N * (s - 1) / (s * (N - 1))
    x_star = quadratic.optimum
    h_star = quadratic.gradients(x_star)
    weight = (gamma / p) ** 2 * (N - 1) / ((s - 1) * eta)
    start = quadratic.problem.init(KEY)
    first = N * squared(matrix(start) - x_star) + weight * squared(h_star)
    last = []
    for seed in range(8):
        values = {"stepsize": gamma, "prob": p, "owners": s}
        state, _ = iterate(
            compressed_scaffnew, quadratic.problem, values, jax.random.key(seed), iterations=T, params=start
        )
        last.append(squared(matrix(state.x) - x_star) + weight * squared(matrix(state.memory) - h_star))
    rate = max((1 - gamma * quadratic.mu) ** 2, 1 - p**2 * eta * (s - 1) / (N - 1))
    assert np.mean(last) < rate**T * first
    assert rate**T < 1e-3


@pytest.mark.parametrize("owners", [2, 3])
def test_bits_of_shared_masks(owners):
    """All clients together send each of 18 numbers s times, without positions, under every encoding but dense."""
    for encoding in ("cheapest", "indices", "bitmap"):
        _, history = run(compressed_scaffnew, least_squares(dtype=np.float32), encoding=encoding, owners=owners)
        assert history["uplink_bits"][-1] == 5 * 18 * owners * 32


@pytest.mark.parametrize("hyper", [{"owners": 1}, {"quantize_bits": 0}, {"quantize_bits": 2.5}])
def test_numbers_out_of_range(hyper):
    (name,) = hyper
    make = compressed_scaffnew if name == "owners" else partial(fedcomloc_com, sparsity=0.5)
    with pytest.raises(ValueError, match=f"{name} must be"):
        prepare(make, {"stepsize": 0.1, "prob": 0.5} | hyper, np.float32)


def test_shared_masks_need_equal_clients():
    quadratic = least_squares(dtype=np.float32)
    unequal = dataclasses.replace(quadratic.problem, weights=jnp.array([0.1, 0.2, 0.3, 0.4], jnp.float32))
    with pytest.raises(ValueError, match="equal weights"):
        simulate(tamuna, unequal, {"stepsize": 0.1}, KEY, rounds=1, local_steps=2)
