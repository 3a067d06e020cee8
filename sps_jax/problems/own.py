"""Your own data without code: a file, or a data set that TensorFlow Datasets has prepared."""

from dataclasses import replace
from typing import Annotated, Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.datasets import partition
from sps_jax.datasets.catalogue import catalogued
from sps_jax.datasets.columns import Examples, Named, read_examples
from sps_jax.errors import refuse_unknown
from sps_jax.models import after
from sps_jax.problem import Problem
from sps_jax.problems.arrays import by_client, from_arrays, scaled
from sps_jax.problems.cifar10 import MODELS
from sps_jax.problems.dealing import deal
from sps_jax.problems.shared import Drawn, Split
from sps_jax.problems.supervised import held_in
from sps_jax.simulation.choices import with_shared

LINEAR = "linear"
CLIENTS = 10
"""The number of clients if neither the data nor the user says it."""


class Own(Split, Drawn, TypedDict, total=False):
    """The options of a problem of a user's own data."""

    label: Annotated[str | None, None, "column of the labels or targets."]
    client: Annotated[str | None, None, "column of the client of each example, if there is one."]
    inputs: Annotated[str | None, None, "columns of the inputs, separated by commas. Default is all others."]
    image: Annotated[
        str | None,
        None,
        "shape of an image, such as 28,28 or 32,32,3; whole numbers up to 255 are scaled to [0, 1].",
    ]
    test: Annotated[float, 0.2, "fraction of each client's examples held out, if no test data are given."]
    model: Annotated[str, LINEAR, "linear, or for images resnet18, resnet20, resnet32, resnet44 or resnet56."]
    loss: Annotated[
        str | None, None, "softmax, logistic or squares; the default follows from the labels, see sps_jax.from_arrays."
    ]
    ridge: Annotated[float, 0.0, "weight of the ridge term."]
    feature_noise: Annotated[
        float, 0.0, "variance of the Gaussian noise on the inputs of the last client; the i-th of n has i/n of it."
    ]


@with_shared(clients=None, partition=None)
def arrays(*, file: str | None = None, **own: Unpack[Own]) -> Problem:
    """Your own examples in a .npz, .csv or .parquet file, dealt to clients by a column or by a partition.

    Args:
      file: the file.
      label: column of the labels or targets; y by default.
      clients: n, the number of clients; default is all of the column ``client``, or 10 without one.
      partition: natural (by the column ``client``, the default if it is given), iid (the default without one),
        dirichlet, few_labels, by_label, quantity, or by_size (whole natural clients).
    """
    if file is None:
        raise ValueError("arrays needs a file: --file FILE, or file= in Python")
    train = read_examples(file, Named(own["label"], own["client"], _listed(own["inputs"])))
    return _problem(train, None, own)


@with_shared(clients=None, partition=None)
def tfds(*, dataset: str | None = None, data_dir: str | None = None, **own: Unpack[Own]) -> Problem:
    """Any data set that TensorFlow Datasets has prepared, such as tfds:mnist, read without TensorFlow.

    It must be stored as array_record (``tfds build mnist --file_format=array_record``). Its split ``test`` is the test
    data.

    Args:
      dataset: its name, mnist or name/config; on the command line --problem tfds:mnist says the same.
      data_dir: folder of the prepared data; default is the variable TFDS_DATA_DIR, or else that of TFDS.
      label: feature of the labels or targets; by default what the set declares.
      client: feature of the client of each example, if there is one.
      inputs: features of the inputs, separated by commas; by default what the set declares.
      test: fraction of each client's examples held out for testing, if there is no split test.
      clients: as for arrays.
      partition: as for arrays.
    """
    if dataset is None:
        raise ValueError("tfds needs a data set: --problem tfds:NAME, or dataset= in Python")
    found = catalogued(dataset, Named(own["label"], own["client"], _listed(own["inputs"])), data_dir)
    problem = _problem(found.train, found.test, own)
    numbers = range(len(found.classes or ())) if problem.classes is None else problem.classes
    return problem if not found.classes else replace(problem, classes=tuple(found.classes[i] for i in numbers))


def _listed(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(name.strip() for name in names.split(","))


def _problem(train: Examples, test: Examples | None, own: Any) -> Problem:
    """Returns the problem of examples dealt to clients as the options say."""
    natural = None if train.clients is None else by_client(train.clients)
    how = own["partition"] or ("iid" if natural is None else "natural")
    most = len(natural) if natural is not None and how == "natural" else CLIENTS
    parts, _ = deal(own | {"partition": how, "clients": own["clients"] or most, "validation": 0}, train.y, natural)
    x, test_x = (images(part.x, own["image"]) for part in (train, test or train))
    if own["feature_noise"]:
        x, test_x = (scaled(a, held_in(own["precision"])) for a in (x, test_x))
        x = partition.noisy(x, parts, own["feature_noise"], own["data_seed"])
    x, test_x = (_shaped(a, own["model"]) for a in (x, test_x))
    y, rows = np.asarray(train.y), np.concatenate(parts)
    ids = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return from_arrays(
        x[rows],
        y[rows],
        ids,
        model=network(own["model"], len(np.unique(y.astype(str))), own["precision"]),
        test=(own["test"] or None) if test is None else (test_x, np.asarray(test.y)),
        seed=own["data_seed"],
        **{name: own[name] for name in ("loss", "ridge", "weights", "batch_size", "precision", "validation")},
    )


def network(name: str, classes: int, precision: str) -> Any:
    """Returns the network of that name for these many classes, None for the linear model."""
    refuse_unknown("model", name, (LINEAR, *MODELS))
    return None if name == LINEAR else after(_coloured, MODELS[name](classes, dtype=precision))


def _coloured(images: jax.Array) -> jax.Array:
    """Returns (b, H, W, 3) for images of one or three channels."""
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def images(x: np.ndarray, shape: str | None) -> np.ndarray:
    """Returns x as images of a shape such as ``"28,28"``, bytes if they are whole numbers from 0 to 255.

    >>> images(np.full((2, 4), 255), "2,2").shape, images(np.full((2, 4), 255), "2,2").dtype.name
    ((2, 2, 2), 'uint8')

    Raises:
      ValueError: if ``shape`` is no shape of x's examples.
    """
    if shape is None:
        return x
    sides = shape.replace("x", ",").split(",")
    if not all(side.strip().isdigit() for side in sides) or len(sides) not in (2, 3):
        raise ValueError(f"image must be height,width or height,width,channels, such as 28,28, not {shape!r}")
    sizes = tuple(map(int, sides))
    if x[:1].size != np.prod(sizes):
        raise ValueError(f"image {shape} has {np.prod(sizes)} numbers, but an example has {x[:1].size}")
    whole = x.dtype.kind in "ui" and x.min() >= 0 and x.max() <= 255
    return x.reshape(len(x), *sizes).astype(np.uint8 if whole else x.dtype)


def _shaped(x: np.ndarray, model: str) -> np.ndarray:
    """Returns x, with an axis of one channel where a network for images needs it."""
    if model == LINEAR:
        return x
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3)):
        raise ValueError(f"model {model} takes images of one or three channels: give their shape, such as image 28,28")
    return x if x.ndim == 4 else x[..., None]
