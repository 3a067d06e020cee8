"""What result folders hold: files, records of evaluations, tables and plots of them."""

from sps_jax.results.reading import NUMBERS, bits_to_target, human, load, read_jsonl, read_records, records, table

__all__ = ["NUMBERS", "bits_to_target", "human", "load", "read_jsonl", "read_records", "records", "table"]
