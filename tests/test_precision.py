"""float32 is float32: what the compiled programs tell GPUs and TPUs to compute products in."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.algorithms import ALGORITHMS
from sps_jax.layout import VMAP
from sps_jax.models import resnet
from sps_jax.problems import digits
from sps_jax.problems.arrays import from_arrays
from sps_jax.simulation import simulate as simulation
from sps_jax.simulation import step as stepping
from sps_jax.simulation import stream as streaming
from sps_jax.simulation.method import MATMUL_PRECISIONS, prepare
from sps_jax.simulation.participation import Participants, taking_part
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import iterate
from sps_jax.simulation.sweep import sweep

KEY = jax.random.key(0)
SAID = {"float32": {"HIGHEST"}, "tensorfloat32": {"HIGH"}, "bfloat16": {"DEFAULT"}}
KERNELS = [jax.export.DisabledSafetyCheck.custom_call(name) for name in ("__gpu$xla.gpu.triton", "tpu_custom_call")]
HYPER = {"stepsize": 0.1, "prob": 0.5, "sparsity": 0.8}


def precisions(function, *args, platform="cuda") -> set[str]:
    """What the products and convolutions of a function's program for a platform are computed in."""
    program = jax.export.export(function, platforms=[platform], disabled_checks=KERNELS)(*args).mlir_module()
    products = [line for line in program.splitlines() if re.search(r"stablehlo\.(dot_general|convolution)", line)]
    assert products
    return {(re.search(r"precision.*?(HIGHEST|HIGH|DEFAULT)", line) or ["", "DEFAULT"])[1] for line in products}


def chosen(**options):
    return prepare(ALGORITHMS["sparse_proxskip"], HYPER, jnp.float32, **options)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("precision", MATMUL_PRECISIONS)
def test_every_product_of_a_run_has_the_precision_that_was_named(precision, platform):
    problem, asked = digits(clients=2), jnp.ones(1, bool)
    method = chosen(matmul_precision=precision)
    state = simulation.start_rounds(method, problem, KEY)
    run = simulation.run_rounds, method, VMAP
    assert precisions(*run, problem, state, KEY, asked, platform=platform) == SAID[precision]


@pytest.mark.slow
def test_float32_is_the_default_everywhere():
    """Rounds, iterations and streamed rounds; a convolution too."""
    problem = digits(clients=4)
    method = chosen(cohort=2)
    part = taking_part(problem, method.cohort, split_key(KEY), jnp.int32(0))
    state = simulation.start_rounds(method, part.problem, KEY)
    run = jax.jit(lambda *args: streaming._round(method, VMAP, 4, *args))
    assert precisions(run, Participants(*part), state, KEY) == {"HIGHEST"}
    steps = jax.jit(lambda *args: stepping._scan_steps(method, *args, None, 1))
    assert precisions(steps, problem, KEY) == {"HIGHEST"}
    images, model = np.ones((4, 8, 8, 3), np.float32), resnet((1,), 2, width=2)
    deep = from_arrays(images, [0, 1, 0, 1], [0, 0, 1, 1], model=model)
    method = chosen()
    state = simulation.start_rounds(method, deep, KEY)
    assert precisions(simulation.run_rounds, method, VMAP, deep, state, KEY, jnp.ones(1, bool)) == {"HIGHEST"}


def test_the_users_own_setting_of_jax_is_heard():
    with jax.default_matmul_precision("bfloat16"):
        assert chosen().matmul_precision == "bfloat16"
        assert chosen(matmul_precision="float32").matmul_precision == "float32"
    assert chosen().matmul_precision == "float32"


@pytest.mark.parametrize("run", ["simulate", "iterate", "sweep"])
def test_a_precision_that_is_none_is_refused(run):
    problem, wrong = digits(clients=2), {"matmul_precision": "float16"}
    with pytest.raises(ValueError, match="unknown matmul_precision 'float16': did you mean 'bfloat16'"):
        if run == "simulate":
            simulate(ALGORITHMS["gd"], problem, {"stepsize": 0.1}, KEY, rounds=1, **wrong)
        elif run == "iterate":
            iterate(ALGORITHMS["gd"], problem, {"stepsize": 0.1}, KEY, iterations=1, **wrong)
        else:
            sweep(ALGORITHMS["gd"], problem, [{"stepsize": 0.1}], rounds=1, **wrong)


def test_the_choice_is_recorded(command, tmp_path):
    options = ["--problem", "quadratic", "--clients", 2, "--rounds", 1, "--algorithm", "gd"]
    assert command("run", *options, "--matmul-precision", "tensorfloat32", "--out", "out").returncode == 0
    assert '"matmul_precision": "tensorfloat32"' in (tmp_path / "out" / "config.json").read_text()
    refused = command("run", *options, "--matmul-precision", "tf32", "--out", "other")
    assert refused.returncode == 2 and "matmul_precision" in refused.stderr and not (tmp_path / "other").exists()
