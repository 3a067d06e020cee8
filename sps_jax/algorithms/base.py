"""The contract of an algorithm: what ONE client does and what ONE server does, as a paper writes it.

The engine maps the client's functions over all clients, averages the messages, counts what is sent, and scans:

    b = broadcast(server)
    x = start(b, h)                                          a round begins
    x = move(x, direction(x, h, b, gradient, key))           one local step; k times, or until the coin falls
    m = send(x, h, b, gradient, info)                        communication
    server = serve(server, mean of m, info);  b = broadcast(server)
    h = receive(x, h, m, b, info)

``x`` is what moves during the local steps, ``h`` what a client keeps between rounds, ``b`` the server's last
broadcast; each is any pytree. An algorithm is made by a function of keyword-only hyperparameters. Numbers among them
are traced (changing them does not recompile), but for parameters annotated as ``int``; everything else is static. An
algorithm that takes no ``prob`` communicates after every step.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax

from sps_jax.compression.bits import FLOATS, MessageFormat
from sps_jax.tree import Tree

Scalar = jax.Array | float
"""A hyperparameter: a Python number, or a traced scalar."""
Gradient = Callable[[Tree], Tree]
"""``params -> gradient`` of f_i, on a fresh batch."""
Prune = Callable[..., Tree]
"""A sparsifier ``prune(params, sparsity) -> params``, see :func:`sps_jax.pruned`."""


class RoundInfo(NamedTuple):
    """What the engine knows of one client's communication.

    Attributes:
      key: this client's own, for a stochastic compressor.
      common: the same for the whole cohort, for a shared mask.
      slot: the client's place in the cohort, int32 in 0..cohort-1; in ``serve`` it is -1.
      steps: local steps since the last communication, a scalar of the parameters' dtype.
      cohort: how many clients take part.
      clients: how many clients there are, n.
      weight: a scalar, the sum of the weights of those who take part, None where all clients weigh the same.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> key = jax.random.key(0)
      >>> info = RoundInfo(key, key, slot=jnp.int32(2), steps=jnp.float32(10), cohort=5, clients=100)
      >>> info.share
      0.05
    """

    key: jax.Array
    common: jax.Array
    slot: jax.Array
    steps: jax.Array
    cohort: int
    clients: int
    weight: jax.Array | None = None

    @property
    def share(self) -> Scalar:
        """What the weights of those who take part add up to: cohort / clients where all weigh the same."""
        return self.cohort / self.clients if self.weight is None else self.weight


class Init(Protocol):
    """What one client and the server keep at the start; h is ``()`` for a client that keeps nothing."""

    def __call__(self, params: Tree, /) -> tuple[Tree, Tree]: ...


class InitClient(Protocol):
    """The memory that client ``i`` of ``n`` begins with, where clients differ from the start."""

    def __call__(self, h: Tree, i: jax.Array, n: int, /) -> Tree: ...


class Broadcast(Protocol):
    """What goes down: b. Its bits are counted."""

    def __call__(self, server: Tree, /) -> Tree: ...


class Start(Protocol):
    """The x from which a client begins a round."""

    def __call__(self, b: Tree, h: Tree, /) -> Tree: ...


class Direction(Protocol):
    """The direction of a local step; a transform (clipping, say) acts on it.

    ``gradient(params)`` is the gradient of f_i on a fresh batch. A direction that changes x as well returns a
    :class:`Follow`.
    """

    def __call__(self, x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array, /) -> Tree: ...


class Move(Protocol):
    """What a local step makes of x and the direction d."""

    def __call__(self, x: Tree, d: Tree, /) -> Tree: ...


class Send(Protocol):
    """What goes up: the message m. Its bits are counted."""

    def __call__(self, x: Tree, h: Tree, b: Tree, gradient: Gradient, info: RoundInfo, /) -> Tree: ...


class Serve(Protocol):
    """The server's next state, from the mean of the messages."""

    def __call__(self, server: Tree, mean: Tree, info: RoundInfo, /) -> Tree: ...


class Receive(Protocol):
    """A client's next memory, from its own message m and the new b."""

    def __call__(self, x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo, /) -> Tree: ...


class Control(Protocol):
    """The control variates of one client; ``()`` if the method has none."""

    def __call__(self, h: Tree, server: Tree, /) -> Tree: ...


class Model(Protocol):
    """The parameters that are evaluated and shipped."""

    def __call__(self, server: Tree, /) -> Tree: ...


class WithModel(Protocol):
    """The server's state with other parameters in it."""

    def __call__(self, server: Tree, params: Tree, /) -> Tree: ...


class Algorithm(NamedTuple):
    """An algorithm as pure functions. The defaults make gradient descent that averages: FedAvg but for ``move``.

    Attributes:
      move: see :class:`Move`; usually ``descend(stepsize)``.
      init, init_client, broadcast, start, direction, send, serve, receive, model, with_model: see :class:`Init`,
        :class:`InitClient`, :class:`Broadcast` and so on.
      control: see :class:`Control`. A method that has control variates has a cohort's messages averaged by weights
        that add up to one, see :class:`sps_jax.Cohort`.
      zero_sum: whether the control variates sum to zero over all clients after every round, weighted as the clients
        are. Acceleration rests on it (ProxSkip, theorem 3.4), and pruning at the server breaks it.
      uplink: how m is written, a :class:`sps_jax.MessageFormat`; by default nonzeros of 32 bits.
      downlink: how b is written.
      weighted: whether clients may have unequal weights.
      divides: whether ``serve`` divides one part of the mean by another, so that weights need not add up to one.

    Example:
      >>> import jax.numpy as jnp

      >>> signs = Algorithm(move=lambda x, d: x - 0.5 * jnp.sign(d))  # FedAvg whose local steps follow the signs
      >>> x = jnp.array([4.0, -2.0])
      >>> signs.move(x, signs.direction(x, (), x, lambda x: x, None)).tolist()
      [3.5, -1.5]
    """

    move: Move
    init: Init = lambda params: ((), params)
    init_client: InitClient = lambda h, i, n: h
    broadcast: Broadcast = lambda server: server
    start: Start = lambda b, h: b
    direction: Direction = lambda x, h, b, gradient, key: gradient(x)
    send: Send = lambda x, h, b, gradient, info: x
    serve: Serve = lambda server, mean, info: mean
    receive: Receive = lambda x, h, m, b, info: h
    model: Model = lambda server: server
    with_model: WithModel = lambda server, params: params
    control: Control = lambda h, server: ()
    zero_sum: bool = True
    uplink: MessageFormat = FLOATS
    downlink: MessageFormat = FLOATS
    weighted: bool = True
    divides: bool = False


def descend(stepsize: Scalar) -> Callable[[Tree, Tree], Tree]:
    r"""The plain local step :math:`x \leftarrow x - \gamma d`.

    Example:
      >>> import jax.numpy as jnp

      >>> descend(0.5)(jnp.array([4.0, 2.0]), jnp.array([2.0, 2.0])).tolist()
      [3.0, 1.0]
    """
    return lambda x, d: jax.tree.map(lambda x, d: x - stepsize * d, x, d)


class Follow(NamedTuple):
    """What a ``direction`` returns that changes x before it takes a direction there: ``move`` goes on from this x.

    Attributes:
      d: the direction alone, which is what a transform acts on.
      x: what takes the place of x.

    Example:
      >>> import jax.numpy as jnp

      >>> def rounded(x, h, b, gradient, key):
      ...     return Follow(gradient(jnp.round(x)), jnp.round(x))
      >>> method = Algorithm(direction=rounded, move=lambda x, follow: descend(0.5)(follow.x, follow.d))
      >>> x = jnp.array([4.2, 1.9])
      >>> method.move(x, method.direction(x, (), x, lambda x: x, None)).tolist()
      [2.0, 1.0]
    """

    d: Tree
    x: Tree
