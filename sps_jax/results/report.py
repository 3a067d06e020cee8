"""What a comparison of runs says: the target that all are held to, a table, a picture, warnings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sps_jax import results
from sps_jax.results import files

Record = dict[str, Any]


def compare(
    runs: Mapping[tuple[str, int], Sequence[Record]], summaries: Sequence[Record], target: float | None
) -> list[Record]:
    """The summaries with what is judged between runs.

    Args:
      runs: (algorithm, seed) -> its records, none for a run that diverged at once.
      summaries: one record a run, naming ``algorithm`` and ``seed``.
      target: accuracy, or training loss where there is none; None for what the weakest run reaches.

    Returns:
      The summaries, each with ``target_metric``, ``target``, ``bits_to_target`` (uplink) and, where there are records,
      ``final`` and ``best``.
    """
    alive = [records for records in runs.values() if records]
    accuracy = bool(alive) and "test_accuracy" in alive[0][0]
    metric, best, weakest = ("test_accuracy", max, min) if accuracy else ("train_loss", min, max)
    if target is None:
        target = weakest((best(r[metric] for r in records) for records in alive), default=0.0)
    compared = []
    for summary in summaries:
        records = runs[summary["algorithm"], summary["seed"]]
        bits = results.bits_to_target(records, metric, target, largest=accuracy)
        summary = summary | {"target_metric": metric, "target": target, "bits_to_target": bits}
        if records:
            summary["final"] = {k: v for k, v in records[-1].items() if k not in summary}
            summary["best"] = {metric: best(r[metric] for r in records)}
        compared.append(summary)
    return compared


def write(runs: Mapping[tuple[str, int], Sequence[Record]], summaries: Sequence[Record], title: str, out: Path) -> None:
    """``summary.json``, and ``curves.png`` where there are records."""
    files.write_json(out / "summary.json", summaries)
    curves: dict[str, list[Sequence[Record]]] = {}
    for (name, _), records in runs.items():
        if records:
            curves.setdefault(name, []).append(records)
    if curves:
        from sps_jax.results import plots  # matplotlib is for pictures alone

        plots.curves(curves, summaries[0]["target_metric"], "uplink_bits", title, out / "curves.png")


def table(summaries: Sequence[Record]) -> str:
    """The table that people read, from :func:`compare`'s summaries; of answers where a cohort got some."""
    answers = any("answer_bits" in summary.get("final", {}) for summary in summaries)
    return results.table([table_row(summary, answers) for summary in summaries])


def table_row(summary: Record, answers: bool = False) -> dict[str, str]:
    """One line of the table that people read; with what ``answers`` to a cohort took of the downlink."""
    final, metric = summary.get("final", {}), summary["target_metric"]
    control = final.get("control_sum")
    return {
        "method": summary["algorithm"],
        "seed": str(summary["seed"]),
        metric: f"{final[metric]:.4f}" if final else "diverged",
        f"bits to {summary['target']:.4g}": results.human(summary["bits_to_target"]),
        "uplink": results.human(final.get("uplink_bits")),
        "downlink": results.human(final.get("downlink_bits")),
        **({"answers in it": results.human(final.get("answer_bits"))} if answers else {}),
        "density": f"{final['density']:.3f}" if final else "-",
        "|sum h|": "-" if control is None else f"{control:.1e}",
    }


def divergences(summaries: Sequence[Record]) -> list[str]:
    """A sentence for each run that diverged."""
    return [
        f"{summary['algorithm']} (seed {summary['seed']}) diverged in round {summary['diverged_at_round']}; "
        "its earlier records are kept. Try a smaller --stepsize or --clip-norm."
        for summary in summaries
        if summary["diverged_at_round"]
    ]
