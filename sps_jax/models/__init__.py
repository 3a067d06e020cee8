"""Networks, each a pair of pure functions ``(init, apply)``.

The first layer's weights lie under the name ``first``, the last one's under ``last``, for those who would not prune
them.
"""

from sps_jax.models.base import Model, storage
from sps_jax.models.linear import linear
from sps_jax.models.lstm import lstm
from sps_jax.models.resnet import resnet, resnet18
from sps_jax.models.resnet_cifar import resnet20, resnet32, resnet44, resnet56
from sps_jax.models.transformer import transformer

__all__ = ["Model", "linear", "lstm", "resnet", "resnet18", "storage", "transformer"]
__all__ += ["resnet20", "resnet32", "resnet44", "resnet56"]
