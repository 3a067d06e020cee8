"""A small transformer for text."""

import math
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sps_jax.models.base import Model, norm_options, storage


class Attention(nn.Module):
    r"""Causal self-attention, :math:`\mathrm{softmax}(q k^\top / \sqrt{d}) v` per head of d = width / heads features.

    q, k and v are linear in the input; a mask keeps each position from attending to later ones.
    """

    heads: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, L, width) -> (b, L, width)."""
        b, length, width = x.shape
        dense = {"use_bias": False, "dtype": self.dtype, "param_dtype": self.param_dtype}
        joint = nn.Dense(3 * width, name="query_key_value", **dense)(x)
        q, k, v = jnp.moveaxis(joint.reshape(b, length, 3, self.heads, width // self.heads), 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(width // self.heads)
        causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
        weights = nn.softmax(jnp.where(causal, scores, jnp.finfo(scores.dtype).min))
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return nn.Dense(width, name="out", **dense)(y.reshape(b, length, width))


class Transformer(nn.Module):
    """Embeddings of symbol and position, ``depth`` pre-norm blocks of attention and a two-layer network, a linear head.

    Attributes:
      vocabulary: number of symbols.
      length: the most positions an example may have.
      width: number of features per position.
      depth: number of blocks.
      heads: number of attention heads.
      dtype: the dtype to compute in.
      param_dtype: the dtype of the parameters.
    """

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """(b, L) int32, L <= length -> (b, L, vocabulary), the logits of each next symbol."""
        if tokens.shape[1] > self.length:
            raise ValueError(f"examples may have at most length={self.length} positions, not {tokens.shape[1]}")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        places = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        x = nn.Embed(self.vocabulary, self.width, name="first", **types)(tokens)
        x = (x + nn.Embed(self.length, self.width, name="positions", **types)(places)).astype(self.param_dtype)
        norm = norm_options(self.dtype)
        for _ in range(self.depth):
            x = x + Attention(self.heads, **types)(nn.LayerNorm(**norm)(x)).astype(x.dtype)
            y = nn.gelu(nn.Dense(4 * self.width, **types)(nn.LayerNorm(**norm)(x)))
            x = x + nn.Dense(self.width, **types)(y).astype(x.dtype)
        return nn.Dense(self.vocabulary, name="last", **types)(nn.LayerNorm(**norm)(x))


@cache
def transformer(
    vocabulary: int, *, length: int = 80, width: int = 64, depth: int = 2, heads: int = 4, dtype: str = "float32"
) -> Model:
    """Returns a decoder (Vaswani et al. 2017, arXiv 1706.03762) with pre-norm blocks (Xiong et al. 2020, 2002.04745).

    Equal arguments give the same object.

    Args:
      vocabulary: number of symbols.
      length: the most positions an example may have.
      width: number of features per position, a multiple of ``heads``.
      depth: number of blocks.
      heads: number of attention heads.
      dtype: the dtype to compute in; ``"bfloat16"`` keeps parameters and logits in float32.

    Raises:
      ValueError: if width is not a multiple of ``heads``, and from ``apply`` for more than ``length`` positions.
    """
    if width % heads:
        raise ValueError(f"width must be a multiple of heads={heads}, not {width}")
    held = storage(dtype)
    network = Transformer(vocabulary, length, width, depth, heads, dtype, held)
    return Model(
        init=lambda key: network.init(key, jnp.zeros((1, 1), jnp.int32)),
        apply=lambda params, tokens: jnp.asarray(network.apply(params, tokens), held),
    )
