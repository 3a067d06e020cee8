"""What result folders hold: files, records of evaluations, tables and plots of them.

The folder of a run has ``config.json`` (every setting, the versions, the device, what was pruned), ``metrics.jsonl``
(one record per evaluation), ``summary.json`` and ``curves.png``, accuracy against uplink bits; that of a run with
checkpoints has ``checkpoints/`` too, which may be deleted once all is finished. The folder of a sweep has
``summary.jsonl``, one line per point. :func:`load` makes a pandas data frame of either.

Bits are totals over all clients. ``bits to ...`` is the uplink that a method took to reach the level that the weakest
one ends at (``--target`` sets another). ``density`` is the fraction of nonzeros of the shipped model, its biases
included, which are not pruned. ``|sum h|`` is the largest entry of the sum of control variates, by their largest
entry.
"""

from sps_jax.results.reading import (
    NUMBERS,
    aligned,
    bits_to_target,
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
    "aligned",
    "bits_to_target",
    "default_target",
    "human",
    "larger_is_better",
    "load",
    "read_jsonl",
    "read_records",
    "records",
]
