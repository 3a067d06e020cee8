"""The ceiling of the headline's tables: how good is a model of K weights if all examples are in one place?

``python benchmarks/paper/ceiling.py`` (``--only blog_feedback``, ``femnist_digits`` or ``femnist_all``), about 1, 8 and
40 minutes of processor time. The examples, the splits and the sparsity are those of ``headline.py``, and so is the rule
that a point is chosen on validation data of the first split. Four references, each tuned by itself, each of which finds
a support of K weights; then all are fitted on that support to the optimum by L-BFGS:

* ``gradual``: gradient descent, after each step of which the smallest weights are set to zero, with a sparsity that
  grows as a cubic (Zhu & Gupta 2017, arXiv 1710.01878);
* ``straight_through``: gradient descent with the gradient taken at TopK of the weights;
* ``l1``: the K largest weights of a point on the path of the l1 penalty, by FISTA (Beck & Teboulle 2009);
* ``greedy``: forward selection by the largest gradient, refitted after each choice; for least squares this is
  orthogonal matching pursuit.

The table sets them beside ``sparse_proxskip`` of ``headline.py``, if its records are there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import tables
from headline import Experiment, experiments
from jax import lax
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from sps_jax.compression import topk
from sps_jax.compression.scopes import kept
from sps_jax.problem import Problem
from sps_jax.results.files import append_jsonl, read_jsonl

Params = Any
RAMPS = (0.5, 0.9)  # of the steps, until the sparsity is reached
PENALTIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)  # of the smallest penalty that leaves no weight


class Pooled(NamedTuple):
    """A problem with all examples in one place, the fraction of weights to set to zero, and the length of a fit."""

    problem: Problem
    sparsity: float
    steps: int

    @staticmethod
    def of(problem: Problem, sparsity: float, steps: int) -> "Pooled":
        """The examples weigh the same, whichever client has them."""
        sizes = problem.examples.astype(problem.ridge.dtype)
        return Pooled(replace(problem, weights=sizes / jnp.sum(sizes)), sparsity, steps)

    @property
    def start(self) -> Params:
        """The starting point, zero in linear models."""
        return self.problem.init(jax.random.key(0))

    @property
    def kept(self) -> int:
        """K."""
        return int(kept(self.sparsity, self.entries))

    @property
    def entries(self) -> int:
        """How many weights can be pruned."""
        return sum(a.size for a in jax.tree.leaves(self.start) if a.ndim > 1)


def ones(params: Params) -> Params:
    """A one for each weight, and a zero for what is not pruned."""
    return jax.tree.map(lambda a: jnp.full_like(a, a.ndim > 1), params)


def support(params: Params) -> Params:
    """1 where a weight is not zero, as the parameters' dtype."""
    return jax.tree.map(lambda a: (a != 0).astype(a.dtype), params)


def free(mask: Params) -> Params:
    """A mask that also keeps what is not pruned, biases for example."""
    return jax.tree.map(lambda m: m if m.ndim > 1 else jnp.ones_like(m), mask)


slope = jax.jit(jax.value_and_grad(lambda params, problem: problem.objective(params)))


def descended(x: Params, at: Params, problem: Problem, stepsize: jax.Array) -> Params:
    """A gradient step from ``x`` with the gradient at ``at``."""
    gradient = jax.grad(problem.objective)(at)
    return jax.tree.map(lambda a, g: a - stepsize * g, x, gradient)


@partial(jax.jit, static_argnames="steps")
def gradual(start: Params, problem: Problem, sparsity: jax.Array, stepsize: jax.Array, ramp: jax.Array, *, steps: int):
    """Weights after ``steps`` steps with a sparsity that grows to ``sparsity`` in the share ``ramp`` of them."""

    def body(t: jax.Array, x: Params) -> Params:
        left = jnp.maximum(0, 1 - t / (ramp * steps)) ** 3
        return topk(descended(x, x, problem, stepsize), sparsity * (1 - left))

    return lax.fori_loop(0, steps, body, start)


@partial(jax.jit, static_argnames="steps")
def straight_through(start: Params, problem: Problem, sparsity: jax.Array, stepsize: jax.Array, *, steps: int):
    """TopK of the weights after ``steps`` steps whose gradients are taken at TopK of the weights."""
    body = lambda _, x: descended(x, topk(x, sparsity), problem, stepsize)  # noqa: E731
    return topk(lax.fori_loop(0, steps, body, start), sparsity)


@partial(jax.jit, static_argnames="steps")
def penalised(start: Params, problem: Problem, penalty: jax.Array, *, steps: int) -> Params:
    """The weights of least loss plus ``penalty`` times their l1 norm; what is not pruned has no penalty."""
    stepsize = 1 / jnp.sum(problem.weights * problem.smoothness)

    def shrunk(a: jax.Array) -> jax.Array:
        return jnp.sign(a) * jnp.maximum(jnp.abs(a) - stepsize * penalty, 0) if a.ndim > 1 else a

    def body(t: jax.Array, carry: tuple[Params, Params]) -> tuple[Params, Params]:
        x, z = carry
        new = jax.tree.map(shrunk, descended(z, z, problem, stepsize))
        return new, jax.tree.map(lambda a, b: a + t / (t + 3) * (a - b), new, x)

    return lax.fori_loop(0, steps, body, (start, start))[0]


def fitted(pooled: Pooled, params: Params, mask: Params, iterations: int = 500) -> Params:
    """The optimum on a support, from ``params``, by SciPy's L-BFGS."""
    keep = free(mask)
    flat, unravel = ravel_pytree(jax.tree.map(jnp.multiply, params, keep))
    inside = np.asarray(ravel_pytree(keep)[0])

    def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = slope(unravel(jnp.asarray(vector, flat.dtype)), pooled.problem)
        return float(value), np.asarray(ravel_pytree(gradient)[0], np.float64) * inside

    found = minimize(loss, np.asarray(flat, np.float64), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return unravel(jnp.asarray(found.x, flat.dtype))


def greedy(pooled: Pooled, at_once: int) -> Params:
    """K weights, ``at_once`` at a time, each time those of the largest gradient."""
    params, chosen = pooled.start, jax.tree.map(jnp.zeros_like, pooled.start)
    left = pooled.kept
    while left:
        new = min(at_once, left)
        gradient = slope(params, pooled.problem)[1]
        outside = jax.tree.map(lambda g, m, one: jnp.abs(g) * (1 - m) * one, gradient, chosen, ones(chosen))
        chosen = jax.tree.map(jnp.add, chosen, support(topk(outside, 1 - new / pooled.entries)))
        params, left = fitted(pooled, params, chosen, 30), left - new
    return params


def found(method: str, pooled: Pooled, point: Mapping[str, float]) -> Params:
    """The weights of a method at a point of its grid, on their support to the optimum."""
    start, problem, sparsity = pooled.start, pooled.problem, jnp.asarray(pooled.sparsity)
    if method == "greedy":
        params = greedy(pooled, int(point["at_once"]))
    elif method == "l1":
        gradient = jax.tree.map(jnp.multiply, slope(start, problem)[1], ones(start))
        most = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient))
        params = topk(penalised(start, problem, jnp.float32(point["penalty"] * most), steps=pooled.steps), sparsity)
    else:
        fit = {"gradual": gradual, "straight_through": straight_through}[method]
        params = fit(start, problem, sparsity, **{k: jnp.float32(v) for k, v in point.items()}, steps=pooled.steps)
    if not all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(params)):
        return params
    return fitted(pooled, params, support(params))


def grids(one: Experiment, unit: float, at_once: Sequence[int]) -> Iterator[tuple[str, dict[str, float]]]:
    """Every method at every point of its grid; the step sizes are those of the headline's methods."""
    stepsizes = [unit * g for g in one.stepsizes]
    yield from (("gradual", {"stepsize": s, "ramp": r}) for s in stepsizes for r in RAMPS)
    yield from (("straight_through", {"stepsize": s}) for s in stepsizes)
    yield from (("l1", {"penalty": p}) for p in PENALTIES)
    yield from (("greedy", {"at_once": a}) for a in at_once)


def measured(path, build: Callable[[], Pooled], method: str, point: dict[str, float], split: int) -> dict[str, Any]:
    """The record of a method at a point, which is not computed again if it is there."""
    head = {"method": method, "point": point, "data_seed": split}
    for record in read_jsonl(path):
        if {name: record[name] for name in head} == head:
            return record
    pooled = build()
    params = found(method, pooled, point)
    values = {name: float(value) for name, value in pooled.problem.evaluate(params).items()}
    record = head | {"kept": sum(int(jnp.sum(m)) for m in jax.tree.leaves(support(params)) if m.ndim > 1)} | values
    append_jsonl(path, [record])
    print(record, flush=True)
    return record


def federated(name: str, metric: str) -> list[float]:
    """What ``sparse_proxskip`` of ``headline.py`` ends at, by split."""
    records = read_jsonl(common.RESULTS / "headline" / f"{name}.jsonl")
    return [common.end(r, metric) for r in records if (r["stage"], r["algorithm"]) == ("chosen", "sparse_proxskip")]


def main() -> None:
    """Tune, fit, compare."""
    options = common.parse(__doc__, __file__, only={"nargs": "+", "choices": list(experiments(False))})
    for name, one in experiments(options.full).items():
        if options.only and name not in options.only:
            continue
        large, metric, path = name == "femnist_all", f"test_{one.metric}", options.out / f"{name}.jsonl"
        steps = 1000 if large and not options.full else 3000

        @cache
        def pooled(split: int, one=one, steps=steps) -> Pooled:
            problem = one.build(data_seed=split, manual_dir=str(options.shared / one.folder))
            return Pooled.of(problem, one.sparsity, steps)

        unit = 1 / float(pooled(0).problem.smoothness.max()) if one.relative else 1.0
        tuned = [
            measured(path, partial(pooled, 0), method, point, 0)
            for method, point in grids(one, unit, (6,) if large and not options.full else (1, 3))
        ]
        chosen = {method: record["point"] for method, record in common.references(tuned, one.metric).items()}
        ends = {
            method: [measured(path, partial(pooled, s), method, point, s) for s in range(one.splits)]
            for method, point in chosen.items()
        }
        rows = [
            {
                "reference": method,
                "point": ", ".join(f"{key} {value:.4g}" for key, value in chosen[method].items()),
                "kept": str(own[0]["kept"]),
                metric: tables.described([record[metric] for record in own]),
                "train_loss": tables.described([record["train_loss"] for record in own]),
            }
            for method, own in ends.items()
        ]
        if ours := federated(name, metric):
            federal = {"reference": "sparse_proxskip, federated", metric: tables.described(ours)}
            rows.append(dict.fromkeys(rows[0], "-") | federal)
        text = f"{name}, sparsity {one.sparsity:g}, all examples in one place, {one.splits} splits"
        tables.show(rows, options.out / f"{name}.txt", text)


if __name__ == "__main__":
    main()
