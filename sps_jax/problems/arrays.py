"""Anyone's arrays as a problem: examples, and whose each of them is."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from sps_jax.datasets.containers import as_list, as_numbers
from sps_jax.datasets.partition import natural
from sps_jax.errors import is_missing, real, single_number, whole_number
from sps_jax.models import Model, linear
from sps_jax.problem import Problem
from sps_jax.problems.dealing import Parts, set_apart
from sps_jax.problems.losses import loss_named
from sps_jax.problems.supervised import held_in, linear_problem, network_problem


def from_arrays(
    x: ArrayLike,
    y: ArrayLike,
    client_ids: Iterable[Hashable],
    *,
    model: Any = None,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    outputs: int | None = None,
    bias: bool = True,
    ridge: float = 0.0,
    batch_size: int | None = None,
    weights: str = "equal",
    test: float | tuple[ArrayLike, ArrayLike] | None = None,
    validation: float = 0.0,
    seed: int = 0,
    precision: str = "float32",
) -> Problem:
    """A problem of one's own N examples.

    Clients are numbered in the order in which their ids appear. By default a linear model of the examples as vectors,
    from zero; where its loss has a name the problem knows its ``smoothness``, and ``1 / smoothness.max()`` is a safe
    step size.

    >>> x, y = np.eye(4), np.array([0, 1, 1, 0])
    >>> problem = from_arrays(x, y, ["ann", "bob", "bob", "bob"])
    >>> problem.clients, problem.counts.tolist(), problem.smoothness.shape
    (2, [1, 3], (2,))

    Args:
      x: (N, ...) numbers. Floats are held in the precision; integers stay integers for a model of one's own.
      y: (N, ...) numbers: classes 0, 1, ... for ``"softmax"``, labels 0 and 1 for ``"logistic"``.
      client_ids: (N,) whose each example is: numbers, strings, anything hashable.
      model: functions ``(init, apply)``, ``key -> params`` and ``params, x -> outputs`` of b examples at once, or a
        flax.linen module that has parameters alone; None for a linear model. The same objects find their compiled
        programs again.
      loss: ``"softmax"``, ``"logistic"``, ``"squares"`` (half the squared error) or a function ``outputs, y -> (b,)``,
        the losses of b examples. By default ``"squares"`` where y are floats, else ``"softmax"``.
      outputs: of the linear model; by default the largest class plus one for ``"softmax"``, else 1.
      bias: whether the linear model has one.
      ridge: rho of :class:`Problem`.
      batch_size: examples of a local gradient, None for all.
      weights: of the clients, ``"equal"`` or ``"size"``, in proportion to their numbers of examples.
      test: x and y of examples that no client has; or a fraction in (0, 1) of each client's, rounded down, to hold
        out; or None.
      validation: a fraction in [0, 1) of what is left of each client's, to keep apart for choosing hyperparameters.
      seed: of what is held out and kept apart.
      precision: float32, float64 (with JAX's ``jax_enable_x64``), or bfloat16 for the linear model to compute in.

    Raises:
      ValueError: for lengths that differ, numbers that are not finite, missing ids, labels out of range, a model or a
        loss of another shape or precision, and choices out of their ranges.
    """
    held, parts = held_in(precision), by_client(client_ids)
    pairs = [examples("", x, y, held)]
    if len(pairs[0][0]) != sum(map(len, parts)):
        raise ValueError(f"x has {len(pairs[0][0])} examples and client_ids {sum(map(len, parts))} entries")
    if isinstance(test, tuple | list):
        if len(test) != 2:
            raise ValueError(
                f"test must be (x, y), or a fraction in (0, 1), not a {type(test).__name__} of {len(test)}"
            )
        pairs.append(examples("test ", *test, held, like=pairs[0]))
    if loss is None:
        loss = "squares" if np.issubdtype(pairs[0][1].dtype, np.floating) else "softmax"
    if model is not None:
        network, outputs = network_of(model, pairs[0][0].shape[1:], pairs[0][0].dtype.name), None
    else:
        pairs = [(x.reshape(len(x), -1).astype(held), y) for x, y in pairs]
        if outputs is not None:
            outputs = whole_number("outputs", outputs)
        else:
            outputs = max(2, *(1 + int(y.max()) for _, y in pairs)) if loss == "softmax" else 1
        network = linear(pairs[0][0].shape[1], outputs, bias=bias, dtype=precision)
    answers = outputs_of(network, pairs[0][0], held)
    pairs = [(x, targets(y, loss, answers, held)) for x, y in pairs]
    refuse_other_losses(loss, answers, pairs[0][1])
    if test is not None and not isinstance(test, tuple | list):
        parts, rows = set_apart("test", parts, test, seed)
        pairs.append((pairs[0][0][rows], pairs[0][1][rows]))
    apart = None
    if real(validation) != 0:
        parts, apart = set_apart("validation", parts, validation, seed)
    data = (pairs[0], pairs[1] if len(pairs) > 1 else None, parts)
    shared: dict[str, Any] = {
        "ridge": single_number("ridge", ridge),
        "batch_size": None if batch_size is None else whole_number("batch_size", batch_size),
        "weights": weights,
        "validation": apart,
        "precision": precision,
    }
    if outputs is not None and model is None and isinstance(loss, str):
        return linear_problem(loss, *data, outputs=outputs, bias=bias, **shared)
    return network_problem(loss, network, *data, **shared)


def by_client(client_ids: Iterable[Hashable]) -> Parts:
    """The rows of each client, clients in the order in which their ids appear.

    Raises:
      ValueError: for no ids, ids that are not hashable, or missing (None, NaN).
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


def examples(
    prefix: str, x: ArrayLike, y: ArrayLike, held: str, like: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """x and y as arrays of numbers, equally many, of the same shapes an example as those of ``like``."""
    x, y = as_numbers(f"{prefix}x", x, held), as_numbers(f"{prefix}y", y, held)
    if len(x) != len(y):
        raise ValueError(f"{prefix}x has {len(x)} examples and {prefix}y {len(y)}")
    for name, a, other in zip("xy", (x, y), like or (x, y), strict=True):
        if (a.shape[1:], a.dtype) != (other.shape[1:], other.dtype):
            raise ValueError(
                f"{prefix}{name} has examples of shape {a.shape[1:]}, {a.dtype}; "
                f"those of {name} have {other.shape[1:]}, {other.dtype}"
            )
    return x, y


def network_of(model: Any, shape: tuple[int, ...], dtype: str) -> Model:
    """``model`` as a pair of functions; a module is initialised with an example of that shape and dtype.

    Raises:
      ValueError: for what is neither a pair of functions nor an instance of a flax.linen module.
    """
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return Model(*model)
    if isinstance(model, type) or not all(callable(getattr(model, name, None)) for name in ("init", "apply")):
        raise ValueError(f"model must be functions (init, apply) or an instance of a flax.linen module, not {model!r}")
    return _network_of_module(model, shape, dtype)


@cache
def _network_of_module(module: Any, shape: tuple[int, ...], dtype: str) -> Model:
    """Equal arguments give the same object, so that a compiled program is found again."""
    return Model(lambda key: module.init(key, jnp.zeros((1, *shape), dtype)), module.apply)


def outputs_of(network: Model, x: np.ndarray, held: str) -> jax.ShapeDtypeStruct:
    """What the network makes of two examples.

    Raises:
      ValueError: where its parameters are not of the dtype ``held``, or it keeps more than parameters.
    """
    params = jax.eval_shape(network.init, jax.random.key(0))
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        more = ", ".join(sorted(set(params) - {"params"}))
        raise ValueError(
            f"the model keeps {more} beside its parameters: normalise without such state, by GroupNorm say"
        )
    others = {leaf.dtype.name for leaf in jax.tree.leaves(params)} - {held}
    if others:
        raise ValueError(f"the model's parameters are {', '.join(sorted(others))}, the precision is {held}")
    return jax.eval_shape(network.apply, params, jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype))


def targets(y: np.ndarray, loss: Any, answers: jax.ShapeDtypeStruct, held: str) -> np.ndarray:
    """y as the loss takes it: classes as int32, labels and targets of the dtype ``held``.

    Raises:
      ValueError: for classes that are no whole numbers of 0 to the model's outputs less one, or labels beside 0 and 1.
    """
    if loss == "softmax":
        wrong = y[(y != np.rint(y)) | (y < 0) | (y >= answers.shape[-1])]
        if wrong.size:
            raise ValueError(f"softmax of {answers.shape[-1]} outputs takes y of 0 to that less one, not {wrong[0]}")
        return y.astype(np.int32)
    if loss == "logistic" and not np.isin(y, (0, 1)).all():
        raise ValueError(f"logistic takes y of 0 and 1, not {y[~np.isin(y, (0, 1))][0]}")
    return y.astype(held) if isinstance(loss, str) else y


def refuse_other_losses(loss: Any, answers: jax.ShapeDtypeStruct, y: np.ndarray) -> None:
    """Raise a ``ValueError`` unless the loss of two examples is two numbers."""
    of = loss_named(loss).of
    if loss == "softmax" and answers.shape[:-1] != (2, *y.shape[1:]):
        raise ValueError(f"softmax takes outputs (*y.shape, classes), not {answers.shape} for y {(2, *y.shape[1:])}")
    if loss in ("logistic", "squares") and (len(answers.shape), y.ndim) != (2, 1):
        raise ValueError(f"{loss} takes outputs (b, 1) and y (b,), not {answers.shape} and {(2, *y.shape[1:])}")
    found = jax.eval_shape(of, answers, jax.ShapeDtypeStruct((2, *y.shape[1:]), y.dtype))
    if getattr(found, "shape", None) != (2,):
        raise ValueError(f"loss must return one number an example, (2,) for two of them, not {found}")
