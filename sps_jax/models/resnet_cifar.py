"""The thin residual networks for CIFAR-10 (He et al. 2016, arXiv 1512.03385, section 4.2)."""

from typing import Any

from sps_jax.models.base import Model
from sps_jax.models.resnet import padded, resnet

GROUPS = 8


def resnet20(classes: int = 10, **options: Any) -> Model:
    """Returns :func:`resnet_cifar` with n = 3: 269,722 parameters with 10 classes and width 16."""
    return resnet_cifar(3, classes, **options)


def resnet32(classes: int = 10, **options: Any) -> Model:
    """Returns :func:`resnet_cifar` with n = 5: 464,154 parameters."""
    return resnet_cifar(5, classes, **options)


def resnet44(classes: int = 10, **options: Any) -> Model:
    """Returns :func:`resnet_cifar` with n = 7: 658,586 parameters."""
    return resnet_cifar(7, classes, **options)


def resnet56(classes: int = 10, **options: Any) -> Model:
    """Returns :func:`resnet_cifar` with n = 9: 853,018 parameters."""
    return resnet_cifar(9, classes, **options)


def resnet_cifar(n: int, classes: int, *, width: int = 16, groups: int = GROUPS, **options: Any) -> Model:
    """Returns the network of 6n + 2 layers: three stages of n blocks with 1, 2 and 4 times ``width`` features.

    Shortcuts have no parameters (option A of the paper). Group normalisation replaces the paper's batch normalisation,
    for the reason given in :func:`sps_jax.models.resnet.resnet`, which takes the other ``options``.

    Args:
      n: number of blocks per stage.
      classes: number of outputs.
      width: number of features in the first stage.
      groups: number of groups of the normalisation. ResNet18's 32 would make each of the 16 features a group, which is
        instance normalisation.
    """
    return resnet((n, n, n), classes, width=width, groups=groups, shortcut=padded, **options)
