"""Data set + model + loss, by name. ``PROBLEMS`` is the one table."""

from collections.abc import Callable

from sps_jax.problem import Problem
from sps_jax.problems.blog_feedback import blog_feedback
from sps_jax.problems.cifar10 import cifar10
from sps_jax.problems.digits import digits
from sps_jax.problems.femnist import femnist
from sps_jax.problems.libsvm import libsvm
from sps_jax.problems.quadratic import quadratic
from sps_jax.problems.shakespeare import shakespeare
from sps_jax.problems.synthetic import synthetic_logistic

PROBLEMS: dict[str, Callable[..., Problem]] = {
    make.__name__: make
    for make in (digits, femnist, blog_feedback, libsvm, cifar10, shakespeare, synthetic_logistic, quadratic)
}

__all__ = ["PROBLEMS", *PROBLEMS]
