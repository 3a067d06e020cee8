"""BlogFeedback: how many comments a blog post will get."""

import numpy as np

from sps_jax import datasets
from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal
from sps_jax.problems.supervised import linear_problem

CLIP = 10


def blog_feedback(
    *,
    clients: int = 100,
    partition: str = "by_size",
    dirichlet_alpha: float = 0.3,
    batch_size: int | None = None,
    weights: str = "equal",
    ridge: float = 1e-3,
    validation: float = 0.0,
    data_seed: int = 0,
    precision: str = "float32",
    manual_dir: str | None = None,
    data_dir: str | None = None,
) -> Problem:
    """Linear regression on UCI BlogFeedback: half the squared error of log(1 + comments), centred.

    Features are standardised by the training part and clipped at 10; constant columns are dropped. The test part is
    the archive's own.

    Args:
      clients: n; the 554 blogs are dealt to them whole, by size.
      partition: by_size, natural (the first n blogs), iid, dirichlet or by_label (of the rounded target).
      dirichlet_alpha: heterogeneity of the dirichlet partition.
      batch_size: examples of a local gradient, None for all.
      weights: of the clients in the objective and in the server's mean: equal (the paper's f), or size, in proportion
        to their numbers of examples.
      ridge: weight of the ridge term.
      validation: fraction of each client's training examples that is kept apart, for choosing hyperparameters.
      data_seed: of the partition.
      precision: float32 or float64.
      manual_dir: folder with BlogFeedback.zip, put there by hand.
      data_dir: where prepared data are kept.
    """
    raw = datasets.blog_feedback(manual_dir=manual_dir, data_dir=data_dir)
    mean, scale = raw.train_x.mean(0, dtype=np.float64), raw.train_x.std(0, dtype=np.float64)
    varies = np.ptp(raw.train_x, axis=0) > 0
    target = np.log1p(raw.train_y.astype(np.float64))

    def standard(x: np.ndarray) -> np.ndarray:
        return np.clip((x[:, varies] - mean[varies]) / scale[varies], -CLIP, CLIP)

    parts, apart = deal(
        partition,
        clients,
        labels=np.rint(target).astype(int),
        groups=raw.train_blogs,
        dirichlet_alpha=dirichlet_alpha,
        validation=validation,
        seed=data_seed,
    )
    centre = target.mean()
    return linear_problem(
        "squares",
        (standard(raw.train_x), target - centre),
        (standard(raw.test_x), np.log1p(raw.test_y.astype(np.float64)) - centre),
        parts,
        bias=False,
        ridge=ridge,
        batch_size=batch_size,
        weights=weights,
        validation=apart,
        precision=precision,
    )
