"""Networks, each a pair of pure functions ``(init, apply)``.

The first layer's weights lie under the name ``first``, the last one's under ``last``, for those who would not prune
them.
"""

from sps_jax.models.linear import Model, linear, storage
from sps_jax.models.lstm import lstm
from sps_jax.models.resnet import resnet18
from sps_jax.models.transformer import transformer

__all__ = ["Model", "linear", "lstm", "resnet18", "storage", "transformer"]
