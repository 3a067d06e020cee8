"""Your own arrays as a problem: examples, and the client that each belongs to."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Unpack

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
from sps_jax.problems.supervised import Regularised, held_in, linear_problem, network_problem
from sps_jax.simulation.choices import with_shared


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
    safe step size.

    >>> x, y = np.eye(4), np.array([0, 1, 1, 0])
    >>> problem = from_arrays(x, y, ["ann", "bob", "bob", "bob"])
    >>> problem.clients, problem.counts.tolist(), problem.smoothness.shape
    (2, [1, 3], (2,))

    Args:
      x: (N, ...) numbers. Floats are cast to the precision; for your own model integers stay integers.
      y: (N, ...) numbers: classes 0, 1, ... for ``"softmax"``, labels 0 and 1 for ``"logistic"``.
      client_ids: (N,) the client of each example: numbers, strings, anything hashable.
      model: functions ``(init, apply)``, ``key -> params`` and ``params, x -> outputs`` for b examples at once, or a
        flax.linen module with parameters only; None for a linear model. With the same object JAX reuses compiled
        programs.
      loss: ``"softmax"``, ``"logistic"``, ``"squares"`` (half the squared error) or a function ``outputs, y -> (b,)``,
        the losses of b examples. By default ``"squares"`` if y holds floats, else ``"softmax"``.
      outputs: number of outputs of the linear model; by default the largest class plus one for ``"softmax"``, else 1.
      bias: whether the linear model has a bias.
      test: x and y of examples that no client has; or the fraction in (0, 1) of each client's examples to hold out,
        rounded down; or None.
      validation: fraction in [0, 1) of each client's remaining examples to set aside for choosing hyperparameters.
      seed: seed of the draw of test and validation examples.
      precision: float32, float64 (with JAX's ``jax_enable_x64``), or bfloat16, for the linear model's computation.

    Raises:
      ValueError: for different lengths, numbers that are not finite, missing ids, labels out of range, a model or a
        loss with a wrong shape or precision, and options out of range.
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
        network = linear(pairs[0][0].shape[1], outputs, bias=bias, dtype=options["precision"])
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
    options["ridge"] = single_number("ridge", options["ridge"])
    if options["batch_size"] is not None:
        options["batch_size"] = whole_number("batch_size", options["batch_size"])
    if outputs is not None and model is None and isinstance(loss, str):
        return linear_problem(loss, *data, outputs=outputs, bias=bias, validation=apart, **options)
    return network_problem(loss, network, *data, validation=apart, **options)


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


def examples(
    prefix: str, x: ArrayLike, y: ArrayLike, held: str, like: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y as arrays of equal length whose examples have the shapes and dtypes of those of ``like``."""
    x, y = as_numbers(f"{prefix}x", x, held), as_numbers(f"{prefix}y", y, held)
    if len(x) != len(y):
        raise ValueError(f"{prefix}x has {len(x)} examples and {prefix}y {len(y)}")
    for name, a, other in zip("xy", (x, y), like or (x, y), strict=True):
        if (a.shape[1:], a.dtype) != (other.shape[1:], other.dtype):
            raise ValueError(
                f"{prefix}{name} has examples of shape {a.shape[1:]} and dtype {a.dtype}; "
                f"they must be as in {name}, {other.shape[1:]} and {other.dtype}"
            )
    return x, y


def network_of(model: Any, shape: tuple[int, ...], dtype: str) -> Model:
    """Returns ``model`` as a pair of functions; a module is initialised with an example of this shape and dtype.

    Equal modules give the same object, so that JAX reuses a compiled program.

    Raises:
      ValueError: for anything but a pair of functions or an instance of a flax.linen module.
    """
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return Model(*model)
    if isinstance(model, type) or not all(callable(getattr(model, name, None)) for name in ("init", "apply")):
        raise ValueError(f"model must be functions (init, apply) or an instance of a flax.linen module, not {model!r}")
    with suppress(TypeError):  # flax hashes a module by its fields, and a list among them cannot be hashed
        model = _first_equal(model)
    return _network_of_methods(model.init, model.apply, shape, dtype)


@cache
def _first_equal(module: Any) -> Any:
    """Returns the first module seen that equals this one; a ``TypeError`` if it cannot be hashed."""
    return module


@cache  # bound methods compare by the identity of their module, hashable or not
def _network_of_methods(init: Callable, apply: Callable, shape: tuple[int, ...], dtype: str) -> Model:
    return Model(lambda key: init(key, jnp.zeros((1, *shape), dtype)), apply)


def outputs_of(network: Model, x: np.ndarray, held: str) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of the network's outputs for two examples.

    Raises:
      ValueError: if its parameters are not of the dtype ``held``, or it has state beside its parameters.
    """
    params = jax.eval_shape(network.init, jax.random.key(0))
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        more = ", ".join(sorted(set(params) - {"params"}))
        raise ValueError(
            f"the model keeps {more} beside its parameters; use layers without state, such as GroupNorm for BatchNorm"
        )
    others = {leaf.dtype.name for leaf in jax.tree.leaves(params)} - {held}
    if others:
        raise ValueError(f"the model's parameters are {', '.join(sorted(others))}, but precision needs {held}")
    return jax.eval_shape(network.apply, params, jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype))


def targets(y: np.ndarray, loss: Any, answers: jax.ShapeDtypeStruct, held: str) -> np.ndarray:
    """Returns y as the loss takes it: classes as int32, labels and targets with the dtype ``held``.

    Raises:
      ValueError: for classes that are not integers from 0 to the number of outputs minus 1, or labels but 0 and 1.
    """
    if loss == "softmax":
        wrong = y[(y != np.rint(y)) | (y < 0) | (y >= answers.shape[-1])]
        if wrong.size:
            most = answers.shape[-1] - 1
            raise ValueError(f"y must be classes 0 to {most} for softmax of {most + 1} outputs, not {wrong[0]}")
        return y.astype(np.int32)
    if loss == "logistic" and not np.isin(y, (0, 1)).all():
        raise ValueError(f"y must be 0 or 1 for logistic, not {y[~np.isin(y, (0, 1))][0]}")
    return y.astype(held) if isinstance(loss, str) else y


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
