"""What a network is to the rest of the package, and the precisions it has."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: key -> params.
      apply: params, inputs (b, ...) -> outputs (b, ...).
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


def storage(dtype: str) -> str:
    """What parameters and outputs are held in where a network computes in ``dtype``: never in bfloat16."""
    return "float32" if dtype == "bfloat16" else dtype


def norm_options(dtype: str) -> dict[str, Any]:
    """How flax's normalisations are to be made: they compute in what parameters are held in, bfloat16 is too coarse."""
    return {"dtype": storage(dtype), "param_dtype": storage(dtype), "force_float32_reductions": False}
