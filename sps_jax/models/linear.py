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


class Linear(nn.Module):
    """``x @ kernel.T + bias``, from zero.

    The kernel is (outputs, inputs), the transpose of ``nn.Dense``'s: outputs are few, inputs are many, and XLA:CPU
    vectorises the last axis, which makes small steps several times faster.
    """

    outputs: int
    use_bias: bool
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, inputs) -> (b, outputs)."""
        y = x @ self.param("kernel", nn.initializers.zeros, (self.outputs, x.shape[-1]), self.dtype).T
        return y + self.param("bias", nn.initializers.zeros, (self.outputs,), self.dtype)[None] if self.use_bias else y


@cache
def linear(inputs: int, outputs: int, *, bias: bool = True, dtype: str = "float32") -> Model:
    """A linear model from zero: params ``{"params": {"kernel": (outputs, inputs), "bias": (outputs,)}}``.

    Equal arguments give the same object, so a jitted program is found again.
    """
    layer = Linear(outputs, bias, dtype)
    return Model(init=lambda key: layer.init(key, jnp.zeros((1, inputs), dtype)), apply=layer.apply)
