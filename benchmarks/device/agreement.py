"""Whether layouts agree as ``sps_jax/layout.py`` says, and what precisions of products change."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import sps_jax as sps
from device.common import Record, Settings, attempted, relative_gap
from sps_jax.layout import random_key
from sps_jax.problems import digits
from sps_jax.simulation.method import MATMUL_PRECISIONS

COLUMNS = ("what", "method", "precision", "layout", "gap", "loss_gap", "final_loss", "holds")
LAYOUTS = {"vmap": sps.Layout(), "chunks of 3": sps.Layout(3), "one by one": sps.Layout(1)}
METHODS = {"proxskip": {"stepsize": 0.5}, "sparse_proxskip": {"stepsize": 0.5, "sparsity": 0.9}}
ROUNDS, LOCAL_STEPS = 12, 10
PROMISED = 1e-5
"""Of the largest number after a dozen rounds in float32, between layouts. Of the other precisions nothing is promised:
rounded inputs that differ in a last bit differ by 5e-4 or 4e-3 once they are rounded."""
INNER = 1024
ROUNDING = INNER * 2.0**-24
"""A float32 product's largest relative error: INNER terms, each sum rounded to 24 bits (Higham 2002, section 3.1)."""


def records(settings: Settings) -> Iterator[Record]:
    """A product a precision, then every layout of both methods a precision; gaps to ``vmap`` and to float32's loss."""
    for precision in MATMUL_PRECISIONS:
        yield attempted({"what": "product", "precision": precision}, lambda precision=precision: product(precision))
    problem = jax.device_put(digits())
    for method in METHODS:
        losses: dict[str, float] = {}
        for precision in MATMUL_PRECISIONS:
            reference = None
            for name, layout in LAYOUTS.items():
                params, loss = simulated(problem, method, precision, layout)
                reference = params if reference is None else reference
                losses.setdefault(precision, loss)
                gap = float(np.abs(params - reference).max() / np.abs(reference).max())
                what = {"what": f"{ROUNDS} rounds", "method": method, "precision": precision, "layout": name}
                found = {"gap": gap, "final_loss": loss, "loss_gap": relative_gap(loss, losses["float32"])}
                yield what | found | ({"holds": gap <= PROMISED} if precision == "float32" else {})


def simulated(problem: sps.Problem, method: str, precision: str, layout: sps.Layout) -> tuple[np.ndarray, float]:
    """The server's parameters in one vector, and the training loss."""
    asked = {"rounds": ROUNDS, "evaluate_every": ROUNDS, "local_steps": LOCAL_STEPS, "layout": layout}
    asked["matmul_precision"] = precision
    make, hyper = sps.ALGORITHMS[method], METHODS[method]
    state, history = sps.simulate(make, problem, hyper, random_key(0), **asked)
    leaves = [np.ravel(a) for a in jax.tree.leaves(state.server)]
    return np.concatenate(leaves), float(history["train_loss"][-1])


def product(precision: str) -> Record:
    """The largest error of a product of positive matrices, relative to NumPy's float64 product."""
    generator = np.random.default_rng(0)
    a, b = (generator.uniform(1, 2, (INNER, INNER)).astype(np.float32) for _ in range(2))
    with jax.default_matmul_precision(precision):
        found = np.asarray(jax.jit(jnp.matmul)(a, b), np.float64)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    gap = float((np.abs(found - exact) / exact).max())
    return {"gap": gap} | ({"holds": gap <= ROUNDING} if precision == "float32" else {})
