"""What a method and its loop in ``reference`` are both given: the same numbers, and the draws that the engine makes."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.random import fold_in
from problems import APART, IDS, METHODS, matrix, tree
from reference import METHODS as LOOPS
from reference import Case
from reference.pruned import powerpropagation

from sps_jax.algorithms import ALGORITHMS, powerpropagated, sparse_proxskip
from sps_jax.compression.rand_k import rand_k
from sps_jax.simulation.schedule import split_key

CLIENTS, SHAPE, KEEP = 4, (6, 3), 4
SPARSITY = 1 - KEEP / 15
VALUES = {"sparsity": SPARSITY, "mu": 0.7, "l1": 0.05, "alpha": 0.1, "tau_min": 1, "tau_max": 4, "owners": 3}
VALUES |= {"drop": 0.5, "readjust_every": 3, "server_stepsize": 0.7, "momentum": 0.6, "beta": 0.4, "beta1": 0.8}
VALUES |= {"beta2": 0.9, "epsilon": 0.1, "weight_decay": 0.01, "rho": 0.3, "eta": 0.2, "ridge": 0.05}
"""Hyperparameters; a method gets those that it takes."""
FIELDS = {"stepsize": "gamma", "readjust_every": "every", "weight_decay": "decay", "ridge": "shared"}
FIELDS |= {"quantize_bits": "bits"}
"""Those that have another name in a ``Case``."""
TO_GO_ON = {"gradient_prob": (0.9, 0.5, 1.0, 0.7)}
PERSONAL = {"stepsize": (0.02, 0.05, 0.03, 0.04), "alpha": (0.5, 1.0, 0.3, 0.7)}
OWN = np.random.default_rng(7).normal(size=(CLIENTS, *SHAPE))
"""For scafflix: any models will do as the clients' own."""


class Compared(NamedTuple):
    """A method, its loop, what it is given beside or instead of ``VALUES``, and the draws that the loop is given."""

    make: Callable
    loop: Callable
    options: Mapping[str, Any] = MappingProxyType({})
    drawn: Callable[..., dict[str, Any]] = lambda key, ends: {}

    def values(self, **common) -> dict[str, Any]:
        takes = inspect.signature(self.make).parameters
        return {name: value for name, value in (VALUES | common).items() if name in takes} | dict(self.options)

    def case(self, quadratic, start, lengths, p, key) -> Case:
        """What the loop is given, if the engine has communicated after so many ``lengths``."""
        numbers = {FIELDS.get(name, name): value for name, value in self.values(stepsize=0.5 / quadratic.L).items()}
        numbers = {name: value for name, value in numbers.items() if name in Case._fields}
        case = Case(quadratic.gradients, CLIENTS, start, lengths, p=p, keep=KEEP, **numbers)
        return case._replace(**self.drawn(key, np.cumsum(lengths)))


# --- the engine's draws, from the keys of round.py; a communication has the number of the iterations before it -------


def each(draw, keys, numbers) -> np.ndarray:
    """(numbers, clients, ...): what client i draws at t, from the key of t and i."""
    own = lambda t, i: draw(fold_in(fold_in(keys, t), i))  # noqa: E731
    return jax.vmap(jax.vmap(own, (None, 0)), (0, None))(jnp.asarray(numbers), jnp.arange(CLIENTS))


def coins(key, ends) -> dict[str, Any]:
    """Of gradskip, at each iteration."""
    draw = lambda key: jax.random.uniform(jax.random.split(key)[1], (), jnp.float64)  # noqa: E731
    drawn = each(draw, split_key(key).clients, np.arange(ends[-1]))
    return {"coins": np.asarray(drawn) < TO_GO_ON["gradient_prob"]}


def masks(key, ends) -> dict[str, Any]:
    """Of rand-k: which of the numbers each client sends."""
    draw = lambda key: rand_k(tree(np.ones(SHAPE)), key, SPARSITY)  # noqa: E731
    return {"masks": matrix(each(draw, split_key(key).common, ends)) != 0}


def uniforms(key, ends) -> dict[str, Any]:
    """Of the quantiser, which draws leaf by leaf."""

    def draw(key):
        leaves, structure = jax.tree.flatten(tree(np.ones(SHAPE)))
        keys = jax.random.split(fold_in(key, 1), len(leaves))
        return structure.unflatten([jax.random.uniform(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])

    return {"uniforms": matrix(each(draw, split_key(key).common, ends))}


def ranks(key, ends) -> dict[str, Any]:
    """Of the clients, in a mask that they share."""
    return {"ranks": [jax.random.permutation(fold_in(split_key(key).common, t), CLIENTS) for t in ends.tolist()]}


def first_mask(key, ends) -> dict[str, Any]:
    """Of feddst, which has a key of its own for it."""
    return {"mask": matrix(ALGORITHMS["feddst"](stepsize=1, prob=1, sparsity=SPARSITY).init(tree(OWN[0]))[1][1])}


# --- the table -------------------------------------------------------------------------------------------------------


def after_choosing(case, **options):
    """The loop counts rounds of training; mask_proxskip has one more, the first, in which it only chooses."""
    return LOOPS["mask_proxskip"](case._replace(lengths=case.lengths[1:]), **options)


def powers(*, stepsize, prob, sparsity):
    return powerpropagated(sparse_proxskip(stepsize=stepsize, prob=prob, sparsity=sparsity), 1.5)


SPECIAL = {
    "gradskip": {"options": TO_GO_ON, "drawn": coins},
    "scafflix": {"options": PERSONAL},
    "mask_proxskip": {"loop": after_choosing},
    "ef21_sgdm": {"loop": partial(LOOPS["ef21_sgdm"], first="zero")},  # a reading, see its docstring
    "feddst": {"drawn": first_mask},
    "fednova": {"drawn": lambda key, ends: {"tau": [1, 2, 3, 4]}},
    "compressed_scaffnew": {"drawn": ranks},
    "tamuna": {"drawn": ranks},
    "scallion": {"drawn": masks},
    "locodl": {"drawn": masks},
}


def compared(name: str, **options) -> Compared:
    """The method as it is, with an option of its own that its loop takes too."""
    loop = partial(LOOPS[name], **options) if options else LOOPS[name]
    return Compared(**{"make": ALGORITHMS[name], "loop": loop, "options": options} | SPECIAL.get(name, {}))


def variant(name: str, **changes) -> Compared:
    return compared(name)._replace(**changes)


MOVING = {"every": 7, "score": "step"}
QUANTISED = {"options": {"sparsity": 0.0, "quantize_bits": 3}, "drawn": uniforms}
GIVEN = PERSONAL | {"minimisers": lambda i: jax.tree.map(lambda own: own[i], tree(OWN))}
VARIANTS = {
    "sparse_proxskip-ef14": compared("sparse_proxskip", error_feedback="ef14"),
    "sparse_proxskip-ef21": compared("sparse_proxskip", error_feedback="ef21"),
    "powerpropagated": Compared(powers, partial(powerpropagation, power=1.5)),
    "mask_proxskip-every": variant("mask_proxskip", loop=partial(after_choosing, **MOVING), options=MOVING),
    "scafflix-minimisers": variant("scafflix", options=GIVEN, drawn=lambda key, ends: {"own": OWN}),
    "scallion-quantised": variant("scallion", **QUANTISED),
    "locodl-quantised": variant("locodl", **QUANTISED),
}
TABLE = {i: compared(name, **options) for i, (name, options) in zip(IDS, METHODS, strict=True)} | VARIANTS


def cases():
    """All of the table, by the coin and with 5 local steps; those without p communicate after every step."""
    for i, one in TABLE.items():
        dear = i.partition("-")[0] in APART or i in VARIANTS
        yield pytest.param(one, None, id=f"{i}-coin")
        if "prob" in inspect.signature(one.make).parameters:
            yield pytest.param(one, 5, id=f"{i}-fixed", marks=[pytest.mark.slow] * dear)
