"""What sets entries to zero. A sparsifier is a function ``prune(params, sparsity) -> params`` of one model."""

from sps_jax.sparsify.straight_through import straight_through
from sps_jax.sparsify.topk import SCOPES, erk_densities, inner_matrices, kept, make_topk, matrices, topk, topk_mask

__all__ = [
    "SCOPES",
    "erk_densities",
    "inner_matrices",
    "kept",
    "make_topk",
    "matrices",
    "straight_through",
    "topk",
    "topk_mask",
]
