"""TAMUNA: compressed communication of a cohort."""

from sps_jax.algorithms.base import Algorithm
from sps_jax.algorithms.compressed_scaffnew import compressed_scaffnew


def tamuna(*, stepsize, prob, owners=2) -> Algorithm:
    r"""TAMUNA (Condat et al. 2023, arXiv 2302.09832): CompressedScaffnew for cohorts; the same while all take part.

    :func:`compressed_scaffnew` with partial participation: a cohort of c of the n clients, drawn before the local
    steps, starts from the last broadcast, deals the coordinates among itself, s owners each, and only it updates its
    control variates, by the same :math:`\eta = n (s - 1) / (s (n - 1))`, with n and not c. While all clients take part
    the two are one method.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the reciprocal of the mean number of local steps.
      owners: s, how many clients of the cohort send each coordinate; rounded, and held between 2 and c.
    """
    return compressed_scaffnew(stepsize=stepsize, prob=prob, owners=owners)
