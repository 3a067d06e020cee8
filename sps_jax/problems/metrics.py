"""Your own metrics of held-out examples: means of numbers per example, or functions of sums over all examples."""

from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from sps_jax.errors import described
from sps_jax.tree import divided

Metrics = tuple[tuple[str, Callable, Callable | None], ...]
"""(name, sums, finish) of each: ``outputs, y -> (b, ...)``, and ``sums -> scalar`` or None for the mean."""
Given = Mapping[str, Callable | tuple[Callable, Callable]] | None
TAKEN = ("loss",)


def own_metrics(given: Given) -> Metrics:
    """Returns the metrics that a user gives, checked, as a hashable value.

    Args:
      given: name -> ``f``, the mean of ``f(outputs, y)``, (b,), over the examples; or name -> ``(sums, finish)``, the
        scalar ``finish(total)`` of ``sums(outputs, y)``, a pytree of (b, ...), summed over the examples.

    Raises:
      ValueError: for anything else, or a name that is taken or no word.

    >>> [name for name, _, _ in own_metrics({"top5": lambda outputs, y: y, "f1": (lambda outputs, y: y, lambda t: t)})]
    ['top5', 'f1']
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise ValueError(f"metrics must be a dict of names and functions, not {described(given)}")
    found = []
    for name, one in given.items():
        pair = one if isinstance(one, tuple | list) else (one, None)
        if not isinstance(name, str) or not name.isidentifier() or name in TAKEN:
            raise ValueError(f"a metric's name must be a word such as top5, other than loss, not {described(name)}")
        if len(pair) != 2 or not callable(pair[0]) or not (pair[1] is None or callable(pair[1])):
            raise ValueError(
                f"metric {name} must be a function (outputs, y) -> (b,), or a pair of functions (sums, finish), not "
                f"{described(one)}"
            )
        found.append((name, *pair))
    return tuple(found)


def refuse_other_metrics(metrics: Metrics, outputs: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct) -> None:
    """Raise a ``ValueError`` unless the metrics of b examples are (b,), or sums (b, ...) with a scalar in the end.

    Args:
      metrics: from :func:`own_metrics`.
      outputs: shape and dtype of the outputs of b examples.
      y: those of their labels.
    """
    b = outputs.shape[0]
    for name, sums, finish in metrics:
        found = jax.eval_shape(sums, outputs, y)
        leaves = jax.tree.leaves(found)
        if finish is None and getattr(found, "shape", None) != (b,):
            raise ValueError(f"metric {name} must be one number per example, ({b},) for {b} examples, not {found}")
        if not leaves or any(leaf.shape[:1] != (b,) for leaf in leaves):
            raise ValueError(f"the sums of metric {name} must be arrays ({b}, ...) for {b} examples, not {found}")
        if finish is not None:
            total = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], jnp.float32), found)
            end = jax.eval_shape(finish, total)
            if getattr(end, "shape", None) != ():
                raise ValueError(f"metric {name} must be one number in the end, not {end}")


@cache
def finish_of(metrics: Metrics) -> Callable[[dict[str, Any], Any], dict[str, jax.Array]] | None:
    """Returns ``{name: sums}, number of examples -> {name: scalar}``; None if all metrics are means."""
    ends: dict[Hashable, Callable] = {name: finish for name, _, finish in metrics if finish is not None}
    if not ends:
        return None

    def finish(sums: dict[str, Any], examples: Any) -> dict[str, jax.Array]:
        return {name: ends[name](total) if name in ends else divided(total, examples) for name, total in sums.items()}

    return finish
