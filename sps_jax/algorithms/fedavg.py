"""FedAvg: local gradient steps, then the average."""

from sps_jax.algorithms.base import Algorithm, Scalar, descend


def fedavg(*, stepsize: Scalar, prob: Scalar) -> Algorithm:
    r"""FedAvg (McMahan et al. 2017, arXiv 1602.05629).

    .. math:: x_i \leftarrow x_i - \gamma \nabla f_i(x_i), \qquad
              \text{and when they communicate } x_i \leftarrow \frac1n \sum_j x_j

    With heterogeneous clients it stops at a point that is biased by the local steps.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps; it sets the schedule
        and is not used otherwise.
    """
    return Algorithm(move=descend(stepsize))
