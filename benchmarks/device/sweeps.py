"""Sweeps of many points on digits against as many single runs, all compiled."""

from collections.abc import Iterator

import jax
import numpy as np

import sps_jax as sps
from device.common import Record, Settings, attempted, relative_gap, timed
from sps_jax.layout import random_key
from sps_jax.problems import digits

COLUMNS = ("points", "rounds", "sweep_seconds", "single_seconds", "times_as_fast", "loss_gap")
STEPSIZES, SPARSITY, LOCAL_STEPS = 8, 0.9, 10


def records(settings: Settings) -> Iterator[Record]:
    """A record a number of points: ``STEPSIZES`` step sizes, and seeds. A single run is that of the first point.

    The gap of its last loss is for the reader: over hundreds of steps TopK makes much of a last bit.
    """
    problem = jax.device_put(digits())
    rounds, every = (4, 2) if settings.small else (100, 10)
    asked = {"rounds": rounds, "evaluate_every": every}
    for seeds in (1, 2) if settings.small else (8, 64):
        stepsizes = [float(g) for g in np.geomspace(0.05, 2, STEPSIZES).astype(np.float32)]
        points = sps.grid(stepsize=stepsizes, sparsity=SPARSITY, local_steps=LOCAL_STEPS, seed=range(seeds))
        what = {"points": len(points), "rounds": rounds, "local_steps": LOCAL_STEPS}
        yield attempted(what, lambda points=points: compared(problem, points, asked))


def compared(problem: sps.Problem, points: list[dict], asked: dict) -> Record:
    """Seconds of the sweep and of one point's run; both end with NumPy columns, so nothing is left to await."""
    first = points[0]
    hyper = {name: first[name] for name in ("stepsize", "sparsity")}
    last: dict[str, float] = {}

    def alone() -> None:
        key = random_key(first["seed"])
        _, history = sps.simulate(sps.sparse_proxskip, problem, hyper, key, local_steps=LOCAL_STEPS, **asked)
        last["alone"] = float(history["train_loss"][-1])

    def together() -> None:
        outcomes = list(sps.sweep(sps.sparse_proxskip, problem, points, **asked))
        history = next(o.history for o in outcomes if o.point == first)
        last["together"] = float(history["train_loss"][-1])

    sweep, single = timed(together), timed(alone)
    return {
        "sweep_seconds": sweep["median_seconds"],
        "single_seconds": single["median_seconds"],
        "times_as_fast": len(points) * single["median_seconds"] / sweep["median_seconds"],
        "loss_gap": relative_gap(last["together"], last["alone"]),
        "seconds": sweep["seconds"],
        "seconds_of_single_runs": single["seconds"],
        "first_seconds": sweep["first_seconds"],
    }
