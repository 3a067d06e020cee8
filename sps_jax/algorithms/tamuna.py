"""TAMUNA: compressed communication with partial participation."""

from typing import Annotated

from sps_jax.algorithms.base import Algorithm, Scalar
from sps_jax.algorithms.compressed_scaffnew import compressed_scaffnew
from sps_jax.algorithms.ranges import Range


def tamuna(*, stepsize: Scalar, prob: Scalar, owners: Annotated[Scalar, Range(2)] = 2) -> Algorithm:
    r"""TAMUNA (Condat et al. 2023, arXiv 2302.09832): CompressedScaffnew with partial participation.

    A cohort of c of the n clients, drawn before the local steps, starts from the last broadcast. The coordinates are
    distributed over the cohort, s owners each, and only the cohort updates its control variates, with the same
    :math:`\eta = n (s - 1) / (s (n - 1))`, in n and not c. Under full participation it is :func:`compressed_scaffnew`.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the reciprocal of the mean number of local steps.
      owners: s, the number of the cohort's clients that send each coordinate; rounded, then clipped to between 2 and c.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sps_jax import RoundInfo
      >>> key = jax.random.key(0)
      >>> turns = [RoundInfo(key, key, jnp.int32(i), jnp.float32(2), cohort=3, clients=100) for i in range(3)]
      >>> method, x = tamuna(stepsize=0.5, prob=0.5, owners=2), jnp.ones(4)
      >>> sum(method.send(x, (), x, lambda x: x, info) for info in turns).tolist()  # two owners each, in the cohort
      [2.0, 2.0, 2.0, 2.0]
    """
    return compressed_scaffnew(stepsize=stepsize, prob=prob, owners=owners)
