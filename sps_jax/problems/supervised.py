"""A :class:`Problem` from arrays and a partition: any network, and linear models with the constants of theory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.errors import refuse_unknown
from sps_jax.layout import by_client
from sps_jax.models import Model, linear, storage
from sps_jax.problem import Problem
from sps_jax.problems.losses import loss_named, loss_of, metrics_of, noisy_loss_of, of_moments
from sps_jax.problems.metrics import Given, finish_of, own_metrics, refuse_other_metrics
from sps_jax.problems.shared import Split
from sps_jax.problems.vectors import augmented_vectors, of_vectors, vectors
from sps_jax.simulation.choices import with_shared
from sps_jax.simulation.stacking import stack_clients

WEIGHTS = ("equal", "size")
PRECISIONS = ("float32", "float64", "bfloat16")


class Regularised(TypedDict, total=False):
    """The options of an objective f beside its examples and their loss; see :func:`with_shared`."""

    ridge: Annotated[float, 0.0, "rho of :class:`Problem`."]
    batch_size: Annotated[int | None, None, "number of examples per local gradient, None for all."]
    weights: Annotated[str, "equal", "the clients' weights: equal, or size, proportional to their numbers of examples."]
    precision: Annotated[str, "float32", "one of ``PRECISIONS``."]
    metrics: Annotated[
        Given,
        None,
        "further metrics of held-out examples: name -> ``f``, the mean of ``f(outputs, y)``, (b,); or name -> "
        "``(sums, finish)``, the scalar ``finish(total)`` of ``sums(outputs, y)``, a pytree of (b, ...), summed over "
        "the examples.",
    ]


class Objective(Regularised, TypedDict, total=False):
    """The same, and rows to set apart."""

    validation: Annotated[np.ndarray | None, None, "rows of ``train``, of no client, for choosing hyperparameters."]


class Evaluated(Objective, Regularised, TypedDict, total=False):
    """The same, and options for drawing batches and for evaluation."""

    in_order: Annotated[bool, False, "see :class:`Problem`."]
    augment: Annotated[Callable[..., tuple[jax.Array, ...]] | None, None, "see :class:`Problem`."]
    evaluate_batch: Annotated[int | None, None, "see :class:`Problem`."]
    evaluate_examples: Annotated[int | None, None, "see :class:`Problem`."]


def objective(split: Split, apart: np.ndarray | None, ridge: float = 0.0) -> Objective:
    """Returns the objective's options, with the rows that :func:`sps_jax.problems.dealing.deal` sets apart."""
    return Objective(
        ridge=ridge,
        batch_size=split["batch_size"],
        weights=split["weights"],
        validation=apart,
        precision=split["precision"],
    )


def smoothness(x: np.ndarray, parts: Sequence[np.ndarray], curvature: float, ridge: float, bias: bool) -> np.ndarray:
    r"""Returns the smoothness :math:`L_i = c\, \lambda_{\max}(A_i^\top A_i / m_i) + \rho` of linear models, (n,).

    c is the loss's ``curvature``, rho the ``ridge``, and :math:`A_i` the (:math:`m_i`, d) examples of client i, with a
    column of ones if ``bias``.
    """

    def largest(a: np.ndarray) -> float:
        a = np.hstack([a, np.ones((len(a), 1))]) if bias else a
        gram = a @ a.T if len(a) < a.shape[1] else a.T @ a
        return np.linalg.eigvalsh(gram)[-1] / len(a)

    return np.array([curvature * largest(x[part].astype(np.float64)) + ridge for part in parts])


def moments(x: np.ndarray, y: np.ndarray, parts: Sequence[np.ndarray], precision: str) -> tuple[np.ndarray, ...]:
    r"""Returns each client's least-squares moments :math:`A^\top A/m,\; A^\top y/m,\; \|y\|^2/m` as its one example.

    A is the (m, d) matrix of a client's m examples and y its targets. A full gradient from the moments costs d^2
    instead of m d operations, and small clients need no padding to the largest.

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
    """Returns the problem of a linear model on data dealt to clients, with smoothness and convexity constants.

    Args:
      loss: ``"softmax"`` (integer labels), ``"logistic"`` (labels 0 and 1), ``"squares"`` (half the squared error).
      train: x (N, d) and y (N,).
      test: the same for examples that no client has, or None.
      parts: the rows of ``train`` of each client.
      outputs: number of the model's outputs; the number of classes for ``"softmax"``.
      bias: whether the model has a bias.
      ridge: rho of :class:`Problem`, and the strong convexity mu.

    Raises:
      ValueError: for a batch size below one, a negative ridge, an unknown loss, weights or precision, no feature,
        numbers that are not finite, or labels out of range.
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
    few = train[0].shape[1] <= max(map(len, parts), default=0)  # then the moments are smaller than the examples
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
    """Raise a ``ValueError`` for numbers that are not finite, and labels out of range."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("examples and targets must be finite, but some are infinite or NaN")
    classes = {"softmax": outputs, "logistic": 2}.get(loss)
    if classes and len(y) and not ((y >= 0) & (y < classes) & (y == np.floor(y))).all():
        raise ValueError(f"labels must be integers from 0 to {classes - 1}; they range from {y.min()} to {y.max()}")


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
    """Returns the problem of any network on data dealt to clients; its smoothness is unknown.

    Args:
      loss: a name in ``LOSSES``, or a function ``outputs, y -> (b,)``.
      model: the network.
      train: x (N, ...) and y (N, ...); for ``"softmax"`` y holds classes, one per example or one per position. Images,
        and all x of three or more axes, are stored as vectors, because a TPU would store (H, W, 3) as (H, W, 128).
      test: the same for examples that no client has, or None.
      parts: the rows of ``train`` of each client.
      stacked: a function from some clients' parts to their ``data``, one example each, to use instead of these rows.

    Raises:
      ValueError: for a batch size below one, a negative ridge, an unknown loss, weights or precision.
    """
    ridge, weights, validation = options["ridge"], options["weights"], options["validation"]
    batch_size, precision = options["batch_size"], options["precision"]
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge must be finite and not negative, not {ridge:g}")
    refuse_unknown("weights", weights, WEIGHTS)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, or 'full', not {batch_size}")
    dtype, shape, augment = held_in(precision), train[0].shape[1:], options["augment"]
    more = own_metrics(options["metrics"])
    if len(shape) > 1:
        model, augment = of_vectors(model, shape), augment and augmented_vectors(augment, shape)
        train, test = vectors(train), test and vectors(test)
    if more:
        two = [jax.ShapeDtypeStruct((2, *a.shape[1:]), a.dtype) for a in train]
        outputs = jax.eval_shape(lambda key, x: model.apply(model.init(key), x), jax.random.key(0), two[0])
        refuse_other_metrics(more, outputs, two[1])
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
        noisy_loss=noisy_loss_of(model, loss),
        metrics=metrics_of(model, loss, more),
        finish=finish_of(more),
        batch_size=batch_size,
        in_order=options["in_order"],
        augment=augment,
        evaluate_batch=options["evaluate_batch"],
        evaluate_examples=options["evaluate_examples"],
    )


def held_in(precision: str) -> str:
    """Returns the dtype of parameters, control variates and data of a network that computes in ``precision``.

    Raises:
      ValueError: for a precision not in ``PRECISIONS``, or float64 without ``jax_enable_x64``.
    """
    refuse_unknown("precision", precision, PRECISIONS)
    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # options are made at import
    if precision == "float64" and not wide:
        raise ValueError('precision float64 needs jax.config.update("jax_enable_x64", True), before anything else')
    return storage(precision)
