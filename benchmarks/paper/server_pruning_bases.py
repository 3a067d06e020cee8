"""Pruning at the server and at the clients, over methods other than ProxSkip; a part of ``server_pruning.py``."""

import inspect
from collections.abc import Callable
from functools import partial

import common
import tables

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.problems import digits
from sps_jax.results.plots import curves

BASES = ("proxskip", "scaffold", "feddyn", "fedavg", "fednova")  # those that there are
PLACES = {
    "server": {"server": "naive"},
    "modified": {"server": "modified"},
    "clients": {"gradient": True, "uplink": True},
}
OWN = {"alpha": 0.1, "a": 0.1, "mu": 0.1, "prox": 0.1}  # hyperparameters that a base may ask for
SPARSITY = 0.9


def over(base: Callable[..., sps.Algorithm], place: str) -> Callable[..., sps.Algorithm]:
    """``base`` with its shipped model pruned at a place."""
    asks = [n for n, p in inspect.signature(base).parameters.items() if p.default is p.empty]
    own = {name: OWN[name] for name in asks if name not in ("stepsize", "prob")}

    def make(*, stepsize, prob, sparsity):
        return sps.pruned(base(stepsize=stepsize, prob=prob, **own), sps.topk, sparsity, **PLACES[place])

    return make


def build(scale: float, data_seed: int) -> Problem:
    """Digits of ten clients with one or two labels each."""
    return common.started(digits(clients=10, partition="by_label", validation=0.1, data_seed=data_seed), scale)


def over_bases(options) -> None:
    """Every base at every place, its step size chosen on validation data from one grid; two starts."""
    makes = {
        f"{name} / {place}": over(make, place) for name, make in common.algorithms(*BASES).items() for place in PLACES
    }
    path, metric, splits = options.out / "bases.jsonl", "test_accuracy", range(10 if options.full else 3)
    points = sps.grid(stepsize=[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0], local_steps=10, sparsity=SPARSITY)
    for scale in (0.0, 1.0):
        records = []
        for split in splits:
            labels, settings = (
                {"start": scale, "data_seed": split},
                {"rounds": 300, "evaluate_every": 10, "keep": common.LITTLE},
            )
            records += common.collect(
                path, partial(build, scale, split), makes, points, points_chunk=None, **settings, **labels
            )
        chosen = common.best(records, "validation_accuracy")
        name = f"bases_{scale:g}"
        text = f"digits, sparsity {SPARSITY:g}, start {scale:g} N(0, I), {len(splits)} splits"
        tables.show(tables.method_rows(chosen, metric, 0.8), options.out / f"{name}.txt", text)
        runs = {m: [common.rows(record) for record in own] for m, own in chosen.items()}
        curves(runs, metric, "round", text, options.out / f"{name}.png")
