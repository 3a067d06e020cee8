"""Residual networks for 32 x 32 images."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sps_jax.models.base import Model, norm_options, storage
from sps_jax.models.conv import Conv
from sps_jax.tree import Tree

GROUPS = 32
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015, arXiv 1502.01852


class Block(nn.Module):
    """Two 3 x 3 convolutions plus the input, or plus its ``shortcut`` if shapes differ (He et al. 2016, figure 5 left).

    ``shortcut``: (this block, (b, H, W, c)) -> (b, H / strides, W / strides, features).
    """

    features: int
    strides: int
    conv: Callable[..., nn.Module]
    norm: Callable[[int], Callable]
    shortcut: Callable[["Block", jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, H, W, c) -> (b, H / strides, W / strides, features)."""
        strides = (self.strides, self.strides)
        y = nn.relu(self.norm(self.features)(self.conv(self.features, (3, 3), strides)(x)))
        y = self.norm(self.features)(self.conv(self.features, (3, 3), (1, 1))(y))
        if x.shape != y.shape:
            x = self.shortcut(self, x)
        return nn.relu(x + y)


def projection(block: Block, x: jax.Array) -> jax.Array:
    """Returns the shortcut by a 1 x 1 convolution, option B of He et al. 2016, section 3.3."""
    return block.norm(block.features)(block.conv(block.features, (1, 1), (block.strides, block.strides))(x))


def padded(block: Block, x: jax.Array) -> jax.Array:
    """Returns the shortcut without parameters, option A: every ``strides``-th pixel, and zeros as further features."""
    kept = x[:, :: block.strides, :: block.strides]
    return jnp.pad(kept, ((0, 0), (0, 0), (0, 0), (0, block.features - x.shape[3])))


class ResNet(nn.Module):
    """A 3 x 3 stem without pooling, stages of blocks, the mean over pixels, a linear head.

    Each stage after the first halves the image's sides and doubles the features.

    Attributes:
      classes: number of outputs.
      conv: (features, kernel size, strides) -> a convolution without bias.
      norm: features -> a function that normalises.
      dtype, param_dtype: the dtypes of the head's computation and parameters.
      width: number of features in the first stage.
      blocks: number of blocks per stage.
      shortcut: for blocks whose input and output shapes differ, see :class:`Block`.
    """

    classes: int
    conv: Callable[..., nn.Module]
    norm: Callable[[int], Callable]
    dtype: Any
    param_dtype: Any
    width: int
    blocks: tuple[int, ...]
    shortcut: Callable[[Block, jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, H, W, channels) -> (b, classes)."""
        x = nn.relu(self.norm(self.width)(self.conv(self.width, (3, 3), (1, 1), name="first")(x)))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                x = Block(self.width * 2**stage, strides, self.conv, self.norm, self.shortcut)(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="last", dtype=self.dtype, param_dtype=self.param_dtype)(x)


IMAGE = (32, 32, 3)
"""The image shape used to initialise parameters; their shapes do not depend on the image's size."""


def resnet18(classes: int = 10, **options: Any) -> Model:
    """Returns :func:`resnet` with four stages of two blocks: 11,173,962 parameters with 10 classes and width 64."""
    return resnet((2, 2, 2, 2), classes, **options)


@cache
def resnet(
    blocks: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    groups: int = GROUPS,
    shortcut: Callable[[Block, jax.Array], jax.Array] = projection,
    conv: Callable[..., nn.Module] = Conv,
    dtype: str = "float32",
) -> Model:
    """Returns a residual network (He et al. 2016, arXiv 1512.03385) with group normalisation.

    Group normalisation (Wu and He 2018, arXiv 1803.08494) needs no batch statistics, which would be further state to
    average over clients. Equal arguments give the same object.

    Args:
      blocks: number of blocks per stage.
      classes: number of outputs.
      width: number of features in the first stage.
      groups: number of groups of the normalisation, capped at the number of features.
      shortcut: :func:`projection` or :func:`padded`.
      conv: the convolution, :class:`sps_jax.models.conv.Conv` or ``flax.linen.Conv``.
      dtype: the dtype to compute in; ``"bfloat16"`` keeps parameters and outputs in float32.

    Raises:
      ValueError: if the number of groups does not divide the number of features of a stage.
    """
    features = [width * 2**stage for stage in range(len(blocks))]
    if any(some % min(groups, some) for some in features):
        raise ValueError(
            f"width must be a power of two or a multiple of {groups}, the groups of the normalisation, not {width}"
        )
    held, norm = storage(dtype), norm_options(dtype)
    types: dict[str, Any] = {"dtype": dtype, "param_dtype": held}
    layer = ResNet(
        classes,
        partial(conv, use_bias=False, kernel_init=he_normal, **types),
        lambda features: lambda x: nn.GroupNorm(min(groups, features), **norm)(x.astype(held)),
        width=width,
        blocks=blocks,
        shortcut=shortcut,
        **types,
    )

    def apply(params: Tree, images: jax.Array) -> jax.Array:
        return jnp.asarray(layer.apply(params, images.astype(held)), held)

    return Model(lambda key: layer.init(key, jnp.zeros((1, *IMAGE), held)), apply)
