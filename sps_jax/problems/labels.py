"""Labels as users have them, turned into the numbers that a loss takes: classes 0, 1, ..., labels 0 and 1, targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sps_jax.errors import described

Classes = tuple[Any, ...] | None
"""The labels that 0, 1, ... stand for; None if they are 0, 1, ... themselves."""
SHOWN = 5
"""The most classes that an error message lists."""


def loss_for(y: np.ndarray, loss: Any) -> Any:
    """Returns the loss: the one that is given, else ``"softmax"`` for classes and ``"squares"`` for other floats.

    Raises:
      ValueError: for floats that are all whole numbers, which may be either.

    >>> loss_for(np.array([0, 2]), None), loss_for(np.array([0.5, 2.0]), None), loss_for(np.array([0.5]), "softmax")
    ('softmax', 'squares', 'softmax')
    """
    if loss is not None:
        return loss
    if y.dtype.kind != "f" or is_one_hot(y):
        return "softmax"
    if y.ndim < 3 and (y == np.rint(y)).all():
        raise ValueError(
            f"y holds floats that are all whole numbers, such as {y.flat[0]}: name the loss, softmax if they are "
            "classes, squares if they are quantities"
        )
    return "squares"


def is_one_hot(y: np.ndarray) -> bool:
    """Returns whether y is (N, k), k > 1, and each of its rows has a single one among zeros."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype == object:
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def encoded(
    ys: Sequence[np.ndarray], loss: Any, outputs: int | None, axes: int = 2
) -> tuple[list[np.ndarray], Classes]:
    """Returns training and test labels as the numbers that ``loss`` takes, and what these stand for.

    One-hot rows become classes, and (N, 1) becomes (N,), where the outputs have two axes. Integers from 0 to
    ``outputs`` minus 1 stay as they are. Other integers, and names, become the positions of their sorted distinct
    values, in training and test labels together; with ``outputs`` None that holds for all integers. What fits no rule
    stays as it is, to be refused with the numbers that are allowed.

    Args:
      ys: labels (N, ...) of each part, objects if they are names.
      loss: a name in ``LOSSES`` or a function; for a function, and for ``"squares"``, numbers stay as they are.
      outputs: number of the model's outputs, None if it follows from the labels.
      axes: number of axes of the model's outputs.

    Raises:
      ValueError: for names where the loss takes numbers, or more names than classes.

    >>> encoded([np.array([1, 10, 1])], "softmax", None), encoded([np.array([1, 2])], "softmax", 3)
    (([array([0, 1, 0])], (1, 10)), ([array([1, 2])], None))
    """
    named = ys[0].dtype == object
    if loss == "squares" and named:
        raise ValueError(f"y holds names, such as {described(ys[0].flat[0])}, but squares takes numbers")
    if isinstance(loss, str) and axes == 2 and ys[0].ndim == 2 and ys[0].shape[1] == 1:
        ys = [y[:, 0] for y in ys]
    if loss == "softmax" and axes == 2 and all(map(is_one_hot, ys)):
        return [y.argmax(axis=1).astype(np.int32) for y in ys], None
    if not named and loss not in ("softmax", "logistic"):
        return list(ys), None
    most = 2 if loss == "logistic" else outputs
    try:
        seen = np.unique(np.concatenate([y.ravel() for y in ys]))
    except TypeError as error:
        raise ValueError(f"y mixes names of several kinds ({error})") from None
    if not named and not _to_encode(seen, most):
        return list(ys), None
    if most is not None and len(seen) > most:
        if named:
            raise ValueError(f"y has {len(seen)} classes, {_listed(seen)}; the loss and the model have {most}")
        return list(ys), None
    classes = tuple(seen.tolist())
    return [np.searchsorted(seen, y) for y in ys], None if classes == tuple(range(len(seen))) else classes


def _to_encode(seen: np.ndarray, most: int | None) -> bool:
    """Whether these distinct numbers are classes that are not yet 0, 1, ...: whole, and not negative but for -1, 1."""
    if (seen != np.rint(seen)).any() or (seen[0] < 0 and seen.tolist() != [-1, 1]):
        return False
    return most is None or seen[0] < 0 or seen[-1] >= most


def _listed(seen: np.ndarray) -> str:
    more = f" and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
    return ", ".join(map(str, seen[:SHOWN])) + more


def targets(y: np.ndarray, loss: Any, outputs: tuple[int, ...], held: str) -> np.ndarray:
    """Returns y as the loss takes it: classes as int32, labels and targets with the dtype ``held``.

    Args:
      y: labels, from :func:`encoded`.
      loss: a name or a function.
      outputs: the shape of the model's outputs.
      held: the dtype of the parameters.

    Raises:
      ValueError: for classes that are not integers from 0 to the number of outputs minus 1, or labels but 0 and 1.
    """
    if loss == "softmax":
        wrong = y[(y != np.rint(y)) | (y < 0) | (y >= outputs[-1])]
        if wrong.size:
            most = outputs[-1] - 1
            raise ValueError(f"y must be classes 0 to {most} for softmax of {most + 1} outputs, not {wrong[0]}")
        return y.astype(np.int32)
    if loss == "logistic" and not np.isin(y, (0, 1)).all():
        raise ValueError(f"y must be 0 or 1 for logistic, not {y[~np.isin(y, (0, 1))][0]}")
    return y.astype(held) if isinstance(loss, str) else y.astype(np.int32) if y.dtype == np.int64 else y
