"""The data sets by name, for those who ask what there is. ``SETS`` is the one table."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from sps_jax.datasets.blog_feedback import SpsBlogFeedback, blog_feedback
from sps_jax.datasets.cifar10 import SpsCifar10, cifar10
from sps_jax.datasets.femnist import SpsFemnist, femnist
from sps_jax.datasets.libsvm import SpsLibsvm, libsvm
from sps_jax.datasets.prepare import copies
from sps_jax.datasets.shakespeare import SpsShakespeare, shakespeare
from sps_jax.datasets.sources import SOURCES, Source


class DataSet(NamedTuple):
    """A data set.

    Attributes:
      source: where it comes from.
      load: ``manual_dir, data_dir`` as keywords -> its arrays; prepares them where they are not yet.
      builder: what prepares it.
      config: the builder's, where it has several; None for any.
    """

    source: Source
    load: Callable[..., Any]
    builder: type[tfds.core.GeneratorBasedBuilder]
    config: str | None = None

    def copies(self, data_dir: Path | None = None) -> list[Path]:
        """The folders of its prepared copies, none where it is not prepared."""
        return copies(self.builder, self.config, data_dir)


SETS: dict[str, DataSet] = {
    "femnist": DataSet(SOURCES["femnist"], femnist, SpsFemnist),
    "blog_feedback": DataSet(SOURCES["blog_feedback"], blog_feedback, SpsBlogFeedback),
    "a9a": DataSet(SOURCES["a9a"], partial(libsvm, "a9a"), SpsLibsvm, "a9a"),
    "mushrooms": DataSet(SOURCES["mushrooms"], partial(libsvm, "mushrooms"), SpsLibsvm, "mushrooms"),
    "cifar10": DataSet(SOURCES["cifar10"], cifar10, SpsCifar10),
    "shakespeare": DataSet(SOURCES["shakespeare"], shakespeare, SpsShakespeare),
}
