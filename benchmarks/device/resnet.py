"""ResNet18 on random images, by a convolution that is told and not chosen; what three parts measure."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from sps_jax import Problem
from sps_jax.models import Model, resnet, resnet18
from sps_jax.models.conv import native_conv, patches_conv
from sps_jax.problems.supervised import network_problem

BATCH, STEPSIZE = 16, 0.01


class Conv(nn.Module):
    """A convolution without bias; it has the name and the parameters of ``sps_jax.models.conv.Conv``, so their start.

    Attributes:
      convolution: (x, kernel, strides) -> y.
      features, kernel_size, strides, use_bias, dtype, param_dtype, kernel_init: as there; no bias.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    use_bias: bool = False
    dtype: Any = None
    param_dtype: Any = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()
    convolution: Callable = native_conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, H, W, c) -> (b, ceil(H / down), ceil(W / right), features)."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        return self.convolution(*nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype), self.strides)


CONVOLUTIONS = {"native": Conv, "patches": partial(Conv, convolution=patches_conv)}


def network(small: bool, convolution: str = "native") -> Model:
    """ResNet18, or a network of two thin blocks in its place."""
    conv = CONVOLUTIONS[convolution]
    return resnet((1, 1), 10, width=4, conv=conv) if small else resnet18(conv=conv)


def images_problem(model: Model, clients: int, examples: int, batch: int = BATCH) -> Problem:
    """Random standardised images of 10 classes, each with something of its class, taken in order."""
    generator = np.random.default_rng(18)
    labels = generator.integers(0, 10, clients * examples).astype(np.int32)
    patterns = generator.standard_normal((10, 32, 32, 3), np.float32)
    images = generator.standard_normal((len(labels), 32, 32, 3), np.float32) + patterns[labels] / 2
    parts = np.split(np.arange(len(labels)), clients)
    asked = {"batch_size": batch, "in_order": True, "evaluate_batch": batch, "evaluate_examples": batch}
    return network_problem("softmax", model, (images, labels), None, parts, **asked)
