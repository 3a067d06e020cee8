"""A recurrent network for text."""

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sps_jax.models.base import Model, storage


class LSTM(nn.Module):
    """An embedding, ``depth`` layers of long short-term memory, a linear head.

    Attributes:
      vocabulary: number of symbols.
      embedding: size of a symbol's embedding.
      width: size of a layer's state and of its output.
      depth: number of layers.
      dtype: the dtype to compute in.
      param_dtype: the dtype of the parameters.
    """

    vocabulary: int
    embedding: int
    width: int
    depth: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """(b, L) int32 -> (b, L, vocabulary), the logits of each next symbol."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.Embed(self.vocabulary, self.embedding, name="first", **types)(tokens)
        rest = jnp.zeros((len(tokens), self.width), self.dtype)
        for layer in range(self.depth):
            cell = nn.OptimizedLSTMCell(self.width, name=f"layer_{layer}", **types)
            x = nn.RNN(cell)(x, initial_carry=(rest, rest))
        return nn.Dense(self.vocabulary, name="last", **types)(x)


@cache
def lstm(vocabulary: int, *, embedding: int = 8, width: int = 256, depth: int = 2, dtype: str = "float32") -> Model:
    """Returns the next-character network of McMahan et al. 2017 (arXiv 1602.05629), with its sizes as defaults.

    LSTM: Hochreiter and Schmidhuber 1997; the cell is flax's. Equal arguments give the same object.

    Args:
      vocabulary: number of symbols.
      embedding: size of a symbol's embedding.
      width: size of a layer's state.
      depth: number of layers.
      dtype: the dtype to compute in; ``"bfloat16"`` keeps parameters and logits in float32.
    """
    held = storage(dtype)
    network = LSTM(vocabulary, embedding, width, depth, dtype, held)
    return Model(
        init=lambda key: network.init(key, jnp.zeros((1, 1), jnp.int32)),
        apply=lambda params, tokens: jnp.asarray(network.apply(params, tokens), held),
    )
