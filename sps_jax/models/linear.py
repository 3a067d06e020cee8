"""A linear model."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp

from sps_jax.models.base import Model, storage


class Linear(nn.Module):
    """``x @ kernel.T + bias``, initialised with zeros.

    The kernel is (outputs, inputs), the transpose of ``nn.Dense``'s: there are more inputs than outputs, and XLA:CPU
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
    """Returns a linear model that starts from zero.

    Its params are ``{"params": {"kernel": (outputs, inputs), "bias": (outputs,)}}``. With ``dtype`` ``"bfloat16"`` the
    product is computed in bfloat16; parameters and outputs stay float32. Equal arguments give the same object, so that
    JAX reuses a compiled program.
    """
    layer = Linear(outputs, bias, dtype)
    return Model(
        init=lambda key: layer.init(key, jnp.zeros((1, inputs), storage(dtype))),
        apply=lambda params, x: jnp.asarray(layer.apply(params, x)),
    )
