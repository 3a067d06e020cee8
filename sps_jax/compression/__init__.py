"""What sets entries to zero: functions ``prune(params, sparsity) -> params`` of one model.

A criterion ranks (``criteria``), a structure says what stays together (``structures``), a scope among which of them
the ranking is (``scopes``), names and shapes of which leaves (``leaves``); a :class:`Sparsifier` has one of each. Every
method that prunes takes any of them: ``prune=sps.Sparsifier("magnitude", "blocks:4x4", scope="layerwise")``, or
``--criterion magnitude --structure blocks:4x4 --scope layerwise``. ``sps-jax list`` tells what there is.

A leaf is taken as a matrix, its last axis against all others; a block ranks by the mean magnitude of its scores, and
the sparsity is that of blocks. A message sends every number of a block that is not all zero, in the cheapest of three
encodings or the one that ``--encoding`` names (:mod:`sps_jax.compression.bits`). With ``sparsity_rounds=T`` among the
hyperparameters (``--sparsity-rounds T``) the sparsity grows in the first T rounds, as
:func:`sps_jax.algorithms.ramped.cubic` says.
"""

from sps_jax.compression.criteria import CRITERIA
from sps_jax.compression.scopes import SCOPES, erk_densities, kept
from sps_jax.compression.sparsifier import Sparsifier, topk
from sps_jax.compression.straight_through import straight_through
from sps_jax.compression.structures import STRUCTURES
from sps_jax.compression.threshold import topk_mask

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
