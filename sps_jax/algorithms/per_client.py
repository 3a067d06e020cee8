"""A hyperparameter that each client may have for itself."""

import jax
import jax.numpy as jnp

from sps_jax.algorithms.base import Scalar
from sps_jax.algorithms.ranges import Range

PerClient = Scalar | tuple[float, ...]
"""One number for all clients, or a tuple of one number per client."""


def own(value: PerClient, client: jax.Array, like: jax.Array) -> Scalar:
    """Returns the number of ``client``, an int32 scalar, in the dtype of ``like``.

    Example:
      >>> float(own((0.5, 0.25), jnp.int32(1), jnp.ones(3))), own(0.5, jnp.int32(1), jnp.ones(3))
      (0.25, 0.5)
    """
    return jnp.asarray(value, like.dtype)[client] if isinstance(value, tuple) else value


def check_each(name: str, value: PerClient, allowed: Range) -> None:
    """Raise a ``ValueError`` if ``value`` is a tuple with a number out of range; a single number is checked elsewhere.

    >>> check_each("alpha", (0.5, 2.0), Range(0, 1, "(]"))
    Traceback (most recent call last):
      ...
    ValueError: alpha must be in (0, 1], for every client, not 2
    """
    for one in value if isinstance(value, tuple) else ():
        if one not in allowed:
            raise ValueError(f"{name} must be {allowed}, for every client, not {one:g}")


def check_count(name: str, value: PerClient, clients: int) -> None:
    """Raise a ``ValueError`` if ``value`` is a tuple of another length than ``clients``.

    >>> check_count("alpha", (0.5, 0.5), 3)
    Traceback (most recent call last):
      ...
    ValueError: alpha must be one number, or one for each of the 3 clients, not 2 numbers
    """
    if isinstance(value, tuple) and len(value) != clients:
        raise ValueError(
            f"{name} must be one number, or one for each of the {clients} clients, not {len(value)} numbers"
        )
