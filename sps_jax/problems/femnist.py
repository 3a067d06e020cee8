"""FEMNIST, handwriting by writer."""

import numpy as np

from sps_jax import datasets
from sps_jax.datasets.partition import natural
from sps_jax.errors import unknown
from sps_jax.problem import Problem
from sps_jax.problems.dealing import hold_out_and_deal
from sps_jax.problems.supervised import linear_problem

CLASSES = {"digits": 10, "all": 62}
MIN_IMAGES = 10


def femnist(
    *,
    classes: str = "digits",
    clients: int = 100,
    partition: str = "natural",
    dirichlet_alpha: float = 0.3,
    batch_size: int | None = None,
    weights: str = "equal",
    ridge: float = 0.0,
    validation: float = 0.0,
    data_seed: int = 0,
    precision: str = "float32",
    manual_dir: str | None = None,
    data_dir: str | None = None,
) -> Problem:
    """Softmax regression on FEMNIST (LEAF, arXiv 1812.01097), 28 x 28 pixels scaled to [0, 1] with ink = 1.

    The writers with at least 10 images of the classes, in the file's order, the first ``clients`` of them; a tenth of
    each writer's images, drawn with ``data_seed``, is test data.

    Args:
      classes: digits (10) or all (62).
      clients: n, writers, or clients that their images are dealt to.
      partition: natural (a client is a writer), iid, dirichlet, by_label, or by_size (whole writers).
      dirichlet_alpha: heterogeneity of the dirichlet partition.
      batch_size: examples of a local gradient, None for all.
      weights: of the clients in the objective and in the server's mean: equal (the paper's f), or size, in proportion
        to their numbers of examples.
      ridge: weight of the ridge term.
      validation: fraction of each client's training examples that is kept apart, for choosing hyperparameters.
      data_seed: of the test part and of the partition.
      precision: float32 or float64.
      manual_dir: folder with the parquet file of flwrlabs/femnist, put there by hand.
      data_dir: where prepared data are kept.
    """
    if classes not in CLASSES:
        raise unknown("classes", classes, CLASSES)
    images, labels, writers = datasets.femnist(manual_dir=manual_dir, data_dir=data_dir)
    own = by_writer(labels, writers, CLASSES[classes])
    rows, held, parts, apart = hold_out_and_deal(
        own,
        partition,
        clients,
        labels=labels,
        natural=f"writers of at least {MIN_IMAGES} images",
        dirichlet_alpha=dirichlet_alpha,
        validation=validation,
        seed=data_seed,
    )

    def pixels(rows: np.ndarray) -> np.ndarray:
        return 1 - images[rows].reshape(len(rows), -1) / np.float32(255)

    return linear_problem(
        "softmax",
        (pixels(rows), labels[rows]),
        (pixels(held), labels[held]),
        parts,
        outputs=CLASSES[classes],
        ridge=ridge,
        batch_size=batch_size,
        weights=weights,
        validation=apart,
        precision=precision,
    )


def by_writer(labels: np.ndarray, writers: np.ndarray, classes: int) -> list[np.ndarray]:
    """For each writer with at least ``MIN_IMAGES`` images of the first ``classes`` the rows of these images."""
    chosen = np.flatnonzero(labels < classes)
    return [chosen[part] for part in natural(writers[chosen]) if len(part) >= MIN_IMAGES]
