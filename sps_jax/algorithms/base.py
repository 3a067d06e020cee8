"""The contract of an algorithm: what ONE client and ONE server do, written as in a paper.

The engine maps the client's functions over all clients, averages the messages, counts the bits, and scans over rounds:

    b = broadcast(server)
    x = start(b, h)                                          a round begins
    x = move(x, direction(x, h, b, gradient, key))           one local step; k times, or until the coin says so
    m = send(x, h, b, gradient, info)                        communication
    server = serve(server, mean of m, info);  b = broadcast(server)
    h = receive(x, h, m, b, info)

``x`` is the client's local iterate, ``h`` the memory it keeps between rounds, ``b`` the server's last broadcast and
``m`` the client's message; each can be any pytree. A function of keyword-only hyperparameters makes an algorithm.
Numeric hyperparameters are traced, so changing them does not recompile, except those annotated as ``int``; everything
else is static. In place of a traced number users may give a function of the round's number, such as an optax schedule.
A factory says which numbers it allows with ``Annotated[Scalar, Range(low, high)]``, see :class:`sps_jax.Range`. An
algorithm without a hyperparameter ``prob`` communicates after every step.
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
"""A sparsifier ``prune(params, sparsity) -> params``; see :func:`sps_jax.pruned`."""


class RoundInfo(NamedTuple):
    """What the engine tells a client, or the server, about a communication.

    Attributes:
      key: the client's own random key, for a stochastic compressor.
      common: a random key that is the same for the whole cohort, for a shared mask.
      slot: the client's rank in the cohort, int32 in 0..cohort-1; -1 in ``serve``.
      steps: local steps since the last communication, a scalar of the parameters' dtype.
      cohort: the number of clients that take part in the round.
      clients: n, the number of all clients.
      weight: a scalar, the sum of the weights of the cohort's clients; None if all clients weigh the same.
      round: int32, the number of rounds before this one: 0 in the first.
      begun: in ``receive``, the broadcast that began the round, so that a client need not keep it in x; else None.

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
    round: jax.Array | int = 0
    begun: Tree = None

    @property
    def share(self) -> Scalar:
        """The sum of the weights of the cohort's clients: cohort / clients if all clients weigh the same."""
        return self.cohort / self.clients if self.weight is None else self.weight


class Init(Protocol):
    """Returns the initial (h, server); h is ``()`` if a client keeps nothing between rounds."""

    def __call__(self, params: Tree, /) -> tuple[Tree, Tree]: ...


class InitClient(Protocol):
    """Returns the initial memory h of client ``i`` of ``n``, for clients that differ from the start."""

    def __call__(self, h: Tree, i: jax.Array, n: int, /) -> Tree: ...


class Broadcast(Protocol):
    """Returns the broadcast b that goes down to the clients. Its bits are counted."""

    def __call__(self, server: Tree, /) -> Tree: ...


class Start(Protocol):
    """Returns the x from which a client begins a round."""

    def __call__(self, b: Tree, h: Tree, /) -> Tree: ...


class Direction(Protocol):
    """Returns the direction d of a local step; an optax transform, such as clipping, acts on d.

    ``gradient(params)`` is the gradient of f_i on a fresh batch. A direction that also replaces x returns a
    :class:`Follow`.
    """

    def __call__(self, x: Tree, h: Tree, b: Tree, gradient: Gradient, key: jax.Array, /) -> Tree: ...


class Move(Protocol):
    """Returns the x after a local step from x along the direction d."""

    def __call__(self, x: Tree, d: Tree, /) -> Tree: ...


class Send(Protocol):
    """Returns the message m that goes up to the server. Its bits are counted."""

    def __call__(self, x: Tree, h: Tree, b: Tree, gradient: Gradient, info: RoundInfo, /) -> Tree: ...


class Serve(Protocol):
    """Returns the server's next state, from the mean of the messages; from all of them where ``needs_all``."""

    def __call__(self, server: Tree, mean: Tree, info: RoundInfo, /) -> Tree: ...


class Receive(Protocol):
    """Returns the client's next memory h, from its own message m and the new broadcast b."""

    def __call__(self, x: Tree, h: Tree, m: Tree, b: Tree, info: RoundInfo, /) -> Tree: ...


class Control(Protocol):
    """Returns the control variates of one client; ``()`` if the method has none."""

    def __call__(self, h: Tree, server: Tree, /) -> Tree: ...


class Personal(Protocol):
    """Returns the parameters of a client's own model; ``()`` if all clients use the shipped one."""

    def __call__(self, h: Tree, server: Tree, /) -> Tree: ...


class Model(Protocol):
    """Returns the parameters that are evaluated and shipped."""

    def __call__(self, server: Tree, /) -> Tree: ...


class WithModel(Protocol):
    """Returns the server's state with its parameters replaced by ``params``."""

    def __call__(self, server: Tree, params: Tree, /) -> Tree: ...


class Algorithm(NamedTuple):
    """An algorithm as pure functions. The defaults are FedAvg's; only ``move`` has none.

    Attributes:
      move: see :class:`Move`; usually ``descend(stepsize)``.
      init, init_client, broadcast, start, direction, send, serve, receive, model, with_model: see :class:`Init`,
        :class:`InitClient`, :class:`Broadcast` and so on.
      personal: see :class:`Personal`, of a personalised method; evaluated with ``per_client=True``.
      control: see :class:`Control`. If a method has control variates, the engine averages a cohort's messages with
        weights that add up to one; see :class:`sps_jax.Cohort`.
      zero_sum: whether the control variates, weighted as the clients are, sum to zero over all clients after every
        round. Acceleration rests on it (ProxSkip, theorem 3.4), and pruning at the server breaks it.
      uplink: how the bits of m are counted, a :class:`sps_jax.MessageFormat`; by default the nonzeros and their
        positions.
      downlink: how the bits of b are counted.
      weighted: whether clients may have unequal weights.
      divides: whether ``serve`` divides one part of the mean by another, or messages are changes that are zero where
        nothing is to change, so that weights need not add up to one.
      needs_all: whether ``serve`` gets all messages, stacked along a first axis (C, ...), instead of their mean, as for
        a median. They are all in memory at once, and all clients must weigh the same.

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
    personal: Personal = lambda h, server: ()
    control: Control = lambda h, server: ()
    zero_sum: bool = True
    uplink: MessageFormat = FLOATS
    downlink: MessageFormat = FLOATS
    weighted: bool = True
    divides: bool = False
    needs_all: bool = False


def descend(stepsize: Scalar) -> Callable[[Tree, Tree], Tree]:
    r"""Returns the plain local step :math:`x \leftarrow x - \gamma d`, where gamma is ``stepsize``.

    Example:
      >>> import jax.numpy as jnp
      >>> descend(0.5)(jnp.array([4.0, 2.0]), jnp.array([2.0, 2.0])).tolist()
      [3.0, 1.0]
    """
    return lambda x, d: jax.tree.map(lambda x, d: x - stepsize * d, x, d)


class Follow(NamedTuple):
    """What a ``direction`` returns if it replaces x and takes the direction there; ``move`` continues from this x.

    Attributes:
      d: the direction; a transform acts on it alone.
      x: the x that replaces the old one.

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
