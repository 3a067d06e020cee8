"""Tables of the experiments on the paper's questions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from common import Record, end, rows

from sps_jax.results.files import write_text
from sps_jax.results.reading import aligned, bits_to_target, human


def described(values: Sequence[float], digits: int = 4) -> str:
    """Mean and, of several, standard deviation."""
    spread = f" +- {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def bits(records: Sequence[Record], metric: str, target: float) -> float | None:
    """Mean uplink bits to a target, None if one of the records does not reach it."""
    reached = [bits_to_target(rows(record), metric, target, metric.endswith("accuracy")) for record in records]
    return None if None in reached else float(np.mean(reached))


def method_rows(chosen: Mapping[str, Sequence[Record]], metric: str, target: float) -> Iterator[dict[str, str]]:
    """A line a method: its point, ``metric`` at the end, traffic, control variates."""
    for name, own in chosen.items():
        sums = [max(r["history"]["control_sum"]) for r in own if "control_sum" in r["history"]]
        yield {
            "method": name,
            **{key: f"{own[0][key]:.4g}" for key in ("stepsize", "local_steps")},
            "runs": str(len(own)),
            metric: described([end(record, metric) for record in own]),
            f"uplink to {target:.4g}": human(bits(own, metric, target)),
            "uplink": human(float(np.mean([end(record, "uplink_bits") for record in own]))),
            "|sum h|": f"{max(sums):.1e}" if sums else "-",
        }


def show(lines: Iterable[dict[str, str]], path: Path, text: str = "") -> None:
    """A table, printed and written, under a line of text."""
    shown = (f"{text}\n\n" if text else "") + aligned(list(lines)) + "\n"
    write_text(path, shown)
    print(f"\n{path.name}: {shown}", flush=True)
