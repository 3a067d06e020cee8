"""The arrays that a function holds at once, from its jaxpr.

A compiler stores what a product, convolution, reduction, sort, gather or loop writes, and what a product reads. What is
computed entry by entry it computes again wherever it is read (fusion), unless it is read twice, and on an accelerator
needs two large arrays. An array lives from where it is written to where it, or what is computed from it, is read last,
in the order of the jaxpr. Results are written over arguments. On a GPU what is computed entry by entry is written over
an array of its size that is read there for the last time, but not a softmax, whose kernel reads its rows several times.
On a TPU long rows that are cut into pieces lie in other tiles: both arrays are stored.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

from sps_jax.simulation.tiles import ROW

VIEWS = {"reshape", "squeeze", "expand_dims", "transpose", "copy", "optimization_barrier", "stop_gradient"}
"""They give an array another shape."""
READ_WHOLE = {"dot_general", "conv_general_dilated", "sort", "while", "scan", "cond", "pallas_call", "cumsum", "gather"}
"""What they read is stored."""
STORED = READ_WHOLE | {"reduce", "scatter", "scatter-add", "dynamic_update_slice", "concatenate", "split", "slice"}
"""What they write is stored, and that of primitives whose names begin with ``PREFIXES``."""
PREFIXES = ("reduce_", "arg", "random", "threefry")


@dataclass(frozen=True)
class Sized:
    """An array's shape and dtype."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def bytes(self) -> int:
        """The bytes of its entries."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


class Operation(NamedTuple):
    """A primitive, the numbers of the arrays that it reads and writes, and the loop bodies or branches in it."""

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    bodies: tuple[Any, ...] = ()


def alive(function: Callable, *arguments: Any, platform: str) -> tuple[Sized, ...]:
    """Return the arrays, beside its arguments, that ``function`` holds at once where these take the most bytes.

    Args:
      function: a function of the ``arguments``.
      arguments: pytrees of arrays, or of their shapes.
      platform: ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``, for what the function computes differently on each.

    Example:
      >>> import jax.numpy as jnp
      >>> [a.shape for a in alive(lambda x: jnp.exp(x @ x.T) @ x, jnp.ones((3, 2)), platform="cpu")]  # product and exp
      [(3, 3), (3, 3)]
    """
    return tuple(_alive(jax.make_jaxpr(function)(*arguments).jaxpr, platform))


def _alive(jaxpr: Any, platform: str) -> list[Sized]:
    flat = Flat(platform)
    given = [flat.new(v.aval) for v in jaxpr.invars]
    flat.operations.append(Operation("return", tuple(flat.inline(jaxpr, given)), ()))
    born, last = _lives(flat, given)
    inside = [max((_alive(body, platform) for body in one.bodies), key=_total, default=[]) for one in flat.operations]
    changes = [0] * (2 * len(flat.operations) + 1)  # of the bytes from one moment to the next; operation i has 2
    for v, begin in born.items():
        changes[begin] += flat.shapes[v].bytes
        changes[last[v] + 1] -= flat.shapes[v].bytes
    held = list(itertools.accumulate(changes))
    most = max(range(2 * len(inside)), key=lambda at: held[at] + _total(inside[at // 2]))
    return [flat.shapes[v] for v, begin in born.items() if begin <= most <= last[v]] + inside[most // 2]


def _lives(flat: "Flat", given: list[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Return when each stored array is written and read last: at 2 i what operation i reads is computed, then i."""
    shapes, uses = flat.shapes, Counter(v for one in flat.operations for v in one.reads)
    born: dict[int, int] = {}
    last: dict[int, int] = {}
    sources: dict[int, frozenset[int]] = {v: frozenset({v}) for v in given}  # the stored arrays it is computed from
    views = set(given)
    made: dict[int, frozenset[int]] = {}  # the stored arrays that a stored one is computed from
    by_entry = []

    def read(variables: Iterable[int], at: int) -> frozenset[int]:
        arrays = frozenset().union(*(sources.get(v, frozenset()) for v in variables))
        last.update((v, at) for v in arrays)
        return arrays

    def store(v: int, at: int, arrays: frozenset[int], entries: bool) -> None:
        born[v] = last[v] = at
        made[v] = arrays
        by_entry.extend([v] * entries)
        sources[v] = frozenset({v})
        views.add(v)

    for i, one in enumerate(flat.operations):
        relaid = flat.platform == "tpu" and _relaid(one, shapes)
        if one.name in READ_WHOLE or relaid:
            for v in one.reads:
                if v not in views:
                    store(v, 2 * i, read([v], 2 * i), entries=True)
        arrays = read(one.reads, 2 * i + 1)
        for v in one.writes:
            large = sum(shapes[s].bytes >= shapes[v].bytes for s in arrays)
            whole = _stores(one, shapes) or relaid
            if whole or (one.name not in VIEWS and large > flat.fused and uses[v] > 1):
                store(v, 2 * i + 1, arrays, entries=not whole)
            else:
                sources[v] = arrays
                if one.name in VIEWS and views.issuperset(one.reads):
                    views.add(v)
    for v in by_entry if flat.platform in ("cuda", "rocm") else ():
        ended = (s for s in made[v] if s in born and last[s] == born[v] and shapes[s].bytes == shapes[v].bytes)
        over = [s for s in ended if not _softmax(s, made[v], made)][:1]
        last.update((s, born[v] - 1) for s in over)
    return born, last


def _softmax(s: int, arrays: frozenset[int], made: dict[int, frozenset[int]]) -> bool:
    """Whether ``arrays`` are array s and what is computed from it and nothing else, such as the sums of its rows."""
    rest = arrays - {s}
    return bool(rest) and all(made.get(one, frozenset({-1})) <= arrays for one in rest)


def _stores(one: Operation, shapes: list[Sized]) -> bool:
    """Whether it stores what it writes; to mark a few entries of an array, as labels do, needs no array."""
    if one.name == "scatter-add" and shapes[one.reads[-1]].bytes < shapes[one.writes[0]].bytes:
        return False
    return one.name in STORED or one.name.startswith(PREFIXES)


def _relaid(one: Operation, shapes: list[Sized]) -> bool:
    """Whether it is a reshape that cuts rows into pieces no shorter than a tile's row: a copy on a TPU."""
    if one.name != "reshape":
        return False
    before, after = (shapes[v].shape[-1:] or (1,) for v in (one.reads[0], one.writes[0]))
    return ROW <= after[0] < before[0]


def _total(arrays: list[Sized]) -> int:
    return sum(array.bytes for array in arrays)


@dataclass
class Flat:
    """A jaxpr with what it calls in place: its arrays, by number, and its operations.

    Attributes:
      platform: the platform whose branches are taken.
      shapes: the arrays.
      operations: the operations, in order.
      branch: the branch that an array selects, if it depends on the platform alone.
    """

    platform: str
    shapes: list[Sized] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    branch: dict[int, int] = field(default_factory=dict)

    @property
    def fused(self) -> int:
        """How many large arrays may be read to compute an entry again: one, on a CPU none."""
        return int(self.platform != "cpu")

    def new(self, aval: Any) -> int:
        """Number a new array."""
        key = jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key)  # two words
        self.shapes.append(Sized((*aval.shape, 2), np.dtype("uint32")) if key else Sized(aval.shape, aval.dtype))
        return len(self.shapes) - 1

    def inline(self, jaxpr: Any, inputs: list[int]) -> list[int]:
        """Append the operations of a jaxpr on these inputs, and return its results."""
        known = dict(zip(jaxpr.invars, inputs, strict=True)) | {v: self.new(v.aval) for v in jaxpr.constvars}

        def number(v: Any) -> int:
            return self.new(v.aval) if isinstance(v, Literal) else known[v]

        for equation in jaxpr.eqns:
            reads = [number(v) for v in equation.invars]
            called, arguments = self.called(equation, reads)
            if called is not None:
                writes = self.inline(called, arguments)
            else:
                writes = [self.new(v.aval) for v in equation.outvars]
                name, bodies = equation.primitive.name, _bodies(equation)
                self.operations.append(Operation(name, tuple(reads), tuple(writes), bodies))
            if equation.primitive.name == "platform_index":
                groups = equation.params["platforms"]
                self.branch[writes[0]] = next(i for i, g in enumerate(groups) if g is None or self.platform in g)
            if equation.primitive.name in ("clamp", "convert_element_type"):
                self.branch.update((writes[0], self.branch[v]) for v in reads if v in self.branch)
            known |= dict(zip(equation.outvars, writes, strict=True))
        return [number(v) for v in jaxpr.outvars]

    def called(self, equation: Any, reads: list[int]) -> tuple[Any, list[int]]:
        """Return the jaxpr that an equation calls once, if it does, and with what."""
        name, params = equation.primitive.name, equation.params
        if name == "cond" and reads[0] in self.branch:
            return params["branches"][self.branch[reads[0]]].jaxpr, reads[1:]
        if name in STORED or name.startswith(PREFIXES):
            return None, []
        inner = params.get("jaxpr", params.get("call_jaxpr", params.get("call")))
        return getattr(inner, "jaxpr", inner), reads


def _bodies(equation: Any) -> tuple[Any, ...]:
    name, params = equation.primitive.name, equation.params
    inner = {"while": ("body_jaxpr",), "scan": ("jaxpr",)}
    closed = params["branches"] if name == "cond" else [params[own] for own in inner.get(name, ())]
    return tuple(one.jaxpr for one in closed)
