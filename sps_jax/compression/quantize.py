"""Stochastic quantisation: one norm per message and a few bits per number."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sps_jax import tree
from sps_jax.compression.bits import MessageFormat, MessageSpec, value_bits
from sps_jax.tree import Tree


def quantize(params: Tree, key: jax.Array, bits: int) -> Tree:
    r"""Returns Q_r(x), the stochastic quantiser of QSGD (Alistarh et al. 2017, arXiv 1610.02132).

    .. math::
        Q_r(x)_j = \|x\| \, \mathrm{sign}(x_j) \, \frac{\xi_j}{2^r - 1}, \qquad
        \xi_j \in \{\lfloor a_j \rfloor, \lfloor a_j \rfloor + 1\}, \qquad
        a_j = (2^r - 1) \frac{|x_j|}{\|x\|}

    where x is the vector of all d entries of ``params``, and each :math:`\xi_j` is drawn such that
    :math:`E\, Q_r(x) = x`; then :math:`E \|Q_r(x) - x\|^2 \le \min(d / s^2, \sqrt d / s) \|x\|^2` with
    :math:`s = 2^r - 1`. The s + 1 levels take r bits, so a number takes r + 1 bits with its sign. (FedComLoc,
    arXiv 2403.09904, writes :math:`2^r` in place of s, which gives one level too many for r bits.)

    Args:
      params: pytree of floating-point arrays.
      key: a JAX random key.
      bits: r >= 1.

    Example:
      >>> quantize(jnp.array([0.0, -2.0]), jax.random.key(0), bits=1).tolist()
      [0.0, -2.0]
    """
    leaves, structure = jax.tree.flatten(params)
    largest, steps = tree.largest(leaves), 2**bits - 1
    safe = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    norm = jnp.maximum(optax.tree.norm([x / safe for x in leaves]), 1)  # squares of unscaled numbers may underflow

    def one(x: jax.Array, key: jax.Array) -> jax.Array:
        scaled = steps * (jnp.abs(x) / safe / norm)
        level = jnp.floor(scaled)
        level = level + (jax.random.uniform(key, x.shape, x.dtype) < scaled - level).astype(x.dtype)
        return safe * (norm / steps) * jnp.sign(x) * level

    return jax.tree.unflatten(structure, map(one, leaves, jax.random.split(key, len(leaves))))


def quantized(code: MessageFormat, bits: int | None) -> MessageFormat:
    """Returns ``code`` with ``bits`` + 1 bits per number, plus those of the norm; unchanged if ``bits`` is None."""
    if bits is None:
        return code

    def size(message: Any) -> MessageSpec:
        return dataclasses.replace(code.size(message), value_bits=bits + 1, header_bits=value_bits(message))

    return code._replace(size=size)
