"""A linear layer."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: key -> params.
      apply: params, inputs (b, ...) -> outputs (b, ...).
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


@cache
def linear(inputs: int, outputs: int, *, bias: bool = True, dtype: str = "float32") -> Model:
    """``x @ kernel + bias`` from zero: params ``{"params": {"kernel": (inputs, outputs), "bias": (outputs,)}}``.

    Equal arguments give the same object, so a jitted program is found again.
    """
    layer = nn.Dense(outputs, use_bias=bias, kernel_init=nn.initializers.zeros, dtype=dtype, param_dtype=dtype)
    return Model(init=lambda key: layer.init(key, jnp.zeros((1, inputs), dtype)), apply=layer.apply)
