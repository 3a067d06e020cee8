"""All randomness comes from one key of threefry, whatever JAX's default generator is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.algorithms import ALGORITHMS
from sps_jax.layout import Layout, random_key
from sps_jax.problems import digits
from sps_jax.simulation.schedule import split_key, threefry
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.sweep import sweep

GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")


def words(key):
    return np.asarray(jax.random.key_data(key)).tolist()


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_key_of_any_generator_is_that_of_its_seed(generator):
    """rbg's key of a seed is threefry's twice, so the first half is the key of the same seed."""
    for seed in (0, 7, 2**32 - 1):
        key = jax.random.key(seed, impl=generator)
        for given in (key, jax.random.key_data(key)):
            assert words(threefry(given)) == words(random_key(seed)), (generator, seed)


def test_keys_that_differ_stay_different():
    """Two keys of four words with one first half and other second halves, which no seed makes."""
    one, other = (jnp.array([1, 2, 3, last], jnp.uint32) for last in (4, 5))
    assert len({tuple(words(threefry(key))) for key in (one, other, one[:2], jnp.array([1, 2, 1, 2], jnp.uint32))}) == 3


@pytest.mark.parametrize("key", [0, 1.5, "seed", None, np.int64(3), jnp.zeros(2), jax.random.split(jax.random.key(0))])
def test_what_is_no_key_is_named(key):
    with pytest.raises(ValueError, match=r"one JAX random key, such as jax\.random\.key\(0\), not"):
        split_key(key)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_layouts_and_sweeps_agree_whatever_the_default_generator_is(generator):
    """Stochastic gradients of a TopK method: the numbers of threefry, in every layout and in a sweep.

    With rbg's own numbers, which depend on what is mapped together, they differed by 8 %.
    """
    problem, hyper = digits(clients=4, batch_size=8), {"stepsize": 0.3, "sparsity": 0.8, "prune": by_chance()}
    run, make = {"rounds": 4, "evaluate_every": 4, "local_steps": 3}, ALGORITHMS["sparse_proxskip"]
    due = simulate(make, problem, hyper, jax.random.key(5), **run)[1]["train_loss"]
    with jax.default_prng_impl(generator):
        seen = [
            simulate(make, problem, hyper, jax.random.key(5), **run, layout=layout)[1]["train_loss"]
            for layout in (Layout(), Layout(1))
        ]
        point = hyper | {"local_steps": 3, "seed": 5}
        ((_, history, _), *_) = sweep(make, problem, [point, point], rounds=4, evaluate_every=4)
    for loss in (*seen, history["train_loss"]):
        np.testing.assert_allclose(loss, due, rtol=1e-6)


def by_chance():
    from sps_jax.compression import Sparsifier

    return Sparsifier("random")


@pytest.mark.parametrize("seed", [2**32, -1, 1.5, True, np.uint64(2**40)])
def test_a_seed_that_would_repeat_another_is_refused(seed):
    """Keys are made of 32 bits: 2**32 would give the numbers of 0."""
    point = {"stepsize": 0.1, "seed": seed}
    with pytest.raises(ValueError, match=r"seed must be an integer from 0 to 2\*\*32 - 1"):
        sweep(ALGORITHMS["gd"], digits(clients=2), [point], rounds=1)
