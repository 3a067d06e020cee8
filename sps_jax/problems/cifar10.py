"""CIFAR-10: classifying small images with a deep network."""

from functools import cache, partial
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax import datasets
from sps_jax.errors import refuse_unknown
from sps_jax.models import Model, after, resnet18, resnet20, resnet32, resnet44, resnet56
from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal
from sps_jax.problems.shared import SplitOfFile
from sps_jax.problems.supervised import held_in, network_problem, objective
from sps_jax.simulation.choices import with_shared

MODELS = {make.__name__: make for make in (resnet18, resnet20, resnet32, resnet44, resnet56)}
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images' channels, in [0, 1]
MARGIN = 4


@with_shared(clients=10, partition="dirichlet", dirichlet_alpha=0.5, batch_size=16)
def cifar10(
    *,
    model: str = "resnet18",
    width: int | None = None,
    augment: bool = True,
    evaluate_examples: int | None = 100,
    **split: Unpack[SplitOfFile],
) -> Problem:
    """Image classification on CIFAR-10 (Krizhevsky 2009), 50,000 training and 10,000 test images of 10 classes.

    Images are stored as bytes. A local step crops each image of its batch at random (after padding with 4 black
    pixels), flips it horizontally at random, and standardises it per channel.

    Args:
      model: resnet18, or the thinner resnet20, resnet32, resnet44 or resnet56.
      width: number of features in the network's first stage; default is 64 for resnet18 and 16 for the others.
      augment: whether batches are cropped and flipped.
      evaluate_examples: number of each client's first examples that the training loss is evaluated on; None for all.
      data_seed: seed of the partition.
      manual_dir: folder into which you have put cifar-10-binary.tar.gz.
    """
    refuse_unknown("model", model, MODELS)
    if width is not None and width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    dtype = held_in(split["precision"])
    raw = datasets.cifar10(manual_dir=split["manual_dir"], data_dir=split["data_dir"])
    sized = {} if width is None else {"width": width}
    parts, apart = deal(split, raw.train_y)
    return network_problem(
        "softmax",
        _on_bytes(MODELS[model](10, dtype=split["precision"], **sized), dtype),
        (raw.train_x, raw.train_y),
        (raw.test_x, raw.test_y),
        parts,
        augment=crop_and_flip if augment else None,
        evaluate_batch=50,
        evaluate_examples=evaluate_examples,
        **objective(split, apart),
    )


@cache
def _on_bytes(model: Model, dtype: str) -> Model:
    """Returns ``model`` with :func:`standardised` applied to its inputs."""
    return after(partial(standardised, dtype=dtype), model)


def standardised(images: jax.Array, dtype: str) -> jax.Array:
    """Returns (b, 32, 32, 3) uint8 images in ``dtype``; channels have mean 0 and variance 1 over the training set."""
    mean, deviation = (np.asarray(a, dtype)[None, None, None] for a in (MEAN, DEVIATION))
    return (images.astype(dtype) / 255 - mean) / deviation


def crop_and_flip(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns each image shifted by up to 4 pixels each way, filled with black, and mirrored with probability 1/2."""
    b, height, width, c = images.shape
    shift, mirror = jax.random.split(key)
    corners = jax.random.randint(shift, (b, 2), 0, 2 * MARGIN + 1)
    wide = jnp.pad(images, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    cut = jax.vmap(lambda a, corner: jax.lax.dynamic_slice(a, (corner[0], corner[1], 0), (height, width, c)))
    images = cut(wide, corners)
    mirrored = jax.random.bernoulli(mirror, 0.5, (b, 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images), labels
