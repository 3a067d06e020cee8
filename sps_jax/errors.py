"""How the border says no: what was wrong, what is allowed, the nearest right spelling."""

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, allowed: Iterable[str]) -> ValueError:
    """The error for a ``name`` that is no known ``kind``; raise what it returns.

    >>> print(unknown("algorithm", "fedvag", ["fedavg", "gd"]))
    unknown algorithm 'fedvag': did you mean 'fedavg'? Allowed: fedavg, gd
    """
    allowed = list(allowed)
    near = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    guess = f" did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}:{guess} Allowed: {', '.join(allowed)}")
