"""Small heterogeneous least squares, and the list of methods the tests go through."""

import inspect
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sps_jax.algorithms import ALGORITHMS
from sps_jax.algorithms.base import RoundInfo
from sps_jax.problem import Problem
from sps_jax.simulation.method import prepare
from sps_jax.simulation.round import one_round, start

FEATURES, OUTPUTS = 5, 3
METHODS = [(name, {}) for name in ALGORITHMS] + [("fedavg_client_pruning", {"straight_through": False})]
IDS = ["-".join([name, *options]) for name, options in METHODS]
APART = {"gd", "fedprox", "server_pruning_modified", "fedavg_server_pruning", "randprox_l1", "randprox_server"}
APART |= {"sparse_proxskip_local", "server_pruning", "fedavg_client_pruning"}
APART |= {"feddyn", "fedcomloc_com", "fedcomloc_local", "fedcomloc_global", "tamuna", "fedavgm", "fedyogi"}
APART |= {"ef21", "ef21_sgdm", "scallion", "locodl", "fedsmu"}
"""Methods that share their shape with another; the dearest tests leave them to ``pytest -m slow``."""
SAMPLE = [pytest.param(*m, id=i, marks=[pytest.mark.slow] * (m[0] in APART)) for m, i in zip(METHODS, IDS, strict=True)]
PRUNED = ["sparse_proxskip", "sparse_proxskip_local", "server_pruning", "server_pruning_modified"]
PRUNED += ["fedavg_server_pruning", "fedavg_client_pruning"]


def init(key):
    """x_0 = 2 N(0, I)."""
    first, second = jax.random.split(key)
    return {"w": 2 * jax.random.normal(first, (FEATURES, OUTPUTS)), "b": 2 * jax.random.normal(second, (OUTPUTS,))}


def squares(params, a, y):
    """Half the squared residual of each example."""
    return jnp.sum((a @ params["w"] + params["b"][None] - y) ** 2, axis=1) / 2


def matrix(params) -> np.ndarray:
    """The parameters (..., 1 + F, C) of a model or a stack of them: the bias is row 0."""
    return np.concatenate([np.asarray(params["b"])[..., None, :], np.asarray(params["w"])], axis=-2)


def tree(x: np.ndarray) -> dict[str, jax.Array]:
    """The parameters of a matrix (..., 1 + F, C)."""
    return {"w": jnp.asarray(x[..., 1:, :]), "b": jnp.asarray(x[..., 0, :])}


class Quadratic(NamedTuple):
    """f_i(x) = <x, H_i x> / 2 - <c_i, x> + constant, in matrix form: what the problem is to a paper."""

    problem: Problem
    H: np.ndarray
    c: np.ndarray

    @property
    def L(self) -> float:
        return float(np.linalg.eigvalsh(self.H).max())

    @property
    def mu(self) -> float:
        return float(np.linalg.eigvalsh(self.H).min())

    @property
    def optimum(self) -> np.ndarray:
        return np.linalg.solve(self.H.mean(0), self.c.mean(0))

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Client i's gradient at x[i], or at the common x."""
        return self.H @ x - self.c


def least_squares(
    *, clients=4, rows=8, ridge=0.1, seed=0, batch_size=None, dtype=np.float64, padding=0.0, sparse=False
) -> Quadratic:
    """Clients with their own inputs, solutions and numbers of examples; ``padding`` fills the unused rows.

    ``sparse``: all solutions are near a common one with 4 nonzero weights, and there is little noise.
    """
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(clients, rows, FEATURES)) * generator.uniform(0.5, 1.5, (clients, 1, FEATURES))
    y = a @ (2 * generator.normal(size=(clients, FEATURES, OUTPUTS))) + 3 * generator.normal(size=(clients, 1, OUTPUTS))
    if sparse:
        common = np.zeros((FEATURES, OUTPUTS))
        common.ravel()[:4] = 2 * generator.normal(size=4)
        y = a @ (common + 0.1 * generator.normal(size=(clients, FEATURES, OUTPUTS)))
        y = y + 0.1 * generator.normal(size=y.shape)
    counts = rows - np.arange(clients)
    H, c = [], []
    for i, m in enumerate(counts):
        inputs = np.concatenate([np.ones((m, 1)), a[i, :m]], axis=1)
        H.append(inputs.T @ inputs / m + ridge * np.eye(1 + FEATURES))
        c.append(inputs.T @ y[i, :m] / m)
        a[i, m:], y[i, m:] = padding, padding
    problem = Problem(
        data=(jnp.asarray(a, dtype), jnp.asarray(y, dtype)),
        counts=jnp.asarray(counts, jnp.int32),
        test=None,
        ridge=jnp.asarray(ridge, dtype),
        init=init,
        loss=squares,
        batch_size=batch_size,
    )
    return Quadratic(problem, np.stack(H), np.stack(c))


def half_distance(x, a):
    """||x - a||^2 / 2 of each example."""
    return jnp.sum((x[None] - a) ** 2, axis=(1, 2)) / 2


def unit_quadratics(a: np.ndarray, weights=None) -> Problem:
    """f_i(x) = ||x - a_i||^2 / 2 of clients a (n, 1, d): grad f_i(x) = x - a_i; x is a matrix, so it is pruned."""
    return Problem(
        data=(jnp.asarray(a)[:, None],),
        counts=jnp.ones(len(a), jnp.int32),
        test=None,
        ridge=jnp.zeros(()),
        weights=weights if weights is None else jnp.asarray(weights),
        init=lambda key: jnp.zeros(a.shape[1:]),
        loss=half_distance,
    )


REQUIRED = {"momentum": 0.5, "server_stepsize": 1.0, "alpha": 0.1, "beta": 0.5, "rho": 0.3, "eta": 0.2, "ridge": 0.05}
REQUIRED |= {"beta1": 0.9, "beta2": 0.9, "weight_decay": 0.01, "gradient_prob": 0.9, "epsilon": 0.1}
"""Of hyperparameters without a default that a method or two have; the theorems allow them on least squares."""


def hyper(name: str, options=None, **values) -> dict:
    """Those of ``values`` that the method takes, and its ``options``; what it requires beside them as in REQUIRED."""
    takes = inspect.signature(ALGORITHMS[name]).parameters
    required = {key: REQUIRED[key] for key, p in takes.items() if p.default is p.empty and key in REQUIRED}
    return required | {key: value for key, value in values.items() if key in takes} | (options or {})


VALUES = {"stepsize": 0.1, "prob": 0.4, "sparsity": 0.5, "mu": 0.1, "l1": 0.01}
"""Of hyperparameters that have to be given; a method takes those that it has."""


def variates(name: str):
    """The shapes of a client's control variates; nothing where the method has none."""
    algorithm = ALGORITHMS[name](**hyper(name, **VALUES))
    return jax.eval_shape(lambda key: algorithm.control(*algorithm.init(init(key))), jax.random.key(0))


CONTROLLED = [name for name in ALGORITHMS if jax.tree.leaves(variates(name))]
"""Methods with control variates."""
ZERO_SUM = [name for name in CONTROLLED if ALGORITHMS[name](**hyper(name, **VALUES)).zero_sum]
"""Those that promise that these sum to zero."""
COHORTS = [name for name in ZERO_SUM if name != "locodl"]
"""Those of them that take part of the clients in a round."""


def run_rounds(name, problem, first, *, rounds, k, h=None, cohort=None, **values):
    """The state after some rounds of k local steps from the model ``first`` and the clients' memory ``h``."""
    key, method = jax.random.key(0), prepare(ALGORITHMS[name], values, np.float64, local_steps=k)
    algorithm = method.algorithm()
    state = start(algorithm, problem, key, first)
    state = state if h is None else state._replace(memory=h)
    body = lambda state, _: one_round(algorithm, problem, method.schedule, state, key, cohort=cohort)  # noqa: E731
    return jax.jit(lambda state: lax.scan(body, state, length=rounds)[0])(state)


def keys_of_all_ranks(count: int) -> list[jax.Array]:
    """A key for each permutation of ``count`` clients, of which masks from a common key are made."""
    found = {}
    for seed in itertools.count():
        key = jax.random.key(seed)
        found.setdefault(tuple(jax.random.permutation(key, count).tolist()), key)
        if len(found) == np.prod(range(1, count + 1)):
            return list(found.values())


def communicate(algorithm, x, h, key, clients):
    """b and the control variates after a communication of those of ``clients`` that x (C, ...) and h belong to."""
    info = lambda i: RoundInfo(key, key, i, jnp.float64(1), len(x), clients)  # noqa: E731
    slots = jnp.arange(len(x), dtype=jnp.int32)
    m = jax.vmap(lambda x, h, i: algorithm.send(x, h, None, None, info(i)))(x, h, slots)
    b = algorithm.serve(None, jax.tree.map(lambda m: m.mean(0), m), info(jnp.int32(-1)))
    return b, jax.vmap(lambda x, h, m, i: algorithm.receive(x, h, m, b, info(i)))(x, h, m, slots)
