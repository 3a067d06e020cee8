"""The size of a message in bits, under named encodings.

A method declares the format of its messages with a :class:`MessageFormat`: the engine counts what varies from message
to message (a :class:`MessageCount`); the rest is known from the shapes (a :class:`MessageSpec`). Consider a message of
d numbers of b bits each, which sends v of them, at q out of P positions:

| encoding | bits | what is sent |
|---|---|---|
| `dense` | b d | every number |
| `indices` | b v + q ceil(log2 P) | the numbers, and the index of each position |
| `bitmap` | b v + P | the numbers, and one bit per position |
| `entropy` | b v + log2 binomial(P, q) | the same; no code for the positions can be shorter on average |
| `cheapest` | the least of the first three | the default |

For most methods b is the width of the message's dtype (32 for float32, 64 for float64), P = d and q = v, the number of
nonzeros. A position may stand for a block of numbers. Positions that both sides know cost nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax import tree
from sps_jax.errors import refuse_unknown

KNOWN = -1
"""Stands for the number of positions sent if both sides know the positions."""


class MessageCount(NamedTuple):
    """The counts that vary from message to message, int32 scalars.

    Attributes:
      values: v, the number of numbers sent.
      positions: q, the number of positions sent, or :data:`KNOWN`.

    Example:
      >>> message_bits(MessageCount(values=2, positions=KNOWN), MessageSpec(8, 8))
      64
    """

    values: Any
    positions: Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class MessageSpec:
    """The sizes that all messages of one kind have in common.

    Attributes:
      entries: d, the number of numbers in the message, >= 1.
      places: P, the number of possible positions.
      value_bits: b, bits per number, see :func:`value_bits`.
      header_bits: bits sent in addition, for example a norm that scales all numbers.
      groups: the number of groups of P positions each; a message sends equally many positions in each group.

    Example:
      >>> message_bits(2, MessageSpec(entries=8, places=8, value_bits=4, header_bits=32))  # 32 + 2 * 4 + 2 * 3
      46
    """

    entries: int
    places: int
    value_bits: int = 32
    header_bits: int = 0
    groups: int = 1


class MessageFormat(NamedTuple):
    """The format of a method's messages, from which their bits are counted.

    Attributes:
      count: ``message, info -> MessageCount``, traced; ``info`` is a :class:`sps_jax.RoundInfo`.
      size: ``message -> MessageSpec``, from the message's shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> message = jnp.array([0.0, 3.0, 0.0, 1.0])
      >>> message_bits(FLOATS.count(message, None), FLOATS.size(message))  # 2 * 32 + 4
      68
    """

    count: Callable[[Any, Any], MessageCount]  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    size: Callable[[Any], MessageSpec]


def value_bits(message: Any) -> int:
    """Returns the bits per number of a message: the width of its floating-point dtype, of the widest if they differ.

    Example:
      >>> value_bits({"x": jnp.ones(3, jnp.float32), "mask": jnp.ones(3, bool)})
      32
    """
    return max((8 * leaf.dtype.itemsize for leaf in tree.floats(message)), default=32)


def size_of(message: Any) -> MessageSpec:
    """Returns the :class:`MessageSpec` of messages that send their nonzeros unquantised, with a position each.

    Example:
      >>> size_of(jnp.ones(3, jnp.float32))
      MessageSpec(entries=3, places=3, value_bits=32, header_bits=0, groups=1)
    """
    entries = tree.size(message)
    return MessageSpec(entries, entries, value_bits(message))


def _nonzeros(message: Any, info: Any) -> MessageCount:
    nonzeros = tree.nonzeros(message)
    return MessageCount(nonzeros, nonzeros)


FLOATS = MessageFormat(_nonzeros, size_of)
"""Messages that send their nonzeros unquantised, with a position each."""

SHARED_POSITIONS = MessageFormat(
    lambda message, info: MessageCount(tree.nonzeros(message), jnp.int32(KNOWN)), FLOATS.size
)
"""Messages that send their nonzeros unquantised, at positions that both sides know."""


def _signs(message: Any, info: Any) -> MessageCount:
    nonzeros, entries = tree.nonzeros(message), tree.size(message)
    return MessageCount(nonzeros, jnp.where(nonzeros == entries, jnp.int32(KNOWN), nonzeros))


def _size_of_signs(message: Any) -> MessageSpec:
    entries = tree.size(message)
    return MessageSpec(2 * entries, entries, value_bits=1)


SIGNS = MessageFormat(_signs, _size_of_signs)
"""Messages of signs: a bit for each; where some are zero, the positions of the others too.

The ``dense`` encoding has two bits for each of the three values, so twice as many entries of one bit as numbers.
"""


def _index_bits(positions: int, size: MessageSpec) -> int:
    return positions * (size.places - 1).bit_length()  # (P - 1).bit_length() is ceil(log2 P)


def _map_bits(positions: int, size: MessageSpec) -> int:
    return size.groups * size.places


def _choice_bits(positions: int, size: MessageSpec) -> float:
    each = positions / size.groups
    choices = math.lgamma(size.places + 1) - math.lgamma(each + 1) - math.lgamma(size.places - each + 1)
    return size.groups * choices / math.log(2)


_POSITIONS: dict[str, Callable[[int, MessageSpec], int | float]] = {
    "indices": _index_bits,
    "bitmap": _map_bits,
    "entropy": _choice_bits,
}
ENCODINGS: dict[str, str] = {
    "dense": "Every number.",
    "indices": "The nonzeros, and the index of each position.",
    "bitmap": "The nonzeros, and one bit per position.",
    "entropy": "The nonzeros, and for their positions the shortest average length that any code can have.",
    "cheapest": "The least of dense, indices and bitmap: the default.",
}
"""Name -> what is sent; the formulas are in the module's docstring."""


def message_bits(count: MessageCount | int, size: MessageSpec | int, encoding: str = "cheapest") -> int | float:
    """Returns the bits of one message; an int, or a float under ``"entropy"``.

    Args:
      count: the message's counts; an int v stands for v nonzeros with a position each.
      size: the message's sizes; an int d stands for d numbers of 32 bits.
      encoding: a name in :data:`ENCODINGS`.

    Raises:
      ValueError: for an unknown encoding or counts out of range.

    >>> message_bits(78, 7840), message_bits(7840, 7840)
    (3510, 250880)
    """
    refuse_unknown("encoding", encoding, ENCODINGS)
    values, positions = map(int, count if isinstance(count, MessageCount) else (count, count))
    size = size if isinstance(size, MessageSpec) else MessageSpec(int(size), int(size))
    if size.entries < 1 or not 0 <= values <= size.entries or not KNOWN <= positions <= size.places * size.groups:
        raise ValueError(f"a message of {size.entries} entries cannot have {values} nonzeros at {positions} positions")

    def bits(encoding: str) -> int | float:
        if encoding == "dense":
            return size.header_bits + size.value_bits * size.entries
        told = 0 if positions == KNOWN else _POSITIONS[encoding](positions, size)
        return size.header_bits + size.value_bits * values + told

    return min(map(bits, ("dense", "indices", "bitmap"))) if encoding == "cheapest" else bits(encoding)


def total_bits(counts: MessageCount | np.ndarray, size: MessageSpec | int, encoding: str = "cheapest") -> int | float:
    """Returns the bits of many messages of one size, summed in Python numbers, which do not overflow.

    Args:
      counts: integer arrays of equal shapes, one number per message; a single array for nonzeros with a position each.
      size, encoding: see :func:`message_bits`.

    Example:
      >>> total_bits(np.array([1, 2]), 8)
      105
    """
    pairs = counts if isinstance(counts, MessageCount) else (counts, counts)
    rows = np.stack([np.asarray(each).ravel() for each in pairs], axis=1)
    kinds, messages = np.unique(rows, axis=0, return_counts=True)
    each = (message_bits(MessageCount(*kind), size, encoding) for kind in kinds.tolist())
    return sum(bits * m for bits, m in zip(each, messages.tolist(), strict=True))
