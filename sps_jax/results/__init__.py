"""What result folders hold: files, records of evaluations, tables and plots of them."""

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
