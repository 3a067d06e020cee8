"""FedAvg: local gradient steps, then an average."""

from sps_jax.algorithms.base import Algorithm, Scalar, descend


def fedavg(*, stepsize: Scalar, prob: Scalar) -> Algorithm:
    r"""FedAvg (McMahan et al. 2017, arXiv 1602.05629).

    .. math:: x_i \leftarrow x_i - \gamma \nabla f_i(x_i), \qquad
              \text{and at a communication } x_i \leftarrow \frac1n \sum_j x_j

    With heterogeneous clients the local steps bias the point it converges to.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps; it only sets the
        schedule.

    Example:
      >>> import jax.numpy as jnp
      >>> method, x = fedavg(stepsize=0.5, prob=0.1), jnp.array([4.0, 2.0])
      >>> method.move(x, method.direction(x, (), x, lambda x: x, None)).tolist()  # the gradient of ||x||^2 / 2 is x
      [2.0, 1.0]
      >>> method.serve(x, jnp.array([3.0, 3.0]), None).tolist()  # the mean of what the clients sent
      [3.0, 3.0]
    """
    return Algorithm(move=descend(stepsize))
