"""The layout that is chosen, what it is predicted to need, and what is refused."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax import models
from sps_jax.algorithms import ALGORITHMS
from sps_jax.layout import VMAP, Layout
from sps_jax.problems import digits, quadratic
from sps_jax.problems.supervised import network_problem
from sps_jax.simulation import placement
from sps_jax.simulation.footprint import footprint, shapes
from sps_jax.simulation.method import prepare
from sps_jax.simulation.placement import choose, describe
from sps_jax.simulation.simulate import run_rounds, start_rounds
from sps_jax.simulation.tiles import stored


@pytest.fixture(scope="module")
def problem():
    return digits(clients=100, partition="iid", batch_size=8)


def prepared(name, **hyper):
    return prepare(ALGORITHMS[name], {"stepsize": 0.1, **hyper}, jnp.float32, local_steps=5)


@pytest.mark.parametrize(
    "layout", [Layout(1), pytest.param(Layout(25), marks=pytest.mark.slow), VMAP], ids=["1", "25", "all"]
)
@pytest.mark.parametrize(
    "name", ["fedavg", "sparse_proxskip", *(pytest.param(n, marks=pytest.mark.slow) for n in ("proxskip", "scaffold"))]
)
def test_prediction_is_what_the_compiler_says(problem, name, layout):
    """Within 20 % of what XLA reserves: arguments, results and temporary memory."""
    method = prepared(name, **({"sparsity": 0.9} if name == "sparse_proxskip" else {}))
    key = jax.random.key(0)
    state = start_rounds(method, problem, key)
    run = run_rounds.lower(method, layout, problem, state, key, jnp.zeros(3, bool)).compile()
    seen = run.memory_analysis()
    real = seen.argument_size_in_bytes + seen.temp_size_in_bytes
    real += seen.output_size_in_bytes - seen.alias_size_in_bytes
    assert footprint(shapes(method, problem), problem, layout).total == pytest.approx(real, rel=0.2)


def test_memory_of_the_work_is_proportional_to_the_chunk(problem):
    """Of 20 clients a local step takes more than the evaluation of the held-out data, which no chunk changes; all have
    a few numbers in common."""
    method = prepared("proxskip")
    twenty, sixty = (footprint(shapes(method, problem), problem, Layout(chunk)) for chunk in (20, 60))
    assert 0 <= 3 * twenty.work - sixty.work < 100 and sixty._replace(work=0) == twenty._replace(work=0)


def test_small_work_is_done_all_at_once_and_large_one_by_one(problem):
    method = prepared("fedavg")
    assert choose(shapes(method, problem), problem) == VMAP
    heavy = digits(clients=1)  # full gradients of 1,438 examples
    assert choose(shapes(method, heavy), heavy).chunk is None  # all there are
    heavy = digits(clients=2, partition="iid", batch_size=1000)
    assert choose(shapes(method, heavy), heavy).chunk == 1


def test_auto_takes_a_smaller_chunk_where_memory_is_short(problem):
    method = prepared("fedavg")
    room = footprint(shapes(method, problem), problem, Layout(40)).total
    assert choose(shapes(method, problem), problem, memory=room).chunk == 40


def test_a_chunk_that_does_not_fit_is_refused_with_the_one_that_would(problem):
    method = prepared("fedavg")
    room = footprint(shapes(method, problem), problem, Layout(40)).total
    with pytest.raises(ValueError, match="a chunk of 40 would fit"):
        choose(shapes(method, problem), problem, chunk=50, memory=room)
    with pytest.raises(ValueError, match="no chunk would fit"):
        choose(shapes(method, problem), problem, memory=1000)


class Gpu:
    """A device of 1 MB."""

    platform = "gpu"

    def memory_stats(self):
        return {"bytes_limit": 10**6, "bytes_in_use": 0}


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_largest_model_that_fits_does_not_shrink_with_more_devices(monkeypatch, devices):
    """One device holds 80 clients of 1,600 weights but not of 3,200, whose 80 variates alone are 1.02 MB; more devices
    share the clients, so that each needs less. (What every device has a copy of, server and test data, is small.)"""
    gpus = [Gpu() for _ in range(devices)]
    monkeypatch.setattr(jax, "devices", lambda: gpus)
    monkeypatch.setattr(jax, "local_devices", lambda: gpus)
    monkeypatch.setattr(placement, "clients_mesh", lambda some: SimpleNamespace(size=len(some)))
    method = prepared("proxskip")
    small, large = (quadratic(clients=80, dimension=d) for d in (800, 3200))
    assert choose(shapes(method, small), small).devices == devices
    if devices == 1:
        with pytest.raises(ValueError, match=r"this needs .* where 1 MB are free; no chunk would fit"):
            choose(shapes(method, large), large)
    if devices == 8:
        assert choose(shapes(method, large), large).devices == 8


@pytest.mark.parametrize(("platform", "chunk"), [("gpu", None), ("tpu", 10)])
def test_a_gpu_computes_all_clients_at_once_and_a_tpu_ten(monkeypatch, platform, chunk):
    """Also what a CPU computes one by one, and networks that convolve; fewer where memory is short. Of 24 clients a TPU
    computes 10, 10 and 4."""
    device = SimpleNamespace(platform=platform, memory_stats=lambda: None)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    method, heavy, many = prepared("fedavg"), digits(clients=2, partition="iid", batch_size=1000), quadratic(clients=24)
    assert choose(shapes(method, heavy), heavy) == VMAP
    assert choose(shapes(method, many), many) == Layout(chunk)
    assert choose(shapes(method, many), many, chunk="all") == VMAP
    room = footprint(shapes(method, heavy), heavy, Layout(1)).total
    assert choose(shapes(method, heavy), heavy, memory=room).chunk == 1
    train = np.zeros((4, 8, 8, 3), np.float32), np.zeros(4, np.int32)
    parts = [np.array([i]) for i in range(4)]
    images = network_problem("softmax", models.resnet((1,), 2, width=8), train, None, parts, batch_size=1)
    assert choose(shapes(method, images), images) == VMAP


def test_a_tpu_stores_arrays_in_tiles():
    """10,000 images waste the least in rows of 128 images each, 79 x 128 = 10,112; one alone of 32 x 32 x 3 in rows of
    its 32 pixels, 4 times its size; as vectors of 3,072 bytes, whole tiles, they waste nothing. (100, 10) float32 take
    104 x 128, or transposed 16 x 128."""
    assert stored((10_000, 32, 32, 3), 1, tiled=True) == 10_112 * 3_072
    assert stored((32, 32, 3), 1, tiled=True) == 4 * 3_072
    assert stored((10_000, 3_072), 1, tiled=True) == 10_000 * 3_072
    assert stored((100, 10), 4, tiled=True) == 16 * 128 * 4
    assert stored((2, 128), 4, tiled=True) == 2 * 128 * 4
    assert stored((10_000, 32, 32, 3), 1, tiled=False) == 10_000 * 3_072


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0}, "chunk must be between 1 and the 100 clients"),
        ({"chunk": 101}, "chunk must be between 1 and the 100 clients"),
        ({"chunk": "al"}, "unknown chunk 'al': did you mean 'all'"),
        ({"devices": 3}, "devices must divide the 100 clients and be available: 1; not 3"),
    ],
)
def test_what_the_machine_cannot_do_is_refused(problem, options, message):
    method = prepared("fedavg")
    with pytest.raises(ValueError, match=message):
        choose(shapes(method, problem), problem, **options)


def test_description(problem):
    method = prepared("fedavg")
    need = footprint(shapes(method, problem), problem, Layout(5))
    assert describe(Layout(5), need, 100).startswith("1 device: 5 of 100 clients at once; ")


@pytest.mark.slow
def test_working_memory_does_not_grow_with_the_clients():
    """FedAvg keeps nothing of a client: at a fixed chunk ten times the clients take no more temporary memory."""
    temporary = []
    for clients in (20, 200):
        problem = digits(clients=clients, partition="iid", batch_size=4)
        method = prepared("fedavg")
        key = jax.random.key(0)
        state = start_rounds(method, problem, key)
        asked = jnp.zeros(3, bool)
        run = run_rounds.lower(method, Layout(5), problem, state, key, asked).compile()
        temporary.append(run.memory_analysis().temp_size_in_bytes)
    assert temporary[1] < temporary[0] + 200 * 8  # a count of nonzeros and a number of a client


RESIDENT = """
import gc, sys, threading, time
import jax, psutil
import sps_jax as sps
from sps_jax.layout import Layout
from sps_jax.simulation.footprint import footprint
from sps_jax.problems import synthetic_logistic

clients, cohort = int(sys.argv[1]), int(sys.argv[2]) or None
problem = jax.block_until_ready(synthetic_logistic(clients=clients))
gc.collect()  # JAX holds NumPy's copy until then
hyper, options = {"stepsize": 1.0, "sparsity": 0.9}, {"local_steps": 2, "cohort": cohort}
prepared = sps.prepare(sps.sparse_proxskip, hyper, problem.ridge.dtype, **options)
layout, seen, done = Layout(1000), [], threading.Event()
def watch():
    while not done.is_set():
        seen.append(psutil.Process().memory_info().rss)
        time.sleep(0.01)
watcher = threading.Thread(target=watch)
watcher.start()
sps.simulate(sps.sparse_proxskip, problem, hyper, jax.random.key(0), rounds=4, layout=layout, **options)
done.set()
watcher.join()
print(max(seen), footprint(sps.shapes(prepared, problem), problem, layout).total)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [1000, 0], ids=["cohort", "all"])
def test_resident_memory_of_many_clients_is_what_was_predicted(cohort):
    """200,000 clients, 328 MB of data: the largest resident set within 20 %, without what 2,000 clients have more."""
    seen, predicted = {}, {}
    for clients in (2_000, 200_000):
        command = [sys.executable, "-c", RESIDENT, str(clients), str(cohort)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        seen[clients], predicted[clients] = map(int, done.stdout.split())
    program = seen[2_000] - predicted[2_000]
    assert seen[200_000] - program == pytest.approx(predicted[200_000], rel=0.2)
