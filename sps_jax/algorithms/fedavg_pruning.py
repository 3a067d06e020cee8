r"""FedAvg with pruning at the server or at the clients, without control variates.

The baselines of Sparse-ProxSkip, arXiv 2405.20623. Pruning at the server has other names. With p = 1, a gradient step
of every client, then the mean, of which the server keeps the largest, it is distributed iterative hard thresholding,
:math:`b \leftarrow C(b - \gamma \nabla f(b))`, here also called Fed-IHT. Tong et al. (2020, arXiv 2101.00052) have two
relatives, in our reading: with local steps it is their Fed-HT; their FedIter-HT also thresholds after every local step,
``pruned(fedavg(...), prune, sparsity, iterate=True, server="naive")``.
"""

from sps_jax.algorithms.base import Algorithm, Prune, Scalar
from sps_jax.algorithms.fedavg import fedavg
from sps_jax.algorithms.pruning import pruned
from sps_jax.compression import topk


def fedavg_server_pruning(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""FedAvg whose server broadcasts C(mean of x_i), C being a sparsifier; the clients send dense vectors.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it only sets the schedule.
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      prune: the sparsifier C.

    Example:
      >>> import jax.numpy as jnp
      >>> method, mean = fedavg_server_pruning(stepsize=0.5, prob=0.1, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> method.serve(mean, mean, None).tolist()
      [[4.0, 0.0]]
    """
    return pruned(fedavg(stepsize=stepsize, prob=prob), prune, sparsity, server="naive")


def fedavg_client_pruning(
    *, stepsize: Scalar, prob: Scalar, sparsity: Scalar, straight_through: bool = True, prune: Prune = topk
) -> Algorithm:
    r"""FedAvg whose clients send C(x_i), C being a sparsifier: Sparse-ProxSkip without control variates.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1]; it only sets the schedule.
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      straight_through: whether gradients are taken at :math:`C(x_i)` (True) or at :math:`x_i` (False).
      prune: the sparsifier C.

    Example:
      >>> import jax.numpy as jnp
      >>> method, x = fedavg_client_pruning(stepsize=0.5, prob=0.1, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> method.send(x, (), x, lambda x: x, None).tolist()
      [[4.0, 0.0]]
    """
    return pruned(fedavg(stepsize=stepsize, prob=prob), prune, sparsity, gradient=straight_through, uplink=True)
