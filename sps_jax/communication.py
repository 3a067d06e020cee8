"""What a message costs, in bits, under named encodings.

A message of d numbers, ``nonzeros`` of them not zero, each number of 32 bits:

=============  =============================================  ==========================================
``dense``      32 d                                           every number
``indices``    nonzeros (32 + ceil(log2 d))                   value and position of each nonzero
``bitmap``     d + 32 nonzeros                                one bit a position, then the values
``entropy``    32 nonzeros + log2 binomial(d, nonzeros)       no code for the positions can be shorter on average
``cheapest``   the least of the first three                   the default
=============  =============================================  ==========================================
"""

import math
from collections.abc import Callable

import numpy as np

from sps_jax.errors import unknown

VALUE_BITS = 32


def _dense(nonzeros: int, entries: int) -> int:
    return VALUE_BITS * entries


def _indices(nonzeros: int, entries: int) -> int:
    return nonzeros * (VALUE_BITS + (entries - 1).bit_length())  # (d - 1).bit_length() is ceil(log2 d)


def _bitmap(nonzeros: int, entries: int) -> int:
    return entries + VALUE_BITS * nonzeros


def _entropy(nonzeros: int, entries: int) -> float:
    log_choices = math.lgamma(entries + 1) - math.lgamma(nonzeros + 1) - math.lgamma(entries - nonzeros + 1)
    return VALUE_BITS * nonzeros + log_choices / math.log(2)


def _cheapest(nonzeros: int, entries: int) -> int:
    return min(code(nonzeros, entries) for code in (_dense, _indices, _bitmap))


ENCODINGS: dict[str, Callable[[int, int], int | float]] = {
    "dense": _dense,
    "indices": _indices,
    "bitmap": _bitmap,
    "entropy": _entropy,
    "cheapest": _cheapest,
}


def message_bits(nonzeros: int, entries: int, encoding: str = "cheapest") -> int | float:
    """Bits of one message; an int, or a float under ``"entropy"``.

    Args:
      nonzeros: how many numbers of the message are not zero, 0 <= nonzeros <= entries.
      entries: d, how many numbers the message has, >= 1.
      encoding: a name of the table above.

    Raises:
      ValueError: for an unknown encoding or counts out of range.

    >>> message_bits(78, 7840), message_bits(7840, 7840)
    (3510, 250880)
    """
    if encoding not in ENCODINGS:
        raise unknown("encoding", encoding, ENCODINGS)
    if not 0 <= nonzeros <= entries or entries < 1:
        raise ValueError(f"a message of {entries} entries cannot have {nonzeros} nonzeros")
    return ENCODINGS[encoding](int(nonzeros), int(entries))


def total_bits(nonzeros: np.ndarray, entries: int, encoding: str = "cheapest") -> int | float:
    """Bits of many messages of ``entries`` numbers each, summed in Python numbers, which do not overflow.

    Args:
      nonzeros: integer array of any shape, one count a message.
    """
    counts, messages = np.unique(np.asarray(nonzeros), return_counts=True)
    each = (message_bits(c, entries, encoding) for c in counts.tolist())
    return sum(bits * m for bits, m in zip(each, messages.tolist(), strict=True))
