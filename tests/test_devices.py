"""The same run on several devices, and on several processes of several devices each."""

import json
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

RUN = """
import dataclasses, json, sys
devices, cohort, *process = map(int, sys.argv[1:])
import jax
jax.config.update("jax_num_cpu_devices", devices)
jax.config.update("jax_enable_x64", True)
if process:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    port, count, own = process
    jax.distributed.initialize(f"localhost:{port}", count, own)
import sps_jax as sps
from sps_jax.problems import digits
problem = digits(clients=16, precision="float64")
hyper = {"stepsize": 0.1, "prob": 0.2, "sparsity": 0.9}
run = {"rounds": 6, "evaluate_every": 2, "cohort": cohort or None, "per_client": True}
if devices > 1 and not process:  # held out examples may lie on the mesh already
    everywhere = jax.sharding.NamedSharding(sps.clients_mesh(jax.devices()), jax.sharding.PartitionSpec())
    problem = dataclasses.replace(problem, test=jax.device_put(problem.test, everywhere))
state, history = sps.simulate(sps.sparse_proxskip, problem, hyper, jax.random.key(0), **run)
for a in (*problem.data, *jax.tree.leaves(state.memory)):
    held = sum(shard.data.nbytes for shard in a.addressable_shards)
    assert held * jax.process_count() == a.nbytes, (a.shape, a.sharding)
def median(*, stepsize, prob):  # its server needs all messages, wherever they are
    take = lambda server, messages, info: jax.tree.map(lambda m: jax.numpy.median(m, axis=0), messages)
    return sps.Algorithm(move=sps.descend(stepsize), serve=take, needs_all=True)
del hyper["sparsity"]
history["median"] = sps.simulate(median, problem, hyper, jax.random.key(0), **run)[1]["train_loss"]
if not cohort:  # TopK in a branch, and at the server too
    hyper = {"stepsize": 0.1, "sparsity": 0.9}
    other = sps.simulate(sps.feddst, problem, hyper, jax.random.key(0), rounds=3, local_steps=2)[1]
    history |= {"feddst": other["train_loss"]}
    lossy = sps.Cohort(8, lost=sps.Lost(up=0.3, down=0.2, burst=3, known=False))
    few = {"rounds": 4, "local_steps": 2, "cohort": lossy}
    other = sps.simulate(sps.proxskip, problem, {"stepsize": 0.1}, jax.random.key(0), **few)[1]
    history |= {"lossy": other["train_loss"], "lossy sum": other["control_sum"]}
print("devices", jax.device_count())
print(json.dumps({name: column.tolist() for name, column in history.items()}))
"""

LATE = """
import sys, time
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from sps_jax.cli.from_options import use_devices
from sps_jax.cli.options import Run
use_devices(Run(devices="2"))
mesh = jax.make_mesh((2,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
def wait(device):
    time.sleep(70 * int(device))
    return np.float32(1)
def sum_over_devices(x):
    factor = jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.float32), jax.lax.axis_index("clients"))
    return jax.lax.psum(x * factor, "clients")
specs = {"in_specs": P("clients"), "out_specs": P("clients")}
run = jax.jit(jax.shard_map(sum_over_devices, mesh=mesh, check_vma=False, **specs))
print(run(jnp.ones(2, jnp.float32)).tolist())
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def records(devices, cohort=0, processes=1):
    """The history of every process."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(devices), str(cohort)]
            + ([str(port), str(processes), str(own)] if processes > 1 else []),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in range(processes)
    ]
    outs = [process.communicate(timeout=300) for process in started]
    assert all(process.returncode == 0 for process in started), outs
    assert all(f"devices {devices * processes}" in out for out, _ in outs)
    return [json.loads(out.splitlines()[-1]) for out, _ in outs]


def agree(one, other):
    assert one.keys() == other.keys()
    for column, values in one.items():
        np.testing.assert_allclose(values, other[column], rtol=1e-10, atol=1e-10, err_msg=column)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "processes"),
    [(2, 1), (2, 2), (4, 1), (8, 1)],
)
@pytest.mark.parametrize("cohort", [0, 8])
def test_the_same_records(devices, processes, cohort):
    (alone,) = records(1, cohort)
    for history in records(devices, cohort, processes):
        agree(alone, history)


ROUND = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import sps_jax as sps
from sps_jax.simulation.round import one_round, start
from sps_jax.simulation.state import State
from sps_jax.layout import place
from sps_jax.problems import digits
problem, layout = digits(clients=8), sps.Layout(2, sps.clients_mesh(jax.devices()))
method = sps.prepare(
    sps.sparse_proxskip, {"stepsize": 0.1, "sparsity": 0.9}, problem.ridge.dtype, local_steps=5
)
algorithm, key = method.algorithm(), jax.random.key(0)
state = start(algorithm, problem, key)
state = state._replace(memory=place(layout, state.memory))
compiled = jax.jit(lambda *a: one_round(algorithm, a[0], method.schedule, a[1], key, layout)[0])
print(compiled.lower(sps.shard_problem(layout, problem), state).compile().as_text())
"""


@pytest.mark.slow
def test_a_round_is_one_all_reduce_of_the_model():
    """Read from the compiled program: 640 weights and 10 biases, once, and no other collective."""
    done = subprocess.run([sys.executable, "-c", ROUND], capture_output=True, text=True, timeout=300, check=True)
    operation = r"= (.*) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
    ((shapes, name),) = re.findall(operation, done.stdout)
    assert name == "all-reduce"
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in re.findall(r"f32\[([\d,]+)\]", shapes)]
    assert sum(sizes) == 650


@pytest.mark.slow
def test_a_device_that_is_late_is_waited_for():
    """By 70 seconds: XLA warns after 20 and, where it is not told otherwise, ends the process 40 after that."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2.0, 2.0]\n"
