"""Sparse-ProxSkip and its relatives: ProxSkip, pruned at one place or another.

Source: "Sparse-ProxSkip: Accelerated Sparse-to-Sparse Training in Federated Learning", arXiv 2405.20623 v2 (v1 was
"Prune at the Clients, Not the Server: Accelerated Sparse Training in Federated Learning"). The published text leaves
open which TopK the plain method and its "-Local" variant apply, so the names here are *readings*: documented presets of
the four switches of :func:`sps_jax.algorithms.pruning.pruned`. Certain are three things: the server only averages what
pruned clients send; the control variates are updated with the pruned vectors that were averaged; the model that is
evaluated and shipped is TopK of the server's average.

| preset | gradient | iterate | uplink | server |
|---|---|---|---|---|
| `sparse_proxskip` | straight-through | | TopK | |
| `sparse_proxskip_local` | | hard | | |
| `server_pruning` | | | | naive |
| `server_pruning_modified` | | | | modified |
"""

from sps_jax.algorithms.base import Algorithm, Prune, Scalar
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.algorithms.pruning import pruned
from sps_jax.compression import topk


def sparse_proxskip(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""Sparse-ProxSkip (arXiv 2405.20623): ProxSkip with pruning at the clients, straight-through.

    With C = TopK,

    .. math::
        x_i &\leftarrow x_i - \gamma (\nabla f_i(C(x_i)) - h_i) \\
        \text{with probability } p: \quad
        b &= \frac1n \sum_i C(x_i), \qquad h_i \leftarrow h_i + \frac{p}{\gamma} (b - C(x_i)), \qquad x_i \leftarrow b

    and the model is C(b). :math:`\sum_i h_i` stays zero. See the module's text for what the paper leaves open.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps.
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      prune: the sparsifier C, ``prune(params, sparsity) -> params``.

    Example:
      >>> import jax.numpy as jnp
      
      >>> method = sparse_proxskip(stepsize=0.5, prob=0.5, sparsity=0.5)
      >>> x, h = jnp.array([[4.0, 2.0]]), jnp.array([[1.0, 1.0]])
      >>> method.direction(x, h, x, lambda x: x, None).tolist()  # C(x) - h: the gradient is taken at C(x)
      [[3.0, -1.0]]
      >>> method.send(x, h, x, lambda x: x, None).tolist()
      [[4.0, 0.0]]
    """
    return pruned(proxskip(stepsize=stepsize, prob=prob), prune, sparsity, gradient=True, uplink=True)


def sparse_proxskip_local(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""A reading of "Sparse-ProxSkip-Local": the iterate itself is pruned after every local step.

    .. math:: x_i \leftarrow C(x_i - \gamma (\nabla f_i(x_i) - h_i))

    What goes up is :math:`x_i`, sparse already; the rest is as in :func:`sparse_proxskip`. Only the first gradient
    after a communication is taken at the average, which may have up to nK nonzeros. The published text leaves this
    preset open.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      prune: the sparsifier C.

    Example:
      >>> import jax.numpy as jnp

      >>> method = sparse_proxskip_local(stepsize=0.5, prob=0.5, sparsity=0.5)
      >>> method.move(jnp.array([[4.0, 2.0]]), jnp.array([[6.0, 0.0]])).tolist()  # C of [1, 2]
      [[0.0, 2.0]]
    """
    return pruned(proxskip(stepsize=stepsize, prob=prob), prune, sparsity, iterate=True)


def server_pruning(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""ProxSkip pruned at the server: the baseline that fails.

    The server broadcasts :math:`b = C(\frac1n \sum_i x_i)`, and each round adds
    :math:`n \frac{p}{\gamma} (C(\bar x) - \bar x)` to :math:`\sum_i h_i`: once the mask stands still it converges to
    the minimiser of :math:`f(x) - \langle \bar h, x \rangle` on that mask, a wrong point. The clients send dense
    vectors.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      prune: the sparsifier C.

    Example:
      >>> import jax.numpy as jnp

      >>> method, mean = server_pruning(stepsize=0.5, prob=0.5, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> b = method.serve(mean, mean, None)
      >>> b.tolist()
      [[4.0, 0.0]]
      >>> method.receive(mean, jnp.zeros((1, 2)), mean, b, None).tolist()  # what sum h grows by, over n
      [[0.0, -2.0]]
    """
    return pruned(proxskip(stepsize=stepsize, prob=prob), prune, sparsity, server="naive")


def server_pruning_modified(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""Server pruning repaired: b is the dense average, each client starts from C(b), the shipped model is C(b).

    :math:`\sum_i h_i` stays zero, at the price of a dense model up *and* down.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      prune: the sparsifier C.

    Example:
      >>> import jax.numpy as jnp

      >>> method, mean = server_pruning_modified(stepsize=0.5, prob=0.5, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> b = method.serve(mean, mean, None)
      >>> b.tolist(), method.start(b, ()).tolist()
      ([[4.0, 2.0]], [[4.0, 0.0]])
    """
    return pruned(proxskip(stepsize=stepsize, prob=prob), prune, sparsity, server="modified")
