"""The folders of a sweep that is computed in parts."""

import tempfile  # noqa: F401 (of the examples)
from pathlib import Path


def shard_folder(folder: Path, number: int, shards: int) -> Path:
    """Return the folder of the shard ``number``, from 1, of a sweep in so many ``shards``.

    Example:
      >>> shard_folder(Path("results"), 1, 4).as_posix()
      'results/shard-1-of-4'
    """
    return folder / f"shard-{number}-of-{shards}"


def shards_in(folder: Path) -> tuple[list[Path], int]:
    """Return the folders of the shards of a sweep that have records, and their number if all had; none: 0.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     shards_in(Path(folder))
      ([], 0)
    """
    totals = {path.name.rpartition("-")[2] for path in folder.glob("shard-[0-9]*-of-[0-9]*") if path.is_dir()}
    if len(totals) > 1:
        raise ValueError(f"{folder} holds shards of several sweeps, in {' and in '.join(sorted(totals))}: name them")
    shards = max(map(int, totals), default=0)
    paths = [shard_folder(folder, number + 1, shards) for number in range(shards)]
    return [path for path in paths if (path / "metrics.jsonl").exists()], shards
