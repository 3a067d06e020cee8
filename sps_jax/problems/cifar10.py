"""CIFAR-10: classifying small images with a deep network."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax import datasets
from sps_jax.errors import unknown
from sps_jax.models import Model, resnet18, resnet20, resnet32, resnet44, resnet56, storage
from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal
from sps_jax.problems.supervised import held_in, network_problem

MODELS = {make.__name__: make for make in (resnet18, resnet20, resnet32, resnet44, resnet56)}
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images' channels, in [0, 1]
MARGIN = 4


def cifar10(
    *,
    model: str = "resnet18",
    width: int | None = None,
    clients: int = 10,
    partition: str = "dirichlet",
    dirichlet_alpha: float = 0.5,
    batch_size: int | None = 16,
    augment: bool = True,
    weights: str = "equal",
    evaluate_examples: int | None = 100,
    validation: float = 0.0,
    data_seed: int = 0,
    precision: str = "float32",
    manual_dir: str | None = None,
    data_dir: str | None = None,
) -> Problem:
    """Image classification on CIFAR-10 (Krizhevsky 2009), 50,000 training and 10,000 test images of 10 classes.

    Images stay bytes; a local step standardises its batch channel by channel, after a random crop (4 black pixels
    around) and a random horizontal flip of every image.

    Args:
      model: resnet18, or the thinner resnet20, resnet32, resnet44 or resnet56.
      width: features of the network's first stage; default is 64 for resnet18 and 16 for the others.
      clients: n.
      partition: dirichlet, iid or by_label.
      dirichlet_alpha: heterogeneity of the dirichlet partition.
      batch_size: examples of a local gradient, None for all.
      augment: whether batches are cropped and flipped.
      weights: of the clients in the objective and in the server's mean: equal (the paper's f), or size, in proportion
        to their numbers of examples.
      evaluate_examples: of each client, the first so many, that the training loss is evaluated on; None for all.
      validation: fraction of each client's training examples that is kept apart, for choosing hyperparameters.
      data_seed: of the partition.
      precision: float32, float64, or bfloat16 to compute in it with float32 parameters.
      manual_dir: folder with cifar-10-binary.tar.gz, put there by hand.
      data_dir: where prepared data are kept.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    if width is not None and width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    held_in(precision)
    raw = datasets.cifar10(manual_dir=manual_dir, data_dir=data_dir)
    sized = {} if width is None else {"width": width}
    choices: dict[str, Any] = {"dirichlet_alpha": dirichlet_alpha, "validation": validation, "seed": data_seed}
    parts, apart = deal(partition, clients, labels=raw.train_y, **choices)
    return network_problem(
        "softmax",
        _on_bytes(MODELS[model](10, dtype=precision, **sized), storage(precision)),
        (raw.train_x, raw.train_y),
        (raw.test_x, raw.test_y),
        parts,
        batch_size=batch_size,
        weights=weights,
        validation=apart,
        precision=precision,
        augment=crop_and_flip if augment else None,
        evaluate_batch=50,
        evaluate_examples=evaluate_examples,
    )


@cache
def _on_bytes(model: Model, dtype: str) -> Model:
    """``model`` behind :func:`standardised`."""
    return Model(model.init, lambda params, images: model.apply(params, standardised(images, dtype)))


def standardised(images: jax.Array, dtype: str) -> jax.Array:
    """(b, 32, 32, 3) uint8 -> the same in ``dtype``, each channel of mean 0 and variance 1 over the training images."""
    mean, deviation = (np.asarray(a, dtype)[None, None, None] for a in (MEAN, DEVIATION))
    return (images.astype(dtype) / 255 - mean) / deviation


def crop_and_flip(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each image shifted by up to 4 pixels each way, black where it ends, and mirrored with probability 1/2."""
    b, height, width, c = images.shape
    shift, mirror = jax.random.split(key)
    corners = jax.random.randint(shift, (b, 2), 0, 2 * MARGIN + 1)
    wide = jnp.pad(images, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    cut = jax.vmap(lambda a, corner: jax.lax.dynamic_slice(a, (corner[0], corner[1], 0), (height, width, c)))
    images = cut(wide, corners)
    mirrored = jax.random.bernoulli(mirror, 0.5, (b, 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images), labels
