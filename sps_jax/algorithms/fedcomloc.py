"""FedComLoc (arXiv 2403.09904): ProxSkip with a compressor C at one of three places.

C is TopK followed by the stochastic quantiser Q_r of :func:`sps_jax.quantize`: Q_r alone if ``sparsity`` is 0, TopK
alone if ``quantize_bits`` is None.
"""

from collections.abc import Callable
from typing import Annotated

import jax

from sps_jax.algorithms.base import Algorithm, Gradient, Prune, Scalar
from sps_jax.algorithms.proxskip import proxskip
from sps_jax.algorithms.ranges import Range
from sps_jax.compression import topk
from sps_jax.compression.bits import FLOATS, MessageFormat
from sps_jax.compression.quantize import quantize, quantized
from sps_jax.tree import Tree

Bits = Annotated[int | None, Range(1, 16)]


def fedcomloc_com(
    *, stepsize: Scalar, prob: Scalar, sparsity: Scalar, quantize_bits: Bits = None, prune: Prune = topk
) -> Algorithm:
    r"""FedComLoc-Com (Yi et al. 2024, arXiv 2403.09904): ProxSkip whose clients send C(x_i): TopK, quantised, or both.

    As :func:`proxskip`, except that :math:`C(x_i)` replaces :math:`x_i` in the message and in the control variates:

    .. math:: b = \frac1n \sum_i C(x_i), \qquad h_i \leftarrow h_i + \frac{p}{\gamma} (b - C(x_i))

    :math:`\sum_i h_i` stays zero. With Q_r it stalls at a level that the quantiser's noise sets. The shipped model is
    b, which is not pruned: ``sparsity`` is that of the messages, and n messages of K weights can give b up to nK.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      sparsity: fraction of the prunable weights that TopK sets to zero, in [0, 1).
      quantize_bits: r of the stochastic quantiser, 1 to 16; None sends the numbers unquantised.
      prune: a sparsifier to use instead of TopK.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sps_jax import RoundInfo
      >>> key = jax.random.key(0)
      >>> info = RoundInfo(key, key, jnp.int32(0), jnp.float32(2), cohort=10, clients=10)
      >>> method, x = fedcomloc_com(stepsize=0.5, prob=0.5, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> method.send(x, (), x, lambda x: x, info).tolist()
      [[4.0, 0.0]]
    """
    compress, code = _compressor(sparsity, quantize_bits, prune)
    return proxskip(stepsize=stepsize, prob=prob)._replace(
        send=lambda x, h, b, gradient, info: compress(x, info.key), uplink=code
    )


def fedcomloc_local(
    *, stepsize: Scalar, prob: Scalar, sparsity: Scalar, quantize_bits: Bits = None, prune: Prune = topk
) -> Algorithm:
    r"""FedComLoc-Local: gradients are taken at the compressed iterate C(x_i); messages are dense.

    .. math:: x_i \leftarrow x_i - \gamma (\nabla f_i(C(x_i)) - h_i)

    The rest is :func:`proxskip`, dense messages included. The shipped model is the dense average, whose entries
    outside TopK no gradient corrects; ``sparsity`` is that of the point where gradients are taken, not of the model.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      sparsity: fraction of the prunable weights that TopK sets to zero, in [0, 1).
      quantize_bits: r of the stochastic quantiser, 1 to 16; None leaves the numbers unquantised.
      prune: a sparsifier to use instead of TopK.

    Example:
      >>> import jax.numpy as jnp
      >>> method, x = fedcomloc_local(stepsize=0.5, prob=0.5, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> method.direction(x, jnp.zeros((1, 2)), x, lambda x: x, None).tolist()
      [[4.0, 0.0]]
    """
    compress, _ = _compressor(sparsity, quantize_bits, prune)
    base = proxskip(stepsize=stepsize, prob=prob)

    def direction(x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array) -> Tree:
        return base.direction(x, h, b, lambda params: gradient(compress(params, key)), key)

    return base._replace(direction=direction)


def fedcomloc_global(
    *, stepsize: Scalar, prob: Scalar, sparsity: Scalar, quantize_bits: Bits = None, prune: Prune = topk
) -> Algorithm:
    r"""FedComLoc-Global: the server compresses its broadcast, so that the control variates no longer sum to zero.

    .. math:: b = C\Big(\frac1n \sum_i x_i\Big)

    The rest is :func:`proxskip`. :math:`\sum_i h_i` does not stay zero; with TopK alone it is :func:`server_pruning`.
    The shipped model is b: from the first communication on, K of its prunable weights are nonzero, at most K with Q_r.

    Args:
      stepsize: gamma > 0.
      prob: p in (0, 1].
      sparsity: fraction of the prunable weights that TopK sets to zero, in [0, 1).
      quantize_bits: r of the stochastic quantiser, 1 to 16; None sends the numbers unquantised.
      prune: a sparsifier to use instead of TopK.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sps_jax import RoundInfo
      >>> key = jax.random.key(0)
      >>> info = RoundInfo(key, key, jnp.int32(-1), jnp.float32(2), cohort=10, clients=10)
      >>> method, mean = fedcomloc_global(stepsize=0.5, prob=0.5, sparsity=0.5), jnp.array([[4.0, 2.0]])
      >>> method.serve(mean, mean, info).tolist()
      [[4.0, 0.0]]
    """
    compress, code = _compressor(sparsity, quantize_bits, prune)
    return proxskip(stepsize=stepsize, prob=prob)._replace(
        serve=lambda server, mean, info: compress(mean, info.key), downlink=code, zero_sum=False
    )


def _compressor(
    sparsity: Scalar, bits: int | None, prune: Prune
) -> tuple[Callable[[Tree, jax.Array], Tree], MessageFormat]:
    """Returns C as a function of parameters and key, and the format of its messages."""

    def compress(params: Tree, key: jax.Array) -> Tree:
        params = prune(params, sparsity)
        return params if bits is None else quantize(params, key, bits)

    return compress, quantized(getattr(prune, "code", FLOATS), bits)
