"""Real data, as NumPy arrays, and the ways of dealing it to clients.

``femnist``, ``blog_feedback``, ``libsvm``, ``cifar10`` and ``shakespeare`` each prepare their data once with TensorFlow
Datasets (without TensorFlow) under its usual directory, ``~/tensorflow_datasets`` or ``TFDS_DATA_DIR``, and read the
prepared copy from then on. ``partition`` turns labels or groups into one index array per client. ``SOURCES`` tells
where each data set comes from and under which terms.

Importing this package imports ``tensorflow_datasets`` (a few tenths of a second) but neither TensorFlow nor the
readers of the original files (pyarrow, scikit-learn), which only preparing needs.
"""

from sps_jax.datasets import partition
from sps_jax.datasets.blog_feedback import BlogFeedback, blog_feedback
from sps_jax.datasets.cifar10 import Cifar10, cifar10
from sps_jax.datasets.femnist import Femnist, femnist
from sps_jax.datasets.libsvm import LibSVM, libsvm
from sps_jax.datasets.sets import SETS, DataSet
from sps_jax.datasets.shakespeare import Shakespeare, shakespeare
from sps_jax.datasets.sources import SOURCES, Source

__all__ = [
    "SETS",
    "SOURCES",
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
