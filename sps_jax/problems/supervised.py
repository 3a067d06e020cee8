"""From arrays and a partition to a :class:`Problem`: any network, and linear models with the constants of theory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.errors import unknown
from sps_jax.layout import by_client
from sps_jax.models import Model, linear, storage
from sps_jax.problem import Problem
from sps_jax.problems.losses import loss_named, loss_of, metrics_of, of_moments
from sps_jax.problems.shared import Split, with_shared
from sps_jax.simulation.stacking import stack_clients

WEIGHTS = ("equal", "size")
PRECISIONS = ("float32", "float64", "bfloat16")


class Objective(TypedDict, total=False):
    """What f is besides a loss of examples, and what it is computed on and in; see :func:`with_shared`."""

    ridge: Annotated[float, 0.0, "rho of :class:`Problem`."]
    batch_size: Annotated[int | None, None, "examples of a local gradient, None for all."]
    weights: Annotated[str, "equal", "of the clients, equal or size, in proportion to their numbers of examples."]
    validation: Annotated[np.ndarray | None, None, "rows of ``train``, of no client, for choosing hyperparameters."]
    precision: Annotated[str, "float32", "of ``PRECISIONS``."]


class Evaluated(Objective, total=False):
    """And how batches are drawn and the whole is evaluated."""

    in_order: Annotated[bool, False, "see :class:`Problem`."]
    augment: Annotated[Callable[..., tuple[jax.Array, ...]] | None, None, "see :class:`Problem`."]
    evaluate_batch: Annotated[int | None, None, "see :class:`Problem`."]
    evaluate_examples: Annotated[int | None, None, "see :class:`Problem`."]


def objective(split: Split, apart: np.ndarray | None, ridge: float = 0.0) -> Objective:
    """The objective of a problem's options, and the rows that :func:`sps_jax.problems.dealing.deal` keeps apart."""
    return Objective(
        ridge=ridge,
        batch_size=split["batch_size"],
        weights=split["weights"],
        validation=apart,
        precision=split["precision"],
    )


def smoothness(x: np.ndarray, parts: Sequence[np.ndarray], curvature: float, ridge: float, bias: bool) -> np.ndarray:
    r"""(n,) the constants :math:`L_i = c\, \lambda_{\max}(A_i^\top A_i / m_i) + \rho` of clients with linear models."""

    def largest(a: np.ndarray) -> float:
        a = np.hstack([a, np.ones((len(a), 1))]) if bias else a
        gram = a @ a.T if len(a) < a.shape[1] else a.T @ a
        return np.linalg.eigvalsh(gram)[-1] / len(a)

    return np.array([curvature * largest(x[part].astype(np.float64)) + ridge for part in parts])


def moments(x: np.ndarray, y: np.ndarray, parts: Sequence[np.ndarray], precision: str) -> tuple[np.ndarray, ...]:
    r"""Least squares of a client in d^2 numbers: :math:`A^\top A/m,\; A^\top y/m,\; \|y\|^2/m` as its one example.

    Full gradients from these cost d^2 instead of m d, and no padding of small clients to the largest.

    Returns:
      ``data`` of shapes (n, 1, d, d), (n, 1, d), (n, 1), computed in float64.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    own = [(x[part], y[part]) for part in parts]
    sums = zip(*((a.T @ a / len(b), a.T @ b / len(b), b @ b / len(b)) for a, b in own), strict=True)
    return tuple(np.stack(s).astype(precision)[:, None] for s in sums)


@with_shared()
def linear_problem(
    loss: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    parts: Sequence[np.ndarray],
    *,
    outputs: int = 1,
    bias: bool = True,
    **options: Unpack[Objective],
) -> Problem:
    """A linear model on data dealt to clients, with the constants theory asks for.

    Args:
      loss: ``"softmax"`` (integer labels), ``"logistic"`` (labels 0 and 1), ``"squares"`` (half the squared error).
      train: x (N, d) and y (N,).
      test: the same of examples no client has, or None.
      parts: for each client the rows of ``train`` that are its own.
      outputs: of the model; the number of classes for ``"softmax"``.
      bias: whether the model has one.
      ridge: rho of :class:`Problem`, its mu too.

    Raises:
      ValueError: for a batch size below one, a negative ridge, an unknown loss, weights or precision, no feature,
        numbers that are not finite, or labels that are none of the classes.
    """
    precision, ridge = options["precision"], options["ridge"]
    dtype, named = held_in(precision), loss_named(loss)
    if train[0].ndim != 2 or train[0].shape[1] < 1:
        raise ValueError(f"a linear model needs examples (N, d) of at least one feature, not {train[0].shape}")
    for x, y in filter(None, (train, test)):
        _check_examples(loss, x, y, outputs)
    labels = np.int32 if loss == "softmax" else dtype
    cast = lambda x, y: (x.astype(dtype), y.astype(labels))  # noqa: E731
    model = linear(train[0].shape[1], outputs, bias=bias, dtype=precision)
    few = train[0].shape[1] <= max(map(len, parts), default=0)  # numbers an example, so that moments are the smaller
    summed = loss == "squares" and not bias and options["batch_size"] is None and precision != "bfloat16" and few
    problem = network_problem(
        loss,
        model,
        cast(*train),
        None if test is None else cast(*test),
        parts,
        stacked=(lambda own: moments(*train, own, dtype)) if summed else None,
        **options,
    )
    return replace(
        problem,
        smoothness=jnp.asarray(smoothness(train[0], parts, named.curvature, ridge, bias), dtype),
        convexity=jnp.asarray(ridge, dtype) if ridge > 0 else None,
        loss=of_moments(model) if summed else problem.loss,
    )


def _check_examples(loss: str, x: np.ndarray, y: np.ndarray, outputs: int) -> None:
    """Raise a ``ValueError`` for numbers that are not finite, and labels that are none of the classes."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("examples and targets must be finite: there are infinities or NaN among them")
    classes = {"softmax": outputs, "logistic": 2}.get(loss)
    if classes and len(y) and not ((y >= 0) & (y < classes) & (y == np.floor(y))).all():
        raise ValueError(f"labels must be 0 to {classes - 1}, whole; there are some from {y.min()} to {y.max()}")


@with_shared()
def network_problem(
    loss: str | Callable[[jax.Array, jax.Array], jax.Array],
    model: Model,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    parts: Sequence[np.ndarray],
    *,
    stacked: Callable[[Sequence[np.ndarray]], tuple[np.ndarray, ...]] | None = None,
    **options: Unpack[Evaluated],
) -> Problem:
    """Any network on data dealt to clients; nothing is known of its smoothness.

    Args:
      loss: a name of ``LOSSES``, or a function ``outputs, y -> (b,)``.
      model: the network.
      train: x (N, ...) and y (N, ...); for ``"softmax"`` y are classes, one an example or one a position.
      test: the same of examples no client has, or None.
      parts: for each client the rows of ``train`` that are its own.
      stacked: parts of some clients -> their ``data``, one example each, where that is other than these rows.

    Raises:
      ValueError: for a batch size below one, a negative ridge, an unknown loss, weights or precision.
    """
    ridge, weights, validation = options["ridge"], options["weights"], options["validation"]
    batch_size, precision = options["batch_size"], options["precision"]
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge must be finite and not negative, not {ridge:g}")
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, or 'full', not {batch_size}")
    dtype = held_in(precision)
    sizes = np.array([len(part) for part in parts], np.int32)
    of = stacked or (lambda own: stack_clients(train, own, sizes.max(initial=0))[0])
    return Problem(
        data=by_client(len(parts), lambda own: of(parts[own])),
        counts=jnp.asarray(sizes if stacked is None else np.ones_like(sizes)),
        sizes=None if stacked is None else jnp.asarray(sizes),
        test=None if test is None else tuple(jnp.asarray(a) for a in test),
        validation=None if validation is None else tuple(jnp.asarray(a[validation]) for a in train),
        ridge=jnp.asarray(ridge, dtype),
        weights=None if weights == "equal" else jnp.asarray(sizes / sizes.sum(), dtype),
        init=model.init,
        loss=loss_of(model, loss),
        metrics=metrics_of(model, loss),
        batch_size=batch_size,
        in_order=options["in_order"],
        augment=options["augment"],
        evaluate_batch=options["evaluate_batch"],
        evaluate_examples=options["evaluate_examples"],
    )


def held_in(precision: str) -> str:
    """The dtype of parameters, control variates and data where a network computes in ``precision``.

    Raises:
      ValueError: for one that is not in ``PRECISIONS``, or float64 where JAX has none.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # options are made at import
    if precision == "float64" and not wide:
        raise ValueError('precision float64 needs jax.config.update("jax_enable_x64", True), before anything else')
    return storage(precision)
