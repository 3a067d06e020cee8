"""FedAvg with an optimiser at the server: FedAvgM, FedAdam and FedYogi.

Source: Reddi et al. 2020, "Adaptive Federated Optimization", arXiv 2003.00295.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, Scalar
from sps_jax.algorithms.fedavg import fedavg
from sps_jax.algorithms.ranges import Range
from sps_jax.algorithms.server_optimizer import server_optimizer
from sps_jax.tree import Tree

Positive = Annotated[Scalar, Range(0, float("inf"), "(]")]
Decay = Annotated[Scalar, Range(0, 1, "[)")]


class Moments(NamedTuple):
    """The state of FedAdam's and FedYogi's servers: m and v."""

    m: Any
    v: Any


def fedavgm(*, stepsize: Scalar, prob: Scalar, server_stepsize: Positive, momentum: Decay = 0.9) -> Algorithm:
    r"""FedAvgM (Hsu et al. 2019, arXiv 1909.06335): FedAvg with momentum at the server.

    .. math::
        m \leftarrow \beta m + \Big( b - \frac1n \sum_i x_i \Big), \qquad b \leftarrow b - \eta m

    with :math:`\eta` the ``server_stepsize`` (Hsu et al. have 1) and :math:`\beta` the momentum. It is
    ``server_optimizer(fedavg(...), optax.sgd(server_stepsize, momentum))``.

    Args:
      stepsize: gamma > 0, of the clients.
      prob: p in (0, 1]; it only sets the schedule.
      server_stepsize: eta > 0.
      momentum: beta in [0, 1), by default 0.9, as in Reddi et al. (arXiv 2003.00295).

    Example:
      >>> import jax.numpy as jnp
      >>> method = fedavgm(stepsize=0.5, prob=0.1, server_stepsize=1.0, momentum=0.5)
      >>> _, state = method.init(jnp.array([4.0]))
      >>> state = method.serve(state, jnp.array([3.0]), None)  # m = 1, b = 3
      >>> state = method.serve(state, jnp.array([2.0]), None)  # m = 1/2 + 1
      >>> method.model(state).tolist()
      [1.5]
    """
    return server_optimizer(fedavg(stepsize=stepsize, prob=prob), optax.sgd(server_stepsize, momentum))


def fedadam(
    *,
    stepsize: Scalar,
    prob: Scalar,
    server_stepsize: Positive,
    epsilon: Positive,
    beta1: Decay = 0.9,
    beta2: Decay = 0.99,
) -> Algorithm:
    r"""FedAdam (Reddi et al. 2020, arXiv 2003.00295, algorithm 2): FedAvg with Adam at the server.

    With the pseudo-gradient :math:`d = b - \frac1n \sum_i x_i`, from m = 0 and :math:`v = \epsilon^2`,

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) d, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) d^2, \qquad
        b \leftarrow b - \eta \frac{m}{\sqrt v + \epsilon}

    entry by entry. As in the paper, and unlike ``optax.adam``, m and v are not corrected for their start.

    Args:
      stepsize: gamma > 0, of the clients.
      prob: p in (0, 1]; it only sets the schedule.
      server_stepsize: eta > 0.
      epsilon: > 0, the paper's tau: entries whose pseudo-gradients are much smaller hardly adapt.
      beta1, beta2: in [0, 1), by default the paper's 0.9 and 0.99.

    Example:
      >>> import jax.numpy as jnp
      >>> method = fedadam(stepsize=0.5, prob=0.1, server_stepsize=1.0, epsilon=1.0, beta1=0.5, beta2=0.0)
      >>> _, state = method.init(jnp.array([4.0]))
      >>> method.model(method.serve(state, jnp.array([1.0]), None)).tolist()  # d = 3: 4 - 1.5 / (3 + 1)
      [3.625]
    """

    def second(v: jax.Array, square: jax.Array) -> jax.Array:
        return beta2 * v + (1 - beta2) * square

    return server_optimizer(fedavg(stepsize=stepsize, prob=prob), _adaptive(server_stepsize, epsilon, beta1, second))


def fedyogi(
    *,
    stepsize: Scalar,
    prob: Scalar,
    server_stepsize: Positive,
    epsilon: Positive,
    beta1: Decay = 0.9,
    beta2: Decay = 0.99,
) -> Algorithm:
    r"""FedYogi (Reddi et al. 2020, arXiv 2003.00295, algorithm 2): FedAvg with Yogi at the server.

    As :func:`fedadam`, except that v moves by an amount that does not depend on v, and so forgets slowly:

    .. math:: v \leftarrow v - (1 - \beta_2) d^2 \, \mathrm{sign}(v - d^2)

    Args:
      stepsize: gamma > 0, of the clients.
      prob: p in (0, 1]; it only sets the schedule.
      server_stepsize: eta > 0.
      epsilon: > 0, the paper's tau.
      beta1, beta2: in [0, 1), by default the paper's 0.9 and 0.99.

    Example:
      >>> import jax.numpy as jnp
      >>> method = fedyogi(stepsize=0.5, prob=0.1, server_stepsize=1.0, epsilon=1.0, beta1=0.5, beta2=0.5)
      >>> _, state = method.init(jnp.array([4.0]))
      >>> state = method.serve(state, jnp.array([6.0]), None)  # d = -2: v = 1 + 4 / 2
      >>> state.optimizer.v.tolist()
      [3.0]
    """

    def second(v: jax.Array, square: jax.Array) -> jax.Array:
        return v - (1 - beta2) * square * jnp.sign(v - square)

    return server_optimizer(fedavg(stepsize=stepsize, prob=prob), _adaptive(server_stepsize, epsilon, beta1, second))


def _adaptive(
    stepsize: Scalar, epsilon: Scalar, beta1: Scalar, second: Callable[[jax.Array, jax.Array], jax.Array]
) -> optax.GradientTransformation:
    r"""Returns the optimiser :math:`- \eta m / (\sqrt v + \epsilon)`; ``second(v, d^2)`` is the next v."""

    def init(params: Tree) -> Moments:
        zeros = optax.tree.zeros_like(params)
        return Moments(zeros, jax.tree.map(lambda a: a + epsilon**2, zeros))

    def update(d: Tree, state: Moments, params: Tree | None = None) -> tuple[Tree, Moments]:
        m = jax.tree.map(lambda m, d: beta1 * m + (1 - beta1) * d, state.m, d)
        v = jax.tree.map(lambda v, d: second(v, d * d), state.v, d)
        return jax.tree.map(lambda m, v: -stepsize * m / (jnp.sqrt(v) + epsilon), m, v), Moments(m, v)

    return optax.GradientTransformation(init, update)
