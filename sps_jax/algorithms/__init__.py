"""The methods. ``ALGORITHMS`` is the one table: command line, tests, benchmarks and README read it.

A method is what one client and one server do, in the contract of :mod:`sps_jax.algorithms.base`; what it does not say
is FedAvg's. One of your own goes wherever a method of the package goes, and :func:`sps_jax.check_algorithm` says
whether it keeps the contract: shapes, rounds that are their steps, layouts, bits, the sum of control variates. A
method that joins this table, one line, is on the command line with an option for each of its hyperparameters, in the
benchmarks, and held to ``tests/algorithms/test_contract.py``.
"""

from collections.abc import Callable

from sps_jax.algorithms.base import Algorithm, Follow, RoundInfo, descend
from sps_jax.algorithms.compressed_scaffnew import compressed_scaffnew
from sps_jax.algorithms.fedavg import fedavg
from sps_jax.algorithms.fedavg_pruning import fedavg_client_pruning, fedavg_server_pruning
from sps_jax.algorithms.fedcomloc import fedcomloc_com, fedcomloc_global, fedcomloc_local
from sps_jax.algorithms.feddst import feddst
from sps_jax.algorithms.feddyn import feddyn
from sps_jax.algorithms.fednova import fednova
from sps_jax.algorithms.fedprox import fedprox
from sps_jax.algorithms.gd import gd
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.algorithms.pruning import pruned
from sps_jax.algorithms.ramped import ramped
from sps_jax.algorithms.randprox_l1 import randprox_l1
from sps_jax.algorithms.randprox_server import randprox_server
from sps_jax.algorithms.scaffold import scaffold
from sps_jax.algorithms.sparse_proxskip import (
    server_pruning,
    server_pruning_modified,
    sparse_proxskip,
    sparse_proxskip_local,
)
from sps_jax.algorithms.tamuna import tamuna
from sps_jax.algorithms.transformed import transformed

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    make.__name__: make
    for make in (
        gd,
        fedavg,
        fedprox,
        scaffold,
        proxskip,
        sparse_proxskip,
        sparse_proxskip_local,
        server_pruning,
        server_pruning_modified,
        fedavg_server_pruning,
        fedavg_client_pruning,
        randprox_l1,
        randprox_server,
        fednova,
        feddyn,
        fedcomloc_com,
        fedcomloc_local,
        fedcomloc_global,
        compressed_scaffnew,
        tamuna,
        feddst,
    )
}

__all__ = ["ALGORITHMS", "Algorithm", "Follow", "RoundInfo", "descend", "pruned", "ramped", "transformed", *ALGORITHMS]
