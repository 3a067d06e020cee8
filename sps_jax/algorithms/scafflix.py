"""Scafflix: accelerated local steps towards a model that every client mixes with its own."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, Follow, Gradient, RoundInfo, Scalar
from sps_jax.algorithms.per_client import PerClient, check_count, check_each, own
from sps_jax.algorithms.ranges import Range
from sps_jax.tree import Tree

SHARE, POSITIVE = Range(0, 1, "(]"), Range(0, float("inf"), "(]")


class ScafflixMemory(NamedTuple):
    """What a client keeps between rounds: its control variate h, its own model, and its number, int32."""

    h: Any
    local: Any
    client: jax.Array


class ScafflixIterate(NamedTuple):
    """A client's local iterate: x, its own model, and its number."""

    x: Any
    local: Any
    client: jax.Array


class ScafflixMessage(NamedTuple):
    """What a client sends: w_i x_i and the weight w_i; ``serve`` gets the means."""

    x: Any
    weight: jax.Array


def scafflix(
    *,
    stepsize: Annotated[PerClient, POSITIVE],
    prob: Scalar,
    alpha: Annotated[PerClient, SHARE],
    minimisers: Callable[[jax.Array], Tree] | None = None,
) -> Algorithm:
    r"""Scafflix (Yi et al. 2023, arXiv 2305.13170): ProxSkip for FLIX, where each client mixes in its own model.

    FLIX personalises: client i uses :math:`\tilde x_i = \alpha_i x + (1 - \alpha_i) x_i^*`, with :math:`x_i^*` the
    minimiser of its own f_i, and x minimises :math:`\frac1n \sum_i f_i(\tilde x_i)`.

    .. math::
        x_i &\leftarrow x_i - \frac{\gamma_i}{\alpha_i}
            (\nabla f_i(\alpha_i x_i + (1 - \alpha_i) x_i^*) - h_i) \\
        \text{with probability } p: \quad
        b &= \frac{\sum_i w_i x_i}{\sum_i w_i}, \quad w_i = \frac{\alpha_i^2}{\gamma_i}, \qquad
        h_i \leftarrow h_i + p \frac{\alpha_i}{\gamma_i} (b - x_i), \qquad x_i \leftarrow b

    :math:`\sum_i \alpha_i h_i` stays zero, so these are the control variates. If each f_i is L_i-smooth and strongly
    convex and :math:`\gamma_i \le 1/L_i`, it converges linearly to the minimiser of FLIX, and :math:`h_i \to \nabla
    f_i(\tilde x_i)`. With all :math:`\alpha_i = 1` and equal step sizes it is :func:`proxskip`.

    The shipped model is b, the common x; the client's own is :func:`personalised`. The reported losses are those of b.
    A client sends its weight beside its vector, one number that the paper's server knows.

    A reading: where no ``minimisers`` are given, a client looks for :math:`x_i^*` alongside, from the common start, by
    one plain step :math:`y_i \leftarrow y_i - \gamma_i \nabla f_i(y_i)` before every local step, which then uses this
    :math:`y_i`. That costs a second gradient a step and no communication; in the paper :math:`x_i^*` is computed first.

    Args:
      stepsize: gamma_i > 0, one for all clients or a tuple of one for each.
      prob: p in (0, 1], the probability of communicating after a step, 1/k for k local steps.
      alpha: alpha_i in (0, 1], one for all clients or a tuple of one for each.
      minimisers: a function of the client's number, an int32 scalar, that returns :math:`x_i^*`; or None.

    Raises:
      ValueError: for a number out of range; when the algorithm starts, for a tuple of another length than the clients.

    Example:
      >>> import jax.numpy as jnp
      >>> method = scafflix(stepsize=0.5, prob=0.5, alpha=0.5, minimisers=lambda i: jnp.array([2.0, 2.0]))
      >>> h, b = method.init(jnp.array([4.0, 2.0]))
      >>> h = method.init_client(h, jnp.int32(0), 1)
      >>> x = method.start(b, h)
      >>> x = method.move(x, method.direction(x, h, b, lambda x: x - 2, None))
      >>> x.x.tolist()  # x - (3 - 2), as x~ is [3, 2]
      [3.0, 2.0]
    """
    check_each("stepsize", stepsize, POSITIVE)
    check_each("alpha", alpha, SHARE)

    def numbers(client: jax.Array, like: Tree) -> tuple[Scalar, Scalar]:
        leaf = jax.tree.leaves(like)[0]
        return own(stepsize, client, leaf), own(alpha, client, leaf)

    def init(params: Tree) -> tuple[Tree, Tree]:
        return ScafflixMemory(optax.tree.zeros_like(params), params, jnp.int32(0)), params

    def init_client(h: ScafflixMemory, i: jax.Array, n: int) -> ScafflixMemory:
        check_count("stepsize", stepsize, n)
        check_count("alpha", alpha, n)
        return ScafflixMemory(h.h, h.local if minimisers is None else minimisers(i), i)

    def direction(x: ScafflixIterate, h: ScafflixMemory, b: Tree, gradient: Gradient, key: jax.Array) -> Follow:
        gamma, a = numbers(x.client, x.x)
        local = x.local
        if minimisers is None:
            local = jax.tree.map(lambda y, g: y - gamma * g, local, gradient(local))
        d = jax.tree.map(lambda g, h: (g - h) / a, gradient(personalised(x.x, local, a)), h.h)
        return Follow(d, x._replace(local=local))

    def move(x: ScafflixIterate, follow: Follow) -> ScafflixIterate:
        d, x = follow
        gamma, _ = numbers(x.client, x.x)
        return x._replace(x=jax.tree.map(lambda a, d: a - gamma * d, x.x, d))

    def send(x: ScafflixIterate, h: ScafflixMemory, b: Tree, gradient: Gradient, info: RoundInfo) -> ScafflixMessage:
        gamma, a = numbers(x.client, x.x)
        weight = jnp.asarray(a * a / gamma, info.steps.dtype)
        return ScafflixMessage(jax.tree.map(lambda x: weight * x, x.x), weight)

    def receive(x: ScafflixIterate, h: ScafflixMemory, m: ScafflixMessage, b: Tree, info: RoundInfo) -> ScafflixMemory:
        gamma, a = numbers(x.client, x.x)
        new = jax.tree.map(lambda h, b, x: h + prob * a / gamma * (b - x), h.h, b, x.x)
        return ScafflixMemory(new, x.local, x.client)

    def control(h: ScafflixMemory, server: Tree) -> Tree:
        _, a = numbers(h.client, h.h)
        return jax.tree.map(lambda h: a * h, h.h)

    return Algorithm(
        init=init,
        init_client=init_client,
        start=lambda b, h: ScafflixIterate(b, h.local, h.client),
        direction=direction,
        move=move,
        send=send,
        serve=lambda server, mean, info: jax.tree.map(lambda x: x / mean.weight, mean.x),
        receive=receive,
        control=control,
        divides=True,
    )


def personalised(x: Tree, local: Tree, alpha: Scalar) -> Tree:
    r"""Returns a client's own model :math:`\alpha x + (1 - \alpha) x_i^*`, from the common x and its ``local`` model.

    Example:
      >>> import jax.numpy as jnp
      >>> personalised(jnp.array([4.0, 2.0]), jnp.array([0.0, 2.0]), 0.25).tolist()
      [1.0, 2.0]
    """
    return jax.tree.map(lambda x, y: alpha * x + (1 - alpha) * y, x, local)
