"""BlogFeedback: predicting the number of comments on a blog post."""

from typing import Unpack

import numpy as np

from sps_jax import datasets
from sps_jax.datasets.partition import natural
from sps_jax.problem import Problem
from sps_jax.problems.dealing import deal
from sps_jax.problems.shared import SplitOfFile
from sps_jax.problems.supervised import linear_problem, objective
from sps_jax.simulation.choices import with_shared

CLIP = 10


@with_shared(clients=100, partition="by_size")
def blog_feedback(*, ridge: float = 1e-3, **split: Unpack[SplitOfFile]) -> Problem:
    """Linear regression on UCI BlogFeedback: half the squared error of log(1 + comments), centred.

    Features are standardised with the training set's means and deviations and clipped at 10; constant columns are
    dropped. The test set is the archive's own.

    Args:
      clients: n; by default the 554 blogs are dealt to them whole, by size.
      partition: by_size, natural (the first n blogs), iid, dirichlet or by_label (of the rounded target).
      ridge: weight of the ridge term.
      data_seed: seed of the partition.
      manual_dir: folder into which you have put BlogFeedback.zip.
    """
    raw = datasets.blog_feedback(manual_dir=split["manual_dir"], data_dir=split["data_dir"])
    mean, scale = raw.train_x.mean(0, dtype=np.float64), raw.train_x.std(0, dtype=np.float64)
    varies = np.ptp(raw.train_x, axis=0) > 0
    target = np.log1p(raw.train_y.astype(np.float64))

    def standard(x: np.ndarray) -> np.ndarray:
        return np.clip((x[:, varies] - mean[varies]) / scale[varies], -CLIP, CLIP)

    parts, apart = deal(split, np.rint(target).astype(int), natural(raw.train_blogs))
    centre = target.mean()
    return linear_problem(
        "squares",
        (standard(raw.train_x), target - centre),
        (standard(raw.test_x), np.log1p(raw.test_y.astype(np.float64)) - centre),
        parts,
        bias=False,
        **objective(split, apart, ridge),
    )
