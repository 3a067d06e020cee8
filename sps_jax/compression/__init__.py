"""Sparsifiers: functions ``prune(params, sparsity) -> params`` that set weights of one model to zero.

A :class:`Sparsifier` combines a criterion, which scores the weights (``criteria``), a structure, which says what is
kept or dropped together (``structures``), a scope, which says what is ranked together (``scopes``), and a choice of
leaves (``leaves``). Every method that prunes takes any sparsifier:
``prune=sps.Sparsifier("magnitude", "blocks:4x4", scope="layerwise")``, or on the command line
``--criterion magnitude --structure blocks:4x4 --scope layerwise``. ``sps-jax list`` prints the available names.

A leaf is reshaped to a matrix whose columns are its last axis. Blocks rank by the mean magnitude of their scores, and
the sparsity is the fraction of blocks that are dropped. A message sends every number of a block unless all are zero, in
the cheapest of three encodings or the one that ``--encoding`` names (:mod:`sps_jax.compression.bits`). The
hyperparameter ``sparsity_rounds=T`` (``--sparsity-rounds T``) makes the sparsity grow during the first T rounds, as in
:func:`sps_jax.algorithms.ramped.cubic`.
"""

from sps_jax.compression.criteria import CRITERIA
from sps_jax.compression.scopes import SCOPES, erk_densities, kept
from sps_jax.compression.selection import topk_mask
from sps_jax.compression.sparsifier import Sparsifier, topk
from sps_jax.compression.straight_through import straight_through
from sps_jax.compression.structures import STRUCTURES

__all__ = [
    "CRITERIA",
    "SCOPES",
    "STRUCTURES",
    "Sparsifier",
    "erk_densities",
    "kept",
    "straight_through",
    "topk",
    "topk_mask",
]
