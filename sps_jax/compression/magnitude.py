"""Magnitudes of floats as integers that sort like them."""

import jax
import jax.numpy as jnp
from jax import lax


def magnitude_bits(x: jax.Array) -> jax.Array:
    """Returns ``|x|`` as integers of the same width and order: IEEE floats without their sign sort like integers.

    There is no floating-point arithmetic, so denormals keep their order, -0 equals 0, and NaN ranks above infinity.
    """
    word = jnp.dtype(f"int{jnp.finfo(x.dtype).bits}")
    return lax.bitcast_convert_type(x, word) & jnp.iinfo(word).max
