"""The state of a simulation between two rounds."""

from typing import Any, NamedTuple

import jax
import numpy as np


class Past(NamedTuple):
    """The rounds done so far, and the bits sent in them (totals over all clients).

    Example:
      >>> Past().rounds
      0
    """

    rounds: int = 0
    uplink_bits: int | float = 0
    downlink_bits: int | float = 0


class State(NamedTuple):
    """The complete simulation state just after a communication.

    Attributes:
      server: the server's state.
      memory: (n, ...), the state that each client keeps between rounds.
      t: int32, the number of iterations done.
      round: int32, the number of rounds done.
      past: the rounds done and the bits sent so far, which :func:`sps_jax.simulate` and :func:`sps_jax.stream` add to
        what they return, so that either goes on from it; None inside a simulation.

    Example:
      >>> import sps_jax as sps
      >>> from sps_jax.problems import quadratic
      >>> problem, hyper = quadratic(clients=3, dimension=2), {"stepsize": 0.5, "prob": 1.0}
      >>> state, _ = sps.simulate(sps.proxskip, problem, hyper, jax.random.key(0), rounds=2)
      >>> state.server["x"].shape, state.memory["x"].shape, int(state.t)
      ((2, 1), (3, 2, 1), 2)
    """

    server: Any
    memory: Any
    t: jax.Array
    round: jax.Array = np.int32(0)  # type: ignore[assignment]  # NumPy: importing must not touch a device
    past: Past | None = None
