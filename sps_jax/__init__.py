"""Simulation of communication-efficient, sparse federated learning.

``problems``, ``results``, ``checkpoint``, ``comparison`` and ``plotting`` are modules that are imported when they
are first asked for: they take a second, for data sets, pandas and pictures.
"""

import importlib as _importlib
from types import ModuleType as _ModuleType

__version__ = "0.1.0"

from sps_jax import start as start
from sps_jax.algorithms import ALGORITHMS, Algorithm, Follow, Turn, descend, pruned, ramped, transformed
from sps_jax.algorithms import (
    compressed_scaffnew as compressed_scaffnew,
)
from sps_jax.algorithms import (
    fedavg as fedavg,
)
from sps_jax.algorithms import (
    fedavg_client_pruning as fedavg_client_pruning,
)
from sps_jax.algorithms import (
    fedavg_server_pruning as fedavg_server_pruning,
)
from sps_jax.algorithms import (
    fedcomloc_com as fedcomloc_com,
)
from sps_jax.algorithms import (
    fedcomloc_global as fedcomloc_global,
)
from sps_jax.algorithms import (
    fedcomloc_local as fedcomloc_local,
)
from sps_jax.algorithms import (
    feddst as feddst,
)
from sps_jax.algorithms import (
    feddyn as feddyn,
)
from sps_jax.algorithms import (
    fednova as fednova,
)
from sps_jax.algorithms import (
    fedprox as fedprox,
)
from sps_jax.algorithms import (
    gd as gd,
)
from sps_jax.algorithms import (
    proxskip as proxskip,
)
from sps_jax.algorithms import (
    randprox_l1 as randprox_l1,
)
from sps_jax.algorithms import (
    randprox_server as randprox_server,
)
from sps_jax.algorithms import (
    scaffold as scaffold,
)
from sps_jax.algorithms import (
    server_pruning as server_pruning,
)
from sps_jax.algorithms import (
    server_pruning_modified as server_pruning_modified,
)
from sps_jax.algorithms import (
    sparse_proxskip as sparse_proxskip,
)
from sps_jax.algorithms import (
    sparse_proxskip_local as sparse_proxskip_local,
)
from sps_jax.algorithms import (
    tamuna as tamuna,
)
from sps_jax.arrays import from_arrays
from sps_jax.cohort import Cohort
from sps_jax.communication import ENCODINGS, Code, Count, Size, message_bits, total_bits
from sps_jax.engine import State, StepState, begin, step
from sps_jax.hyperparameters import prepare
from sps_jax.plan import Plan, clients_mesh
from sps_jax.planning import choose, shapes
from sps_jax.problem import Problem
from sps_jax.quantize import quantize
from sps_jax.schedule import Schedule
from sps_jax.simulation import iterate, placed, simulate
from sps_jax.sparsify import CRITERIA, STRUCTURES, Sparsifier, make_topk, straight_through, topk
from sps_jax.stacking import stack_clients
from sps_jax.streaming import stream
from sps_jax.sweeping import grid, sweep
from sps_jax.testing import check_algorithm

__all__ = [
    "ALGORITHMS",
    "CRITERIA",
    "ENCODINGS",
    "Algorithm",
    "Code",
    "Cohort",
    "Count",
    "Follow",
    "Plan",
    "Problem",
    "STRUCTURES",
    "Schedule",
    "Size",
    "Sparsifier",
    "State",
    "StepState",
    "Turn",
    "begin",
    "check_algorithm",
    "choose",
    "clients_mesh",
    "descend",
    "from_arrays",
    "grid",
    "iterate",
    "make_topk",
    "message_bits",
    "placed",
    "prepare",
    "shapes",
    "pruned",
    "quantize",
    "ramped",
    "simulate",
    "stack_clients",
    "step",
    "straight_through",
    "stream",
    "sweep",
    "topk",
    "total_bits",
    "transformed",
    *ALGORITHMS,
]

_LATER = ("checkpoint", "comparison", "communication", "plotting", "problems", "results", "sparsify")


def __getattr__(name: str) -> _ModuleType:
    if name in _LATER:
        return _importlib.import_module(f"sps_jax.{name}")
    raise AttributeError(f"module 'sps_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, *(name for name in globals() if name.startswith("__"))})
