"""Sparse-ProxSkip and its variants: ProxSkip with pruning at different places.

Source: "Sparse-ProxSkip: Accelerated Sparse-to-Sparse Training in Federated Learning", arXiv 2405.20623 v2 (v1 was
"Prune at the Clients, Not the Server: Accelerated Sparse Training in Federated Learning"). The published text leaves
open where the plain method and its "-Local" variant apply TopK, so the names here are *readings*: documented presets of
the four switches of :func:`sps_jax.algorithms.pruning.pruned`. Three things are certain: the server only averages what
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
from sps_jax.algorithms.error_feedback import with_error_feedback
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.algorithms.pruning import pruned
from sps_jax.compression import topk


def sparse_proxskip(
    *, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk, error_feedback: str = "none"
) -> Algorithm:
    r"""Sparse-ProxSkip (arXiv 2405.20623): ProxSkip with straight-through pruning at the clients.

    With the sparsifier C, by default TopK,

    .. math::
        x_i &\leftarrow x_i - \gamma (\nabla f_i(C(x_i)) - h_i) \\
        \text{with probability } p: \quad
        b &= \frac1n \sum_i C(x_i), \qquad h_i \leftarrow h_i + \frac{p}{\gamma} (b - C(x_i)), \qquad x_i \leftarrow b

    and the shipped model is C(b). :math:`\sum_i h_i` stays zero. See the module's docstring for what the paper leaves
    open.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps.
      sparsity: fraction of the prunable weights set to zero, in [0, 1).
      prune: the sparsifier C, ``prune(params, sparsity) -> params``.
      error_feedback: whether later messages make up for what one leaves out: ``"none"`` (the paper); ``"ef14"``, with
        which :math:`\sum_i h_i` stays zero; or ``"ef21"``, with which it does so only without a cohort. See
        :func:`sps_jax.algorithms.error_feedback.with_error_feedback`. No theory covers it.

    Example:
      >>> import jax.numpy as jnp
      >>> method = sparse_proxskip(stepsize=0.5, prob=0.5, sparsity=0.5)
      >>> x, h = jnp.array([[4.0, 2.0]]), jnp.array([[1.0, 1.0]])
      >>> method.direction(x, h, x, lambda x: x, None).tolist()  # C(x) - h: the gradient is taken at C(x)
      [[3.0, -1.0]]
      >>> method.send(x, h, x, lambda x: x, None).tolist()
      [[4.0, 0.0]]
    """
    method = pruned(proxskip(stepsize=stepsize, prob=prob), prune, sparsity, gradient=True, uplink=True)
    return with_error_feedback(method, error_feedback)


def sparse_proxskip_local(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""A reading of "Sparse-ProxSkip-Local": clients prune the iterate itself after every local step.

    .. math:: x_i \leftarrow C(x_i - \gamma (\nabla f_i(x_i) - h_i))

    A client sends :math:`x_i`, which is already sparse; the rest is as in :func:`sparse_proxskip`. Only the first
    gradient after a communication is taken at the average, which can have up to nK nonzeros, K being the number that C
    keeps. See the module's docstring for what the paper leaves open.

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
    r"""ProxSkip with pruning at the server, the baseline that fails: its control variates no longer sum to zero.

    The server broadcasts :math:`b = C(\bar x)`, with :math:`\bar x` the mean of the :math:`x_i`, so each round adds
    :math:`n \frac{p}{\gamma} (C(\bar x) - \bar x)` to :math:`\sum_i h_i` (with a cohort, its size in place of n). Once
    the mask stops changing, it converges to the minimiser of :math:`f(x) - \langle \bar h, x \rangle` on that mask,
    with :math:`\bar h` the mean of the :math:`h_i`: a wrong point. The clients send dense vectors.

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
      >>> method.receive(mean, jnp.zeros((1, 2)), mean, b, None).tolist()  # the growth of sum h, divided by n
      [[0.0, -2.0]]
    """
    return pruned(proxskip(stepsize=stepsize, prob=prob), prune, sparsity, server="naive")


def server_pruning_modified(*, stepsize: Scalar, prob: Scalar, sparsity: Scalar, prune: Prune = topk) -> Algorithm:
    r"""Server pruning repaired: b is the dense average; clients start from C(b), which is also the shipped model.

    :math:`\sum_i h_i` stays zero, at the price of dense messages on the uplink *and* the downlink.

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
