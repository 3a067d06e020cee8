"""A run of the command line, block by block."""

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.algorithms import proxskip
from sps_jax.layout import VMAP
from sps_jax.problems import quadratic
from sps_jax.runs.blocks import run_blocks
from sps_jax.runs.drivers import on_devices
from sps_jax.simulation.method import prepare
from sps_jax.simulation.simulate import simulate


def test_blocks_from_the_first_round_are_what_simulate_gives():
    problem, key, hyper = quadratic(clients=2, dimension=2), jax.random.key(0), {"stepsize": 0.5}
    prepared = prepare(proxskip, hyper, jnp.float32, local_steps=2)
    driver = on_devices(prepared, VMAP, problem, key, 1)
    rows, summary = run_blocks(prepared, driver, key, rounds=4, evaluate_every=2, encoding="cheapest")
    _, history = simulate(proxskip, problem, hyper, key, rounds=4, local_steps=2, evaluate_every=2)
    assert [row["round"] for row in rows] == [2, 4] and summary["diverged_at_round"] is None
    for name in ("iteration", "uplink_bits", "train_loss"):
        np.testing.assert_allclose([row[name] for row in rows], history[name], rtol=1e-6)
