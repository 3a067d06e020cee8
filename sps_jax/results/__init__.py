"""Read, tabulate and plot the results of runs and sweeps.

The folder of a run has ``config.json`` (every setting, the versions, the device, the pruned leaves), ``metrics.jsonl``
(one record per evaluation, written as the run goes on; ``stopped`` marks one at which a rule ended the run),
``summary.json``, ``models/`` (see :mod:`sps_jax.runs.models`), and ``curves.png``, a plot of accuracy against uplink
bits. A run with checkpoints also has ``checkpoints/``, which may be deleted after the run. The folder of a sweep has
``config.json``, ``metrics.jsonl`` and ``summary.jsonl``, with one line per point. :func:`load` reads either into a
pandas data frame.

Bits are totals over all clients. ``bits to X`` is the uplink that a method needed to reach X, by default the final
value of the weakest method (``--target`` sets another). ``density`` is the fraction of nonzeros of the shipped model,
including its biases, which are not pruned. ``|sum h|`` is the largest entry of the sum of control variates, divided by
the largest entry of the control variates.

Over several seeds numbers are means with 95 % t-intervals, and ``minus NAME`` is the difference to the best method,
NAME, paired by seed (:mod:`sps_jax.results.statistics`). A seed draws data (test set and partition), initial point,
batches, coin and cohort; ``--data-seed`` fixes the data. ``sps-jax table`` also prints LaTeX, Markdown and CSV;
``--against seconds --network mobile`` counts seconds instead of bits, see :mod:`sps_jax.results.clock`;
``sps-jax plot --columns 1 --no-title --out fig.pdf`` draws for a column of a paper.
"""

from sps_jax.results.reading import (
    NUMBERS,
    PARTS,
    aligned,
    bits_to_target,
    criterion,
    default_target,
    human,
    larger_is_better,
    load,
    read_jsonl,
    read_records,
    records,
)

__all__ = [
    "NUMBERS",
    "PARTS",
    "aligned",
    "bits_to_target",
    "criterion",
    "default_target",
    "human",
    "larger_is_better",
    "load",
    "read_jsonl",
    "read_records",
    "records",
]
