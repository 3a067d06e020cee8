"""Load real data as NumPy arrays and partition them over clients.

``femnist``, ``blog_feedback``, ``libsvm``, ``cifar10`` and ``shakespeare`` each prepare their data once with TensorFlow
Datasets (without TensorFlow) under its usual directory, ``~/tensorflow_datasets`` or ``TFDS_DATA_DIR``, and then read
the prepared copy. ``partition`` turns labels or groups into one index array per client. ``SETS`` maps the name of each
data set to its source, its terms of use and its loader.

Importing this package imports ``tensorflow_datasets`` (a few tenths of a second) but neither TensorFlow nor the
readers of the original files (pyarrow, scikit-learn), which are needed only to prepare data.
"""

from functools import partial

from sps_jax.datasets import partition
from sps_jax.datasets.blog_feedback import SOURCE as BLOG_FEEDBACK
from sps_jax.datasets.blog_feedback import BlogFeedback, SpsBlogFeedback, blog_feedback
from sps_jax.datasets.cifar10 import SOURCE as CIFAR10
from sps_jax.datasets.cifar10 import Cifar10, SpsCifar10, cifar10
from sps_jax.datasets.femnist import SOURCE as FEMNIST
from sps_jax.datasets.femnist import Femnist, SpsFemnist, femnist
from sps_jax.datasets.libsvm import SOURCES, LibSVM, SpsLibsvm, libsvm
from sps_jax.datasets.prepare import DataSet, Source
from sps_jax.datasets.shakespeare import SOURCE as SHAKESPEARE
from sps_jax.datasets.shakespeare import Shakespeare, SpsShakespeare, shakespeare

SETS: dict[str, DataSet] = {
    "femnist": DataSet(FEMNIST, femnist, SpsFemnist),
    "blog_feedback": DataSet(BLOG_FEEDBACK, blog_feedback, SpsBlogFeedback),
    **{name: DataSet(source, partial(libsvm, name), SpsLibsvm, name) for name, source in SOURCES.items()},
    "cifar10": DataSet(CIFAR10, cifar10, SpsCifar10),
    "shakespeare": DataSet(SHAKESPEARE, shakespeare, SpsShakespeare),
}

__all__ = [
    "SETS",
    "BlogFeedback",
    "Cifar10",
    "DataSet",
    "Femnist",
    "LibSVM",
    "Shakespeare",
    "Source",
    "blog_feedback",
    "cifar10",
    "femnist",
    "libsvm",
    "partition",
    "shakespeare",
]
