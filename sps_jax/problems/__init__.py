"""Problems by name, each a data set, a model and a loss. ``sps-jax list problems`` prints the table ``PROBLEMS``.

``digits``, ``synthetic_logistic`` and ``quadratic`` need no download. ``arrays`` reads your own file, ``tfds`` what
TensorFlow Datasets has prepared. The other problems download and prepare their
data once, in TFDS's data folder; offline, put the files into a folder and name it with ``--manual-dir DIR``
(``manual_dir=`` in Python). ``sps-jax data`` lists the data sets and their folders.
"""

from collections.abc import Callable

from sps_jax.problem import Problem
from sps_jax.problems.blog_feedback import blog_feedback
from sps_jax.problems.cifar10 import cifar10
from sps_jax.problems.digits import digits
from sps_jax.problems.femnist import femnist
from sps_jax.problems.libsvm import libsvm
from sps_jax.problems.own import arrays, tfds
from sps_jax.problems.quadratic import quadratic
from sps_jax.problems.shakespeare import shakespeare
from sps_jax.problems.synthetic import synthetic_logistic

PROBLEMS: dict[str, Callable[..., Problem]] = {
    make.__name__: make
    for make in (
        digits,
        femnist,
        blog_feedback,
        libsvm,
        cifar10,
        shakespeare,
        synthetic_logistic,
        quadratic,
        arrays,
        tfds,
    )
}

__all__ = ["PROBLEMS", *PROBLEMS]
