r"""Seconds that a run takes on a network, computed after the run from the bits and local steps in its history.

A round ends when the slowest of its C clients has sent its message:

.. math:: \max_i \Bigl(k\, c_i + \ell_i + \frac{u}{U_i} + \frac{d}{D_i}\Bigr)

for k local steps of :math:`c_i` seconds, a latency of :math:`\ell_i` seconds, and u bits up and d bits down at
:math:`U_i` and :math:`D_i` bits per second. With a deadline a round lasts no longer, and the clients that need longer
count as absent: how many is returned; what the run would have learnt without them is not, for that see ``sps.Lost``.

The history has totals over the clients. Each client is therefore given the mean bits of its cohort, and all rounds
between two evaluations their mean: with a coin, the maximum being convex in k, this is a lower bound unless every round
is evaluated. A cohort is drawn at random here, as by ``--cohort-by uniform``. The server's own time is not counted.

    sps-jax table results --against seconds --network mobile
    sps-jax plot results --against seconds --network network.json --deadline 30

A file is JSON with ``step``, ``latency``, ``up`` and ``down``: each a number for all clients, a list with one for each,
or ``{"median": m, "sigma": s}``, lognormal over the clients.
"""

import math
import os
import tempfile  # noqa: F401 (of the examples)
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from sps_jax.errors import described, refuse_unknown, whole_number
from sps_jax.results.files import (
    at_home,
    read_json,
    write_json,  # noqa: F401 (of the examples)
)

SCENARIOS = 20


class Lognormal(NamedTuple):
    r"""A positive number for each client, :math:`m\, e^{\sigma z}` with z standard normal.

    Attributes:
      median: m.
      sigma: :math:`\sigma`, the standard deviation of the logarithm; 0 gives all clients the median.
    """

    median: float
    sigma: float = 0.0


Quantity = float | Lognormal | np.ndarray
"""Of each client: one number for all, a distribution over the clients, or (n,) numbers."""


@dataclass(frozen=True, eq=False)
class Network:
    """Clients and their links.

    Attributes:
      step: seconds of a local step.
      latency: seconds of a round that depend on no bits.
      up: bits per second from client to server.
      down: bits per second from server to client.

    Raises:
      ValueError: for a quantity that is none, or not positive (``step`` and ``latency`` may be 0).

    Example:
      >>> Network(step=0.01, latency=0.1, up=Lognormal(1e6, 0.5), down=np.array([1e6, 2e6])).up.median
      1000000.0
    """

    step: Quantity
    latency: Quantity
    up: Quantity
    down: Quantity

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _quantity(field.name, getattr(self, field.name)))

    def draw(self, generator: np.random.Generator, scenarios: int, clients: int) -> list[np.ndarray]:
        """Return step, latency, up and down, (scenarios, clients) each.

        Raises:
          ValueError: if the network has numbers for another number of clients.
        """
        found = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Lognormal):
                value = value.median * np.exp(value.sigma * generator.standard_normal((scenarios, clients)))
            elif np.ndim(value) and len(value) != clients:
                raise ValueError(f"the network has {field.name} for {len(value)} clients, but the run has {clients}")
            found.append(np.broadcast_to(value, (scenarios, clients)))
        return found


def _quantity(name: str, value: Any) -> Quantity:
    spread, may_be_zero = isinstance(value, Lognormal), name in ("step", "latency")
    try:
        numbers = np.asarray(tuple(value) if spread else value, float)
    except (TypeError, ValueError):
        numbers = np.array(math.nan)
    typical = numbers[:1] if spread else numbers
    positive = (numbers >= 0).all() and np.isfinite(numbers).all() and (may_be_zero or typical.all())
    if numbers.ndim > 1 or not numbers.size or not positive:
        least = "not negative" if may_be_zero else "positive"
        raise ValueError(
            f"{name} of a network must be {least} and finite: one number, a list with one for each client, or a median "
            f"with a sigma, not {described(value)}"
        )
    if spread:
        return Lognormal(*numbers.tolist())
    return numbers if numbers.ndim else float(numbers)


NETWORKS = {
    "mobile": Network(Lognormal(0.1, 0.5), 0.15, Lognormal(0.75e6, 0.5), Lognormal(1.6e6, 0.5)),
    "broadband": Network(Lognormal(0.02, 0.5), 0.03, Lognormal(20e6, 0.5), Lognormal(100e6, 0.5)),
    "datacentre": Network(0.002, 0.001, 10e9, 10e9),
}
"""Networks by name. Latency and bandwidths of ``mobile`` are those of Lighthouse's mobile preset, slow 4G
(github.com/GoogleChrome/lighthouse, docs/throttling.md); the bandwidths of ``broadband`` are those by which the FCC has
defined broadband since 2024. All else is our assumption: the other latencies, the 10 Gbit/s of ``datacentre``, the
seconds of a local step, which depend on the model (``--step-seconds``), and the lognormal spread over clients."""


def network_named(name: str | os.PathLike[str]) -> Network:
    """Return the network of a name in :data:`NETWORKS`, or of a JSON file, see the module.

    Raises:
      ValueError: for an unknown name, or a file that holds no network.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_json(path := at_home(folder) / "network.json", dict(step=0, latency=1, up=[1, 2], down=9))
      ...     network_named(path).up.tolist()
      [1.0, 2.0]
    """
    if name in NETWORKS:
        return NETWORKS[str(name)]
    path = at_home(name)
    if not path.is_file():
        refuse_unknown("network, or file of one,", str(name), NETWORKS)
    found, names = read_json(path), [field.name for field in fields(Network)]
    if sorted(found) != sorted(names):
        raise ValueError(f"{path} must have {', '.join(names)}, and nothing else; it has {', '.join(found) or 'none'}")
    for key, value in found.items():
        if isinstance(value, dict) and set(value) != {"median", "sigma"}:
            raise ValueError(f"{key} in {path} must have median and sigma, not {', '.join(value) or 'none'}")
    given: Any = {key: Lognormal(**value) if isinstance(value, dict) else value for key, value in found.items()}
    return Network(**given)


class Elapsed(NamedTuple):
    """The time until each of R evaluations, in S scenarios.

    Attributes:
      seconds: (S, R), since the start.
      late: (S, R), the fraction of all clients' rounds so far that the deadline cut off.
    """

    seconds: np.ndarray
    late: np.ndarray


def elapsed(
    history: Mapping[str, Any],
    network: Network,
    clients: int,
    cohort: int | None = None,
    deadline: float | None = None,
    scenarios: int = SCENARIOS,
    seed: int = 0,
) -> Elapsed:
    """Return when each evaluation of a history happens, in several scenarios at once.

    A scenario draws the clients' speeds and links once, and the cohorts: of a random order of the clients, C successive
    ones from a random place, so that a round costs C operations and every set is equally likely.

    Args:
      history: its columns ``round``, ``iteration``, ``uplink_bits`` and ``downlink_bits``, from the first round on.
      network: the distributions, or the numbers, of the clients.
      clients: n.
      cohort: C, the number of clients per round; None for all.
      deadline: the most seconds of a round; None for no limit.
      scenarios: S, how many networks to draw.
      seed: of the draws; methods with the same seed have the same clients.

    Raises:
      ValueError: for a cohort, deadline or number of scenarios that is none.

    Example:
      >>> history = {"round": [1, 3], "iteration": [10, 30], "uplink_bits": [200, 600], "downlink_bits": [0, 0]}
      >>> slow = Network(step=np.array([0.1, 0.2]), latency=1, up=100, down=100)  # 10 x 0.2 + 1 + 100 / 100 a round
      >>> elapsed(history, slow, clients=2, scenarios=1).seconds.tolist()
      [[4.0, 12.0]]
      >>> found = elapsed(history, slow, clients=2, scenarios=1, deadline=3.5)
      >>> found.seconds.tolist(), found.late.tolist()
      ([[3.5, 10.5]], [[0.5, 0.5]])
    """
    size, scenarios = clients if cohort is None else cohort, whole_number("scenarios", scenarios)
    if not 1 <= size <= clients:
        raise ValueError(f"cohort must be from 1 to the number of clients, {clients}, not {cohort}")
    if deadline is not None and not deadline > 0:
        raise ValueError(f"deadline must be a positive number of seconds, not {described(deadline)}")
    generator, limit = np.random.default_rng(seed), math.inf if deadline is None else deadline
    everyone = network.draw(generator, scenarios, clients)
    order = generator.permuted(np.tile(np.arange(clients), (scenarios, 1)), axis=1)
    rounds = np.diff(np.asarray(history["round"]), prepend=0)
    shares = {"iteration": 1, "uplink_bits": size, "downlink_bits": size}
    spent = [np.diff(np.asarray(history[name], float), prepend=0) / rounds / share for name, share in shares.items()]
    seconds, late = np.zeros((2, scenarios, len(rounds)))
    for r, (many, steps, up, down) in enumerate(zip(rounds, *spent, strict=True)):
        alike = many if size == clients else 1  # rounds of the same clients take equally long
        for _ in range(many // alike):
            links = everyone if size == clients else _members(generator, everyone, order, size)
            needed = steps * links[0] + links[1] + up / links[2] + down / links[3]
            seconds[:, r] += alike * np.minimum(needed.max(axis=1), limit)
            late[:, r] += alike * (needed > limit).mean(axis=1)
    return Elapsed(seconds.cumsum(axis=1), late.cumsum(axis=1) / rounds.cumsum())


def _members(
    generator: np.random.Generator, everyone: list[np.ndarray], order: np.ndarray, size: int
) -> list[np.ndarray]:
    """Return the rows of ``size`` clients, (S, size) each."""
    scenarios, clients = order.shape
    places = (generator.integers(clients, size=(scenarios, 1)) + np.arange(size)) % clients
    ids = np.take_along_axis(order, places, axis=1)
    return [np.take_along_axis(a, ids, axis=1) for a in everyone]
