"""Simulate communication-efficient, sparse federated learning in JAX.

The modules ``problems``, ``results``, ``tables``, ``plots`` and ``checkpoint`` and the function ``from_arrays`` are
imported on first use, because their dependencies (data sets, pandas, matplotlib) take a second to import.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

__version__ = "0.1.0"

import sps_jax.runs.environment as _environment  # noqa: F401 (before JAX, which reads the environment)

# isort: split
from sps_jax.algorithms import (
    ALGORITHMS,
    Algorithm,
    Follow,
    Range,
    RoundInfo,
    compressed_scaffnew,
    descend,
    ef21,
    ef21_sgdm,
    fedadam,
    fedavg,
    fedavg_client_pruning,
    fedavg_server_pruning,
    fedavgm,
    fedcomloc_com,
    fedcomloc_global,
    fedcomloc_local,
    feddst,
    feddyn,
    fednova,
    fedprox,
    fedsmu,
    fedyogi,
    gd,
    gradskip,
    locodl,
    mask_proxskip,
    personalised,
    powerpropagated,
    proxskip,
    pruned,
    ramped,
    randprox_l1,
    randprox_server,
    scafcom,
    scafflix,
    scaffold,
    scallion,
    server_optimizer,
    server_pruning,
    server_pruning_modified,
    sparse_proxskip,
    sparse_proxskip_local,
    tamuna,
    transformed,
)
from sps_jax.compression import CRITERIA, STRUCTURES, Sparsifier, straight_through, topk
from sps_jax.compression.bits import ENCODINGS, MessageCount, MessageFormat, MessageSpec, message_bits, total_bits
from sps_jax.compression.quantize import quantize
from sps_jax.compression.rand_k import rand_k
from sps_jax.layout import Layout, clients_mesh
from sps_jax.problem import Problem
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.contract import check_algorithm
from sps_jax.simulation.evaluation import model_of
from sps_jax.simulation.footprint import shapes
from sps_jax.simulation.lost import Lost
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.placement import choose
from sps_jax.simulation.schedule import Schedule
from sps_jax.simulation.simulate import shard_problem, simulate
from sps_jax.simulation.stacking import stack_clients
from sps_jax.simulation.state import State
from sps_jax.simulation.step import StepState, begin, iterate, step
from sps_jax.simulation.stream import stream
from sps_jax.simulation.sweep import grid, sweep

if _TYPE_CHECKING:
    from sps_jax.datasets import partition as partition
    from sps_jax.problems.arrays import from_arrays
    from sps_jax.runs.models import load_model
    from sps_jax.runs.trackers import track

__all__ = [
    "ALGORITHMS",
    "CRITERIA",
    "ENCODINGS",
    "STRUCTURES",
    "Algorithm",
    "Cohort",
    "Follow",
    "Layout",
    "Lost",
    "MessageCount",
    "MessageFormat",
    "MessageSpec",
    "Method",
    "Problem",
    "Range",
    "RoundInfo",
    "Schedule",
    "Sparsifier",
    "State",
    "StepState",
    "begin",
    "check_algorithm",
    "choose",
    "clients_mesh",
    "compressed_scaffnew",
    "descend",
    "ef21",
    "ef21_sgdm",
    "fedadam",
    "fedavg",
    "fedavg_client_pruning",
    "fedavg_server_pruning",
    "fedavgm",
    "fedcomloc_com",
    "fedcomloc_global",
    "fedcomloc_local",
    "feddst",
    "feddyn",
    "fednova",
    "fedprox",
    "fedsmu",
    "fedyogi",
    "from_arrays",
    "gd",
    "gradskip",
    "grid",
    "iterate",
    "load_model",
    "locodl",
    "mask_proxskip",
    "message_bits",
    "model_of",
    "personalised",
    "powerpropagated",
    "prepare",
    "proxskip",
    "pruned",
    "quantize",
    "ramped",
    "rand_k",
    "randprox_l1",
    "randprox_server",
    "scafcom",
    "scafflix",
    "scaffold",
    "scallion",
    "server_optimizer",
    "server_pruning",
    "server_pruning_modified",
    "shapes",
    "shard_problem",
    "simulate",
    "sparse_proxskip",
    "sparse_proxskip_local",
    "stack_clients",
    "step",
    "straight_through",
    "stream",
    "sweep",
    "tamuna",
    "topk",
    "total_bits",
    "track",
    "transformed",
]

_LATER = {
    "bits": "compression.bits",
    "checkpoint": "runs.checkpoint",
    "clock": "results.clock",
    "compression": "compression",
    "from_arrays": "problems.arrays",
    "load_model": "runs.models",
    "partition": "datasets.partition",
    "plots": "results.plots",
    "problems": "problems",
    "results": "results",
    "tables": "results.tables",
    "track": "runs.trackers",
}
"""Attribute -> the module that is imported on its first use; that module, or its member of this name, is the value."""


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module 'sps_jax' has no attribute {name!r}")
    module = _importlib.import_module(f"sps_jax.{_LATER[name]}")
    return getattr(module, name, module)


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, *(name for name in globals() if name.startswith("__"))})
