"""The interface of a network, and the dtypes of its parameters and outputs."""

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
    """Returns the dtype of parameters and outputs of a network that computes in ``dtype``: float32 for bfloat16."""
    return "float32" if dtype == "bfloat16" else dtype


def norm_options(dtype: str) -> dict[str, Any]:
    """Returns options for flax's normalisations: they compute in the parameters' dtype, as bfloat16 is too coarse."""
    return {"dtype": storage(dtype), "param_dtype": storage(dtype), "force_float32_reductions": False}
