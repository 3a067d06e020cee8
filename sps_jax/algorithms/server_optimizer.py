"""An optimiser at the server, for any method whose server averages."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sps_jax.algorithms.base import Algorithm, RoundInfo
from sps_jax.algorithms.dependence import depends, refuse_unseen
from sps_jax.algorithms.transformed import refuse_no_optax, turns_round
from sps_jax.layout import random_key
from sps_jax.tree import Tree


class ServerOptimizerState(NamedTuple):
    """What the server keeps: the state of the method's own server, and the optimiser's."""

    server: Any
    optimizer: Any


def server_optimizer(algorithm: Algorithm, optimizer: optax.GradientTransformation) -> Algorithm:
    r"""Returns ``algorithm`` whose server follows an optax optimiser (FedOpt, Reddi et al. 2020, arXiv 2003.00295).

    Let b be the server's model and :math:`b'` what ``algorithm`` would replace it by, for FedAvg the mean of the
    :math:`x_i`. The optimiser takes :math:`b - b'` for a gradient at b. ``optax.sgd(1.0)`` changes nothing. Its state
    stays at the server and costs no bits.

    The clients of ProxSkip and its variants compute their control variates with the model that they receive, which
    must be the mean of what was sent: with any other model the sum would be lost, so these methods are refused. Those
    of SCAFFOLD and FedDyn depend on the clients' own changes alone, and keep their sum.

    To prune as well, prune last: ``pruned(server_optimizer(fedavg(...), ...), ...)``. The optimiser then follows the
    server's dense model.

    Args:
      algorithm: a method whose server's model is a mean of what the clients send.
      optimizer: an optax optimiser, such as ``optax.sgd(1.0, momentum=0.9)`` or ``optax.adam(1e-2)``.

    Raises:
      ValueError: if ``optimizer`` is no optax transform; when the algorithm starts, if the optimiser needs more than
        gradient and parameters, if it does not go against the gradient, if clients do not receive the server's model,
        or if the control variates would no longer sum to zero.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import sps_jax as sps
      >>> method = server_optimizer(sps.fedavg(stepsize=0.5, prob=0.5), optax.sgd(0.5, momentum=0.5))
      >>> _, state = method.init(jnp.array([4.0]))
      >>> models = []
      >>> for _ in range(3):  # the clients' mean is 0: m <- m / 2 + b, b <- b - m / 2
      ...     state = method.serve(state, jnp.array([0.0]), None)
      ...     models.append(method.model(state).item())
      >>> models
      [2.0, 0.0, -1.0]
    """
    refuse_no_optax("optimizer", optimizer, "optax.sgd(1.0, momentum=0.9)")

    def init(params: Tree) -> tuple[Tree, Tree]:
        _check_optimizer(optimizer, params)
        refuse_unseen(algorithm, params, "a server optimiser")
        if _control_needs_the_mean(algorithm, params):
            raise ValueError(
                "a server optimiser would break the sum of this method's control variates: its clients update them "
                "with the model that they receive, which must be the mean of what they sent; use a method without "
                "control variates, such as fedavg, or scaffold or feddyn, which keep their sum"
            )
        h, server = algorithm.init(params)
        return h, ServerOptimizerState(server, optimizer.init(params))

    def serve(state: ServerOptimizerState, mean: Tree, info: RoundInfo) -> ServerOptimizerState:
        server, b = algorithm.serve(state.server, mean, info), algorithm.model(state.server)
        gradient = jax.tree.map(jnp.subtract, b, algorithm.model(server))
        update, after = optimizer.update(gradient, state.optimizer, b)
        return ServerOptimizerState(algorithm.with_model(server, jax.tree.map(jnp.add, b, update)), after)

    return algorithm._replace(
        init=init,
        broadcast=lambda state: algorithm.broadcast(state.server),
        serve=serve,
        model=lambda state: algorithm.model(state.server),
        with_model=lambda state, params: state._replace(server=algorithm.with_model(state.server, params)),
        control=lambda h, state: algorithm.control(h, state.server),
    )


def _check_optimizer(optimizer: optax.GradientTransformation, params: Tree) -> None:
    """Raise a ``ValueError`` for what cannot be applied, or does not reverse the sign of a gradient."""
    try:
        jax.eval_shape(lambda params: optimizer.update(params, optimizer.init(params), params), params)
    except Exception as error:
        raise ValueError(
            "the server's optimizer cannot be applied, as update(gradient, state, params): "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    leaves, structure = jax.tree.flatten(params)
    try:
        against = turns_round(optimizer, structure, tuple((leaf.shape, jnp.dtype(leaf.dtype)) for leaf in leaves))
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return  # its numbers are traced: nothing can be tried
    if not against:
        raise ValueError(
            "the server's optimizer does not go against the gradient, so the loss would grow or stay: give an "
            "optimiser with its step size, optax.adam(1e-2), not optax.scale_by_adam()"
        )


def _control_needs_the_mean(algorithm: Algorithm, params: Tree) -> bool:
    """Whether the control variates after a round depend on which model the server sends back."""

    def after(sent_back: Tree, params: Tree) -> Tree:
        h, server = algorithm.init(params)
        b, key, one = algorithm.broadcast(server), random_key(0), jnp.ones((), jax.tree.leaves(params)[0].dtype)
        x, info = algorithm.start(b, h), RoundInfo(key, key, jnp.int32(0), one, 2, 2, begun=b)
        m = algorithm.send(x, h, b, lambda params: params, info)
        server = algorithm.with_model(server, sent_back)
        return algorithm.control(algorithm.receive(x, h, m, algorithm.broadcast(server), info), server)

    return depends(after, params, params)
