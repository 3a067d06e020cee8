"""A linear layer, and what a network is to the rest of the package."""

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


def storage(dtype: str) -> str:
    """What parameters and outputs are held in where a network computes in ``dtype``: never in bfloat16."""
    return "float32" if dtype == "bfloat16" else dtype


def norm_options(dtype: str) -> dict[str, str | bool]:
    """How flax's normalisations are to be made: they compute in what parameters are held in, bfloat16 is too coarse."""
    return {"dtype": storage(dtype), "param_dtype": storage(dtype), "force_float32_reductions": False}


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
        held = storage(self.dtype)
        kernel = self.param("kernel", nn.initializers.zeros, (self.outputs, x.shape[-1]), held)
        y = (x.astype(self.dtype) @ kernel.astype(self.dtype).T).astype(held)
        return y + self.param("bias", nn.initializers.zeros, (self.outputs,), held)[None] if self.use_bias else y


@cache
def linear(inputs: int, outputs: int, *, bias: bool = True, dtype: str = "float32") -> Model:
    """A linear model from zero: params ``{"params": {"kernel": (outputs, inputs), "bias": (outputs,)}}``.

    With ``dtype`` ``"bfloat16"`` the product is computed in it, parameters and outputs stay float32. Equal arguments
    give the same object, so a jitted program is found again.
    """
    layer = Linear(outputs, bias, dtype)
    return Model(init=lambda key: layer.init(key, jnp.zeros((1, inputs), storage(dtype))), apply=layer.apply)
