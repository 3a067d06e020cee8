"""The table and the picture of the runs of one command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sps_jax import results
from sps_jax.results import files
from sps_jax.results.statistics import differences, interval, seeds_in_words, when

Record = dict[str, Any]


def compare(
    runs: Mapping[tuple[str, int], Sequence[Record]],
    summaries: Sequence[Record],
    target: float | None,
    metric: str | None = None,
) -> list[Record]:
    """Return the summaries, extended by the comparison between the runs.

    Args:
      runs: (algorithm, seed) -> its records; empty for a run that diverged before its first evaluation.
      summaries: one record per run, with ``algorithm`` and ``seed``.
      target: value of the metric; None for :func:`results.default_target`.
      metric: what to compare; None for ``test_accuracy`` if it is recorded, else ``train_loss``.

    Returns:
      The summaries, the seeds of a method together, each with ``target_metric``, ``target``, ``bits_to_target``
      (uplink) and, if the run has records, ``final`` and ``best``.
    """
    alive = {run: records for run, records in runs.items() if records}
    if metric is None:
        accuracy = any("test_accuracy" in records[0] for records in alive.values())
        metric = "test_accuracy" if accuracy else "train_loss"
    up = results.larger_is_better(metric)
    if target is None:
        whole = [
            run for s in summaries if not s.get("diverged_at_round") and (run := (s["algorithm"], s["seed"])) in alive
        ]
        target = results.default_target([alive[run][-1][metric] for run in whole or alive], metric)
    compared, order = [], list(dict.fromkeys(summary["algorithm"] for summary in summaries))
    for summary in sorted(summaries, key=lambda summary: order.index(summary["algorithm"])):
        records = runs[summary["algorithm"], summary["seed"]]
        bits = results.bits_to_target(records, metric, target, largest=up)
        summary = summary | {"target_metric": metric, "target": target, "bits_to_target": bits}
        if records:
            summary["final"] = {k: v for k, v in records[-1].items() if k not in summary}
            values = [r[metric] for r in records if r[metric] is not None]
            summary["best"] = {metric: (max if up else min)(values, default=None)}
        compared.append(summary)
    return compared


def write(runs: Mapping[tuple[str, int], Sequence[Record]], summaries: Sequence[Record], title: str, out: Path) -> None:
    """Write ``summary.json`` and, if any run has values, ``curves.png`` into the folder ``out``."""
    files.write_json(out / "summary.json", summaries)
    metric = summaries[0]["target_metric"]
    curves: dict[str, list[Sequence[Record]]] = {}
    for (name, _), records in runs.items():
        if any(record[metric] is not None for record in records):
            curves.setdefault(name, []).append(records)
    if curves:
        from sps_jax.results import plots  # slow to import, and only plots need it

        plots.curves(curves, metric, "uplink_bits", title, out / "curves.png")


def run_table(summaries: Sequence[Record]) -> str:
    """Format the summaries of :func:`compare` as a table: a row per method, over its seeds (:func:`seeds_row`).

    A column has the answers to a cohort, if any.
    """
    answers = any("answer_bits" in summary.get("final", {}) for summary in summaries)
    methods = list(dict.fromkeys(summary["algorithm"] for summary in summaries))
    if len(methods) == len(summaries):
        return results.aligned([table_row(summary, answers) for summary in summaries])
    metric = summaries[0]["target_metric"]
    whole = [summary for summary in summaries if "final" in summary and not summary.get("diverged_at_round")]
    known = [summary for summary in whole if summary["final"][metric] is not None]
    ends = {name: {one["seed"]: one["final"][metric] for one in known if one["algorithm"] == name} for name in methods}
    best, apart = differences(ends, results.larger_is_better(metric))
    rows = []
    for name in methods:
        own = [one for one in whole if one["algorithm"] == name]
        minus = {f"minus {best}": str(apart[name] or "-")} if best and len(methods) > 1 else {}
        seeds = sum(one["algorithm"] == name for one in summaries)
        rows.append(seeds_row(name, own, seeds, summaries[0], minus, answers))
    return results.aligned(rows)


def seeds_row(
    name: str, whole: Sequence[Record], seeds: int, like: Record, minus: dict[str, str], answers: bool = False
) -> dict[str, str]:
    """Return a method's row over several seeds: means, of ``|sum h|`` the largest; the metric with its interval.

    Args:
      name: the method.
      whole: the summaries of its seeds that did not diverge.
      seeds: the number of all its seeds.
      like: a summary, for metric and target.
      minus: the column of the difference to the best method.
      answers: as for :func:`table_row`.
    """

    def mean(values: Sequence[float | None]) -> float | None:
        return None if not values or None in values else float(np.mean(np.array(values, float)))

    metric, finals = like["target_metric"], [summary["final"] for summary in whole]
    bits = {key: results.human(mean([final.get(key) for final in finals])) for key in BITS}
    control = [final["control_sum"] for final in finals if final.get("control_sum") is not None]
    return {
        "method": name,
        "seeds": str(seeds) if len(whole) == seeds else f"{len(whole)} of {seeds}",
        metric: str(interval(final[metric] for final in finals)) if finals else "diverged",
        **minus,
        f"bits to {like['target']:.4g}": results.human(mean([summary["bits_to_target"] for summary in whole])),
        "uplink": bits["uplink_bits"],
        "downlink": bits["downlink_bits"],
        **({"answers in it": bits["answer_bits"]} if answers else {}),
        "density": f"{mean([final['density'] for final in finals]):.3f}" if finals else "-",
        "|sum h|": f"{max(control):.1e}" if control else "-",
    }


BITS = ("uplink_bits", "downlink_bits", "answer_bits")


def caption(summaries: Sequence[Record]) -> str:
    """Return what is to be known of the numbers of :func:`run_table`."""
    methods = {summary["algorithm"] for summary in summaries}
    metric, several = summaries[0]["target_metric"], len(methods) < len(summaries)
    first = f"{seeds_in_words(len(methods))}\n" if several else ""
    how = when(any("stopped" in summary for summary in summaries))
    return f"{first}{metric} {how}; uplink and downlink are totals over all clients."


def table_row(summary: Record, answers: bool = False) -> dict[str, str]:
    """Return one row of the printed table; ``answers`` adds the part of the downlink spent on answers to a cohort."""
    final, metric = summary.get("final", {}), summary["target_metric"]
    control = final.get("control_sum")
    return {
        "method": summary["algorithm"],
        "seed": str(summary["seed"]),
        metric: "diverged" if not final else "nan" if final[metric] is None else f"{final[metric]:.4f}",
        f"bits to {summary['target']:.4g}": results.human(summary["bits_to_target"]),
        "uplink": results.human(final.get("uplink_bits")),
        "downlink": results.human(final.get("downlink_bits")),
        **({"answers in it": results.human(final.get("answer_bits"))} if answers else {}),
        "density": f"{final['density']:.3f}" if final else "-",
        "|sum h|": "-" if control is None else f"{control:.1e}",
    }


def divergences(summaries: Sequence[Record]) -> list[str]:
    """Return one warning per run that diverged."""
    return [
        f"{summary['algorithm']} (seed {summary['seed']}) diverged in round {summary['diverged_at_round']}; "
        "its earlier records are kept. Try a smaller --stepsize or --clip-norm."
        for summary in summaries
        if summary["diverged_at_round"]
    ]
