"""What sets entries to zero: functions ``prune(params, sparsity) -> params`` of one model.

A criterion ranks (``criteria``), a structure says what stays together (``structures``), a scope among which of them
the ranking is (``scopes``), names and shapes of which leaves (``leaves``); a :class:`Sparsifier` has one of each.
"""

from sps_jax.compression.criteria import CRITERIA
from sps_jax.compression.scopes import SCOPES, erk_densities, kept
from sps_jax.compression.sparsifier import Sparsifier, make_topk, topk
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
    "make_topk",
    "straight_through",
    "topk",
    "topk_mask",
]
