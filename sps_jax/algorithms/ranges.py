"""The range of a hyperparameter, declared where a factory names it."""

import math
from typing import NamedTuple


class Range(NamedTuple):
    """An interval of numbers that a hyperparameter may have, given with its type in a factory's signature.

    ``momentum: Annotated[float, Range(-1, 1)]`` allows -1 to 1. Without a range, ``prob`` is in (0, 1], ``sparsity`` in
    [0, 1), ``stepsize`` positive, and every other number not negative. Infinity and NaN are never allowed.

    Attributes:
      low, high: the ends.
      ends: a bracket for each end, "[" or "]" if the end itself is allowed, "(" or ")" if not.

    Example:
      >>> 0.0 in Range(0, 1, "(]"), -0.5 in Range(-1, 1), math.inf in Range(0)
      (False, True, False)
    """

    low: float
    high: float = math.inf
    ends: str = "[]"

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = value > self.low or (value == self.low and self.ends[0] == "[")
        return above and (value < self.high or (value == self.high and self.ends[1] == "]"))

    def __str__(self) -> str:
        """Describe the range in words.

        >>> print(Range(0), Range(2), Range(0, math.inf, "(]"), Range(0, 1, "(]"), Range(-math.inf), sep="; ")
        finite and not negative; finite and at least 2; positive and finite; in (0, 1]; finite
        """
        if (self.low, self.high) == (-math.inf, math.inf):
            return "finite"
        if math.isinf(self.low):
            return f"finite and {'at most' if self.ends[1] == ']' else 'below'} {self.high:g}"
        if self.high < math.inf:
            return f"in {self.ends[0]}{self.low:g}, {self.high:g}{self.ends[1]}"
        if self.low == 0:
            return "finite and not negative" if self.ends[0] == "[" else "positive and finite"
        return f"finite and {'at least' if self.ends[0] == '[' else 'above'} {self.low:g}"
