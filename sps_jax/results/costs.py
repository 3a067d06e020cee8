"""What progress costs: bits up, bits up and down, or seconds on a network, as columns of a data frame of records."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sps_jax.results.clock import SCENARIOS, Network, elapsed
from sps_jax.results.files import read_config
from sps_jax.results.reading import bits_to_target, human

if TYPE_CHECKING:
    import pandas

COLUMNS = {
    "uplink_bits": (),
    "total_bits": ("total_bits",),
    "seconds": ("seconds", "seconds_p10", "seconds_p90"),
    "round": ("round",),
    "iteration": ("iteration",),
}
"""Horizontal axis -> the columns that a table reads at the target, beside the uplink bits."""


class Cost(NamedTuple):
    """How to count costs.

    Attributes:
      downlink_weight: a in ``total_bits`` = up + a x down.
      network: the network on which seconds are counted; None for no seconds.
      deadline, scenarios: as in :func:`sps_jax.results.clock.elapsed`.
    """

    downlink_weight: float = 1.0
    network: Network | None = None
    deadline: float | None = None
    scenarios: int = SCENARIOS


def with_costs(records: "pandas.DataFrame", cost: Cost) -> "pandas.DataFrame":
    """Return the records with ``total_bits`` and, on a network, ``seconds``.

    ``seconds`` is the mean over scenarios, beside ``seconds_p10`` and ``seconds_p90``, the 10 and 90 % quantiles; with
    a deadline ``late`` is the mean fraction of the clients' rounds that it cut off.

    Args:
      records: from :func:`sps_jax.results.load`.
      cost: how to count.

    Raises:
      ValueError: if a folder does not say how many clients it has.
    """
    import pandas

    records = records.assign(total_bits=records["uplink_bits"] + cost.downlink_weight * records["downlink_bits"])
    if cost.network is None:
        return records
    run = [name for name in ("folder", "point", "algorithm", "seed") if name in records]
    runs = records.groupby(run, sort=False, dropna=False)
    return pandas.concat([_timed(own.sort_values("round"), cost) for _, own in runs]).sort_index()


def _timed(own: "pandas.DataFrame", cost: Cost) -> "pandas.DataFrame":
    """Return the records of one run with its seconds."""
    assert cost.network is not None
    folder = Path(own["folder"].iloc[0])
    config = read_config(folder / "config.json")
    clients = config.get("clients", config["settings"].get("clients"))
    if "clients" in own and own["clients"].notna().all():  # of a sweep over numbers of clients
        clients = own["clients"].iloc[0]
    if clients is None or "iteration" not in own:
        raise ValueError(f"{folder} does not say how many clients it has, as an earlier version left it: run it again")
    found = elapsed(own, cost.network, int(clients), config["settings"].get("cohort"), cost.deadline, cost.scenarios)
    low, high = np.quantile(found.seconds, (0.1, 0.9), axis=0)
    late = {} if cost.deadline is None else {"late": found.late.mean(axis=0)}
    return own.assign(seconds=found.seconds.mean(axis=0), seconds_p10=low, seconds_p90=high, **late)


def at_target(mean: Iterable[Mapping[str, Any]], metric: str, target: float, up: bool, against: str) -> dict[str, Any]:
    """Return ``<column>_to_target`` for each of :data:`COLUMNS`, None where no record reaches the target."""
    mean = list(mean)
    return {f"{name}_to_target": bits_to_target(mean, metric, target, up, name) for name in COLUMNS[against]}


def cost_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a printed table with what :func:`at_target` put into ``row``.

    Example:
      >>> seconds = {"seconds_to_target": 812.3, "seconds_p10_to_target": 640.0, "seconds_p90_to_target": 1100.2}
      >>> cost_cells({"target": 0.9, "late": 0.125, **seconds})
      {'seconds to 0.9': '812 (640 to 1.1e+03)', 'late': '12.5 %'}
    """
    found = {}
    for name in ("total_bits", "seconds", "round", "iteration"):
        if f"{name}_to_target" in row:
            value, words = row[f"{name}_to_target"], name.replace("_", " ") + "s" * (name in ("round", "iteration"))
            shown = human(value) if name == "total_bits" else "-" if value is None else f"{value:.3g}"
            if name == "seconds" and value is not None:
                shown += f" ({row['seconds_p10_to_target']:.3g} to {row['seconds_p90_to_target']:.3g})"
            found[f"{words} to {row['target']:.4g}"] = shown
    return found | ({"late": f"{100 * row['late']:.1f} %"} if "late" in row else {})
