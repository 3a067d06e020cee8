"""Options of ``sps-jax table`` and ``sps-jax plot``: what progress is counted in."""

from dataclasses import dataclass, replace

from sps_jax.errors import refuse_unknown
from sps_jax.results import clock
from sps_jax.results.costs import COLUMNS, Cost


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What progress is drawn or tabulated against.

    Attributes:
      against: what progress is counted in: uplink_bits, total_bits, round, iteration, or seconds on a --network.
      downlink_weight: a in total_bits = uplink bits + a x downlink bits. Default is 1.
      network: of the seconds: mobile, broadband, datacentre, or a JSON file with step, latency, up and down, see
        sps_jax.results.clock.
      step_seconds: median seconds of a local step, in place of the network's, since they depend on the model.
      deadline: most seconds of a round; the clients that need longer count as absent, and the table says how many.
      scenarios: number of networks and cohorts drawn. Default is 20.
    """

    against: str = "uplink_bits"
    downlink_weight: float | None = None
    network: str | None = None
    step_seconds: float | None = None
    deadline: float | None = None
    scenarios: int | None = None

    def cost(self) -> Cost:
        """Return how to count; raise a ``ValueError`` for options that do not go together."""
        refuse_unknown("--against", self.against, COLUMNS)
        timed = {"network": self.network, "step-seconds": self.step_seconds, "deadline": self.deadline}
        timed["scenarios"] = self.scenarios
        for needs, given in (("seconds", timed), ("total_bits", {"downlink-weight": self.downlink_weight})):
            for name, value in given.items():
                if value is not None and self.against != needs:
                    raise ValueError(f"--{name} needs --against {needs}")
        weight = 1.0 if self.downlink_weight is None else self.downlink_weight
        if not 0 <= weight < float("inf"):
            raise ValueError(f"--downlink-weight must be finite and not negative, not {weight:g}")
        if self.against != "seconds":
            return Cost(weight)
        if self.network is None:
            raise ValueError(f"--against seconds needs --network: {', '.join(clock.NETWORKS)} or a file")
        network = clock.network_named(self.network)
        if self.step_seconds is not None:
            step = network.step
            spread = step._replace(median=self.step_seconds) if isinstance(step, clock.Lognormal) else self.step_seconds
            network = replace(network, step=spread)
        return Cost(weight, network, self.deadline, clock.SCENARIOS if self.scenarios is None else self.scenarios)

    def words(self) -> str:
        """Return what the name of the axis does not say, empty if it says all."""
        if self.against == "seconds":
            return f"on the network {self.network}" + (f", deadline {self.deadline:g} s" if self.deadline else "")
        return f"downlink counted {self.downlink_weight:g} times" if self.downlink_weight is not None else ""


def documented(made: type) -> type:
    """Return a class of options with the attributes of :class:`Counted`, its base, in its own help."""
    made.__doc__ = (made.__doc__ or "").rstrip() + "\n" + (Counted.__doc__ or "").partition("Attributes:\n")[2]
    return made
