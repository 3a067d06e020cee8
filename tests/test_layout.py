"""Layouts: they say how clients are computed, never what. Two CPU devices come from a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sps_jax.layout import VMAP, Layout, over_clients


def weighted(shared, x, i):
    """Sends its row scaled, keeps its number: in the mean and in the order of what is kept, every client shows."""
    return {"a": shared * x, "b": x[0]}, (i, shared * x)


@pytest.mark.slow
@settings(deadline=None)
@given(n=st.integers(1, 9), chunk=st.none() | st.integers(1, 10), by_weight=st.booleans(), seed=st.integers(0, 99))
def test_any_chunk_gives_the_mean_and_keeps_the_order(n, chunk, by_weight, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 3)).astype(np.float32)
    w = generator.dirichlet(np.ones(n)).astype(np.float32) if by_weight else None
    mean, (i, kept) = over_clients(
        Layout(chunk), weighted, None if w is None else jnp.asarray(w), jnp.float32(2), jnp.asarray(x), jnp.arange(n)
    )
    want = np.average(x.astype(np.float64), axis=0, weights=w)
    np.testing.assert_allclose(mean["a"], 2 * want, atol=5e-7)
    np.testing.assert_allclose(mean["b"], want[0], atol=5e-7)
    np.testing.assert_array_equal(i, np.arange(n))
    np.testing.assert_array_equal(kept, 2 * x)


@pytest.mark.parametrize("chunk", [None, 1, 7, 50])
def test_the_mean_is_accurate_to_the_last_bits(chunk):
    """Of 1,000 messages that differ little from a common one the mean is within one unit of the last place."""
    x = (1 + 1e-3 * np.random.default_rng(0).normal(size=(1000, 50))).astype(np.float32)
    mean, _ = jax.jit(lambda x: over_clients(Layout(chunk), lambda _, x: (x, ()), None, (), x))(x)
    exact = x.astype(np.float64).mean(0)
    assert np.abs(np.asarray(mean, np.float64) - exact).max() <= np.spacing(np.float32(1))


def test_a_client_without_weight_does_not_count():
    x = jnp.asarray([[1.0], [5.0], [3.0]], jnp.float32)
    w = jnp.asarray([0.5, 0.0, 0.5], jnp.float32)
    for chunk in (None, 1, 2):
        assert over_clients(Layout(chunk), lambda _, x: (x, ()), w, (), x)[0] == 2


def test_nothing_sent_and_nothing_kept():
    assert over_clients(VMAP, lambda _, x: ((), ()), None, (), jnp.zeros(3)) == ((), ())


PROGRAM = """
import json, sys
sys.path[:0] = [{tests!r}]
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", {x64})
import numpy as np
from problems import METHODS, IDS, hyper, least_squares
from sps_jax.algorithms import ALGORITHMS
from sps_jax.layout import Layout, VMAP, clients_mesh
from sps_jax.simulation.simulate import simulate
problem = least_squares(clients=6, batch_size=2, dtype=np.{dtype})
both, seen = clients_mesh(jax.devices()), {{}}
for (name, options), title in [m for m in zip(METHODS, IDS) if m[1] in {some} or not {some}]:
    values = hyper(name, options, stepsize=0.3 / problem.L, prob=0.4, sparsity=0.7, mu=0.2, l1=0.01)
    args = ALGORITHMS[name], problem.problem, values, jax.random.key(5)
    run = lambda layout: simulate(*args, rounds=12, layout=layout)
    (state, history), gaps = run(VMAP), []
    scale = max(float(np.abs(a).max()) for a in jax.tree.leaves((state.server, state.memory)))
    for layout in {layouts}:
        other, other_history = run(layout)
        pairs = zip(jax.tree.leaves((state.server, state.memory)), jax.tree.leaves((other.server, other.memory)))
        gaps += [float(np.abs(np.subtract(a, b, dtype=np.float64)).max()) / scale for a, b in pairs]  # of booleans too
        for column in ("uplink_bits", "downlink_bits", "iteration"):
            assert (history[column] == other_history[column]).all(), (title, layout, column)
    seen[title] = max(gaps)
print(json.dumps(seen))
"""


@pytest.mark.parametrize(
    ("dtype", "tolerance", "some", "layouts"),
    [
        # 3 clients a device: a chunk and a remainder
        pytest.param("float64", 1e-12, (), "(Layout(2, both),)", id="every method", marks=pytest.mark.slow),
        pytest.param(
            "float64",
            1e-12,
            ("fednova", "compressed_scaffnew"),
            "(Layout(2, both),)",
            id="own and common keys",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "float64", 1e-12, ("sparse_proxskip",), "(Layout(1), Layout(4), Layout(None, both))", id="every layout"
        ),
        pytest.param(
            "float32",
            1e-5,
            ("scaffold", "sparse_proxskip"),
            "(Layout(4), Layout(1, both))",
            id="float32",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_layouts_agree(dtype, tolerance, some, layouts):
    """One by one, in chunks with and without a remainder, and over two devices, against all at once."""
    tests = str(Path(__file__).parent / "algorithms")
    program = PROGRAM.format(tests=tests, x64=dtype == "float64", dtype=dtype, some=some, layouts=layouts)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    gaps = json.loads(done.stdout)
    assert gaps and max(gaps.values()) < tolerance, gaps
