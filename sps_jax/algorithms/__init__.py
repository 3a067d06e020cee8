"""The methods. ``ALGORITHMS`` is the one table that the command line, tests, benchmarks and README read.

A method says what one client and one server do, in the contract of :mod:`sps_jax.algorithms.base`; FedAvg's functions
are the defaults. You can pass your own method wherever the package takes one, and :func:`sps_jax.check_algorithm` tests
that it keeps the contract: shapes, rounds that equal their steps, layouts, bits, the sum of the control variates. One
line adds a method to this table; it then appears on the command line, with an option per hyperparameter, and in the
benchmarks, and ``tests/algorithms/test_contract.py`` tests it.
"""

from collections.abc import Callable

from sps_jax.algorithms.base import Algorithm, Follow, RoundInfo, descend
from sps_jax.algorithms.compressed_scaffnew import compressed_scaffnew
from sps_jax.algorithms.ef21 import ef21, ef21_sgdm
from sps_jax.algorithms.fedavg import fedavg
from sps_jax.algorithms.fedavg_pruning import fedavg_client_pruning, fedavg_server_pruning
from sps_jax.algorithms.fedcomloc import fedcomloc_com, fedcomloc_global, fedcomloc_local
from sps_jax.algorithms.feddst import feddst
from sps_jax.algorithms.feddyn import feddyn
from sps_jax.algorithms.fednova import fednova
from sps_jax.algorithms.fedopt import fedadam, fedavgm, fedyogi
from sps_jax.algorithms.fedprox import fedprox
from sps_jax.algorithms.fedsmu import fedsmu
from sps_jax.algorithms.gd import gd
from sps_jax.algorithms.gradskip import gradskip
from sps_jax.algorithms.locodl import locodl
from sps_jax.algorithms.mask_proxskip import mask_proxskip
from sps_jax.algorithms.powerpropagated import powerpropagated
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.algorithms.pruning import pruned
from sps_jax.algorithms.ramped import ramped
from sps_jax.algorithms.randprox_l1 import randprox_l1
from sps_jax.algorithms.randprox_server import randprox_server
from sps_jax.algorithms.ranges import Range
from sps_jax.algorithms.scafflix import personalised, scafflix
from sps_jax.algorithms.scaffold import scaffold
from sps_jax.algorithms.scallion import scafcom, scallion
from sps_jax.algorithms.server_optimizer import server_optimizer
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
        mask_proxskip,
        gradskip,
        scafflix,
        fedavgm,
        fedadam,
        fedyogi,
        ef21,
        ef21_sgdm,
        scallion,
        scafcom,
        locodl,
        fedsmu,
    )
}

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Follow",
    "Range",
    "RoundInfo",
    "descend",
    "personalised",
    "powerpropagated",
    "pruned",
    "ramped",
    "server_optimizer",
    "transformed",
    *ALGORITHMS,
]
