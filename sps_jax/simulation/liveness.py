"""The arrays that a function holds at once, from its jaxpr.

A compiler stores what a product, convolution, reduction, sort, gather or loop writes, and what a product reads; what is
computed entry by entry it computes again where it is read (fusion). An array is alive from where it is written to where
it, or what is computed from it, is read last. The order is that of the jaxpr.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

VIEWS = {"reshape", "squeeze", "expand_dims", "transpose", "copy", "copy_p", "optimization_barrier", "stop_gradient"}
"""They give their operand another shape."""
READ_WHOLE = {"dot_general", "conv_general_dilated", "sort", "while", "scan", "cond", "pallas_call", "cumsum", "gather"}
"""What they read is stored."""
STORED = READ_WHOLE | {"reduce", "scatter", "scatter-add", "dynamic_update_slice", "concatenate", "split", "slice"}
"""What they write is stored, as of all reductions."""


class Operation(NamedTuple):
    """An equation: its primitive, the numbers of the variables it reads and writes, and the loop bodies in it."""

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    bodies: tuple[Any, ...]


@dataclass(frozen=True)
class Sized:
    """An array's shape and dtype."""

    shape: tuple[int, ...]
    dtype: Any


def alive(function: Any, *arguments: Any, platform: str) -> tuple[Sized, ...]:
    """Return the arrays, beside its arguments, that ``function`` holds at once where these take the most bytes.

    Example:
      >>> import jax.numpy as jnp
      >>> [a.shape for a in alive(lambda x: jnp.exp(x @ x.T) @ x, jnp.ones((3, 2)), platform="cpu")]
      [(3, 3), (3, 3)]
    """
    return tuple(_alive(jax.make_jaxpr(function)(*arguments).jaxpr, platform))


def _alive(jaxpr: Any, platform: str) -> list[Sized]:
    shapes: list[Any] = []
    numbers: dict[Any, int] = {}
    given = {_number(v, numbers, shapes) for v in (*jaxpr.invars, *jaxpr.constvars)}
    operations = list(_operations(jaxpr, numbers, shapes, platform, {}))
    results = tuple(numbers[v] for v in jaxpr.outvars if not isinstance(v, Literal))
    operations.append(Operation("return", results, (), ()))
    uses = Counter(v for one in operations for v in one.reads)
    sources: dict[int, frozenset[int]] = {i: frozenset({i}) for i in given}
    born: dict[int, int] = {}
    last: dict[int, int] = {}
    views: set[int] = set()

    def read(variables: Iterable[int], at: int) -> frozenset[int]:
        """The stored arrays that these are computed from, which are read now."""
        arrays = frozenset().union(*(sources.get(v, frozenset()) for v in variables))
        last.update((v, at) for v in arrays)
        return arrays

    def store(v: int, at: int) -> None:
        born[v] = last[v] = at
        sources[v] = frozenset({v})

    for i, one in enumerate(operations):  # 2 i: entry by entry, what it reads; 2 i + 1: itself
        if one.name in READ_WHOLE:
            for v in one.reads:
                if v not in given and v not in born and not (v in views and len(sources.get(v, ())) == 1):
                    read([v], 2 * i)
                    store(v, 2 * i)
        arrays = read(one.reads, 2 * i + 1)
        marked = one.name == "scatter-add" and _bytes(shapes[one.reads[-1]]) < _bytes(shapes[one.writes[0]])
        whole = not marked and one.name in STORED or one.name.startswith(("reduce_", "arg", "random", "threefry"))
        for v in one.writes:
            twice = uses[v] > 1 and one.name not in VIEWS
            if whole:
                store(v, 2 * i + 1)
            elif twice and sum(_bytes(shapes[s]) >= _bytes(shapes[v]) for s in arrays) > 1:
                store(v, 2 * i + 1)
            else:
                sources[v] = arrays
                if one.name in VIEWS and all(r in born or r in given or r in views for r in one.reads):
                    views.add(v)
    peak: list[Sized] = []
    for i, one in enumerate(operations):
        inside: list[Sized] = max((_alive(body, platform) for body in one.bodies), key=_total, default=[])
        for at in (2 * i, 2 * i + 1):
            now = [shapes[v] for v, begin in born.items() if begin <= at <= last[v]]
            peak = max(peak, [*now, *inside], key=_total)
    return peak


def _bytes(array: Sized) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _total(arrays: list[Sized]) -> int:
    return sum(map(_bytes, arrays))


def _number(variable: Any, numbers: dict[Any, int], shapes: list[Any]) -> int:
    if variable not in numbers:
        numbers[variable] = len(shapes)
        shape, dtype = variable.aval.shape, variable.aval.dtype
        key = jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
        shapes.append(Sized((*shape, 2), np.dtype("uint32")) if key else Sized(shape, dtype))
    return numbers[variable]


def _operations(
    jaxpr: Any, numbers: dict[Any, int], shapes: list[Any], platform: str, known: dict[Any, int]
) -> Iterator[Operation]:
    number = partial(_number, numbers=numbers, shapes=shapes)
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inputs = [v for v in equation.invars if not isinstance(v, Literal)]
        if name == "platform_index":
            places = [i for i, group in enumerate(params["platforms"]) if group is None or platform in group]
            known[equation.outvars[0]] = places[0]
            continue
        inner = _called(name, params)
        if name == "cond" and inputs and (chosen := _chosen(inputs[0], jaxpr, known)) is not None:
            inner, inputs_all = params["branches"][chosen].jaxpr, equation.invars[1:]
        else:
            inputs_all = equation.invars
        if inner is not None:
            for outer, own in zip(inputs_all, inner.invars, strict=True):
                if isinstance(outer, Literal):
                    number(own)
                else:
                    numbers[own] = number(outer)
            # a jaxpr that is called twice has the same variables: forget what the first call wrote
            for e in inner.eqns:
                for v in e.outvars:
                    numbers.pop(v, None)
            yield from _operations(inner, numbers, shapes, platform, dict(known))
            for outer, own in zip(equation.outvars, inner.outvars, strict=True):
                if isinstance(own, Literal):
                    number(outer)
                    yield Operation("constant", (), (number(outer),), ())
                else:
                    numbers[outer] = number(own)
            continue
        bodies = tuple(_bodies(name, params))
        yield Operation(name, tuple(map(number, inputs)), tuple(map(number, equation.outvars)), bodies)


def _chosen(index: Any, jaxpr: Any, known: dict[Any, int]) -> int | None:
    """The branch of a conditional on the platform."""
    for equation in jaxpr.eqns:  # the index is clamped first
        if index in equation.outvars and equation.primitive.name in ("clamp", "convert_element_type"):
            return next((known[v] for v in equation.invars if not isinstance(v, Literal) and v in known), None)
    return known.get(index)


def _called(name: str, params: dict[str, Any]) -> Any:
    if name in ("while", "scan", "cond", "pallas_call") or name.startswith("reduce") or name.startswith("scatter"):
        return None
    inner = params.get("jaxpr") or params.get("call_jaxpr")
    return getattr(inner, "jaxpr", inner)


def _bodies(name: str, params: dict[str, Any]) -> list[Any]:
    if name == "while":
        return [params["body_jaxpr"].jaxpr]
    if name == "scan":
        return [params["jaxpr"].jaxpr]
    return [b.jaxpr for b in params["branches"]] if name == "cond" else []
