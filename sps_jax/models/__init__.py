"""Networks, each a pair of pure functions ``(init, apply)``."""

from sps_jax.models.linear import Model, linear

__all__ = ["Model", "linear"]
