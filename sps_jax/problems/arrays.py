"""Your own arrays as a problem: examples, and the client that each belongs to."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np
from numpy.typing import ArrayLike

from sps_jax.datasets.containers import as_numbers
from sps_jax.datasets.names import as_classes, as_list
from sps_jax.datasets.partition import natural
from sps_jax.errors import is_missing, real, single_number, whole_number
from sps_jax.models import Model, after, linear
from sps_jax.models.adapters import network_of, outputs_of
from sps_jax.problem import Problem
from sps_jax.problems.dealing import Parts, set_apart
from sps_jax.problems.labels import encoded, loss_for, targets
from sps_jax.problems.losses import loss_named
from sps_jax.problems.supervised import Regularised, held_in, linear_problem, network_problem
from sps_jax.simulation.choices import with_shared

Pair = tuple[np.ndarray, np.ndarray]
"""x and y of N examples."""


@with_shared()
def from_arrays(
    x: ArrayLike,
    y: ArrayLike,
    client_ids: Iterable[Hashable],
    *,
    model: Any = None,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    outputs: int | None = None,
    bias: bool = True,
    test: float | tuple[ArrayLike, ArrayLike] | None = None,
    validation: float = 0.0,
    seed: int = 0,
    **options: Unpack[Regularised],
) -> Problem:
    """Returns a problem made from your own N examples.

    Clients are numbered in the order in which their ids appear. The default model is linear in the flattened examples
    and starts from zero; with a named loss the problem then knows its ``smoothness``, and ``1 / smoothness.max()`` is a
    safe step size. Classes that are not 0, 1, ... are numbered in sorted order, and the problem's ``classes`` says what
    the numbers stand for.

    >>> x, y = np.eye(4), np.array(["cat", "dog", "dog", "cat"])
    >>> problem = from_arrays(x, y, ["ann", "bob", "bob", "bob"])
    >>> problem.clients, problem.counts.tolist(), problem.smoothness.shape, problem.classes
    (2, [1, 3], (2,), ('cat', 'dog'))

    Args:
      x: (N, ...) numbers. Floats are cast to the precision; for your own model integers stay integers. Bytes (uint8)
        with three or more axes are images and scaled to [0, 1]; give another integer dtype to keep them.
      y: (N, ...) classes for ``"softmax"``: integers, names, or one-hot rows; two classes for ``"logistic"``; numbers
        otherwise. (N, 1) means (N,).
      client_ids: (N,) the client of each example: numbers, strings, anything hashable.
      model: functions ``(init, apply)``, ``key -> params`` and ``params, x -> outputs`` for b examples at once; or a
        network of flax.linen, flax.nnx, equinox or haiku with parameters only, see
        :func:`sps_jax.models.adapters.network_of`; None for a linear model. With the same object JAX reuses compiled
        programs.
      loss: ``"softmax"``, ``"logistic"``, ``"squares"`` (half the squared error) or a function ``outputs, y -> (b,)``,
        the losses of b examples. By default ``"squares"`` if y holds floats, else ``"softmax"``; if they are whole
        numbers, say which.
      outputs: number of outputs of the linear model; by default the number of classes for ``"softmax"``, else 1.
      bias: whether the linear model has a bias.
      test: x and y of examples that no client has; or the fraction in (0, 1) of each client's examples to hold out,
        rounded down; or None.
      validation: fraction in [0, 1) of each client's remaining examples to set aside for choosing hyperparameters.
      seed: seed of the draw of test and validation examples.
      precision: float32, float64 (with JAX's ``jax_enable_x64``), or bfloat16, for the linear model's computation.

    Raises:
      ValueError: for different lengths, numbers that are not finite, missing ids, labels out of range, a model, a loss
        or a metric with a wrong shape or precision, and options out of range.
    """
    held, parts = held_in(options["precision"]), by_client(client_ids)
    pairs = [examples("", x, y, held)]
    if len(pairs[0][0]) != sum(map(len, parts)):
        raise ValueError(f"x has {len(pairs[0][0])} examples and client_ids {sum(map(len, parts))} entries")
    if isinstance(test, tuple | list):
        if len(test) != 2:
            raise ValueError(
                f"test must be (x, y), or a fraction in (0, 1), not a {type(test).__name__} of {len(test)}"
            )
        pairs.append(examples("test ", *test, held, like=pairs[0]))
    loss = loss_for(pairs[0][1], loss)
    network = None if model is None else own_network(model, pairs[0][0], held)
    if model is None:
        pairs = [(scaled(x, held).reshape(len(x), -1), y) for x, y in pairs]
        outputs = None if outputs is None else whole_number("outputs", outputs)
    ys, classes = encoded([y for _, y in pairs], loss, *((outputs, 2) if network is None else network.room))
    if network is None:
        outputs = outputs or (max(2, *(1 + int(y.max()) for y in ys)) if loss == "softmax" else 1)
        given = linear(pairs[0][0].shape[1], outputs, bias=bias, dtype=options["precision"])
        network = Network(given, outputs_of(given, pairs[0][0].shape[1:], held, held))
    pairs = [(x, targets(y, loss, network.outputs.shape, held)) for (x, _), y in zip(pairs, ys, strict=True)]
    refuse_other_losses(loss, network.outputs, pairs[0][1])
    if test is not None and not isinstance(test, tuple | list):
        parts, rows = set_apart("test", parts, test, seed)
        pairs.append((pairs[0][0][rows], pairs[0][1][rows]))
    apart = None
    if real(validation) != 0:
        parts, apart = set_apart("validation", parts, validation, seed)
    data = (pairs[0], pairs[1] if len(pairs) > 1 else None, parts)
    options["ridge"] = single_number("ridge", options["ridge"])
    if options["batch_size"] is not None:
        options["batch_size"] = whole_number("batch_size", options["batch_size"])
    if model is None and isinstance(loss, str):
        made = linear_problem(loss, *data, outputs=network.room[0], bias=bias, validation=apart, **options)
    else:
        made = network_problem(loss, network.model, *data, validation=apart, **options)
    return made if classes is None else replace(made, classes=classes)


def by_client(client_ids: Iterable[Hashable]) -> Parts:
    """Returns the rows of each client, clients in the order in which their ids appear.

    Raises:
      ValueError: for an empty list, or ids that are not hashable or missing (None, NaN).
    """
    ids = as_list("client_ids", client_ids)
    seen: dict[Hashable, int] = {}
    try:
        numbered = [-1 if is_missing(name) else seen.setdefault(name, len(seen)) for name in ids]
    except TypeError as error:
        raise ValueError(f"client_ids must be one hashable value per example ({error})") from None
    if -1 in numbered:
        raise ValueError(f"client_ids has no client for example {numbered.index(-1)}: {ids[numbered.index(-1)]}")
    if not numbered:
        raise ValueError("there are no examples: x, y and client_ids are empty")
    return natural(numbered)


def examples(prefix: str, x: ArrayLike, y: ArrayLike, held: str, like: Pair | None = None) -> Pair:
    """Returns x and y as arrays of equal length whose examples have the shapes and dtypes of those of ``like``."""
    x, y = as_numbers(f"{prefix}x", x, held), as_classes(f"{prefix}y", y, held)
    if len(x) != len(y):
        raise ValueError(f"{prefix}x has {len(x)} examples and {prefix}y {len(y)}")
    for name, a, other in zip("xy", (x, y), like or (x, y), strict=True):
        if (a.shape[1:], a.dtype) != (other.shape[1:], other.dtype):
            raise ValueError(
                f"{prefix}{name} has examples of shape {a.shape[1:]} and dtype {a.dtype}; "
                f"they must be as in {name}, {other.shape[1:]} and {other.dtype}"
            )
    return x, y


class Network(NamedTuple):
    """A network, and the shape and dtype of its outputs for two examples."""

    model: Model
    outputs: jax.ShapeDtypeStruct

    @property
    def room(self) -> tuple[int, int]:
        """The number of outputs, and that of their axes."""
        shape = self.outputs.shape
        return shape[-1] if len(shape) > 1 else 1, len(shape)


def own_network(model: Any, x: np.ndarray, held: str) -> Network:
    """Returns a user's model as a :class:`Network` of x; images stay bytes in memory, and the model sees [0, 1]."""
    seen = held if is_image(x) else x.dtype.name
    network = network_of(model, x.shape[1:], seen)
    if is_image(x):
        network = after(_to_unit(held), network)
    return Network(network, outputs_of(network, x.shape[1:], x.dtype, held))


def is_image(x: np.ndarray) -> bool:
    """Returns whether x are images: bytes (N, ...) with at least three axes."""
    return x.dtype == np.uint8 and x.ndim > 2


def scaled(x: np.ndarray, held: str) -> np.ndarray:
    """Returns x in the dtype ``held``, images divided by 255.

    >>> scaled(np.full((1, 1, 1), 255, np.uint8), "float32").item(), scaled(np.full((1, 1), 255, np.uint8), "float32")
    (1.0, array([[255.]], dtype=float32))
    """
    return x.astype(held) / np.asarray(255, held) if is_image(x) else x.astype(held)


@cache
def _to_unit(dtype: str) -> Callable[[jax.Array], jax.Array]:
    return lambda images: images.astype(dtype) / 255


def refuse_other_losses(loss: Any, answers: jax.ShapeDtypeStruct, y: np.ndarray) -> None:
    """Raise a ``ValueError`` unless the loss of two examples has shape (2,)."""
    of = loss_named(loss).of
    if loss == "softmax" and answers.shape[:-1] != (2, *y.shape[1:]):
        raise ValueError(f"softmax takes outputs (*y.shape, classes), not {answers.shape} for y {(2, *y.shape[1:])}")
    if loss in ("logistic", "squares") and (len(answers.shape), y.ndim) != (2, 1):
        raise ValueError(f"{loss} takes outputs (b, 1) and y (b,), not {answers.shape} and {(2, *y.shape[1:])}")
    found = jax.eval_shape(of, answers, jax.ShapeDtypeStruct((2, *y.shape[1:]), y.dtype))
    if getattr(found, "shape", None) != (2,):
        raise ValueError(f"loss must return one number per example, (2,) for two examples, not {found}")
