"""FEMNIST: handwritten characters, with writers as clients."""

from typing import Unpack

import numpy as np

from sps_jax import datasets
from sps_jax.datasets.partition import natural
from sps_jax.errors import refuse_unknown
from sps_jax.problem import Problem
from sps_jax.problems.dealing import hold_out_and_deal
from sps_jax.problems.shared import SplitOfFile
from sps_jax.problems.supervised import linear_problem, objective
from sps_jax.simulation.choices import with_shared

CLASSES = {"digits": 10, "all": 62}
MIN_IMAGES = 10


@with_shared(clients=100, partition="natural")
def femnist(*, classes: str = "digits", ridge: float = 0.0, **split: Unpack[SplitOfFile]) -> Problem:
    """Softmax regression on FEMNIST (LEAF, arXiv 1812.01097), 28 x 28 pixels scaled to [0, 1] with ink = 1.

    By default the clients are the first ``clients`` writers, in the file's order, with at least 10 images of the
    classes. A tenth of each writer's images, drawn with ``data_seed``, is test data.

    Args:
      classes: digits (10) or all (62).
      clients: n; with the natural partition the first n writers, otherwise all writers' images are dealt to n clients.
      partition: natural (a client is a writer), iid, dirichlet, by_label, or by_size (whole writers).
      ridge: weight of the ridge term.
      manual_dir: folder into which you have put the parquet file of flwrlabs/femnist.
    """
    refuse_unknown("classes", classes, CLASSES)
    images, labels, writers = datasets.femnist(manual_dir=split["manual_dir"], data_dir=split["data_dir"])
    own = by_writer(labels, writers, CLASSES[classes])
    called = f"writers of at least {MIN_IMAGES} images"
    rows, held, parts, apart = hold_out_and_deal(split, labels, own, called)

    def pixels(rows: np.ndarray) -> np.ndarray:
        return 1 - images[rows].reshape(len(rows), -1) / np.float32(255)

    return linear_problem(
        "softmax",
        (pixels(rows), labels[rows]),
        (pixels(held), labels[held]),
        parts,
        outputs=CLASSES[classes],
        **objective(split, apart, ridge),
    )


def by_writer(labels: np.ndarray, writers: np.ndarray, classes: int) -> list[np.ndarray]:
    """Returns the rows of the images of the first ``classes``, per writer with at least ``MIN_IMAGES`` of them."""
    chosen = np.flatnonzero(labels < classes)
    return [chosen[part] for part in natural(writers[chosen]) if len(part) >= MIN_IMAGES]
