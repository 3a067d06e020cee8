"""FEMNIST of LEAF: handwritten characters; writers are natural clients.

Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, arXiv 1812.01097, in the parquet file of
https://huggingface.co/datasets/flwrlabs/femnist (LEAF: BSD-2-Clause; NIST Special Database 19: public domain).
"""

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from sps_jax.datasets.partition import natural
from sps_jax.datasets.prepare import Source, described, download, manual_files, prepared, records, wrong

CLASSES = 62
SIDE = 28
MOST, LIMIT = 1_000_000, 1 << 30
"""Largest accepted numbers of rows and uncompressed bytes; the official file has 814,277 and some 200 million."""

# No digest: that of the full file (814,277 images, 200 MB) is not known here, and a smaller file of whole writers is
# also valid. The structure of the file is checked instead.
SOURCE = Source(
    "https://huggingface.co/datasets/flwrlabs/femnist/resolve/main/data/train-00000-of-00001.parquet",
    ("train-*.parquet",),
    None,
    "LEAF, BSD-2-Clause (https://leaf.cmu.edu); images from NIST Special Database 19, public domain",
    200,
)
_OFFICIAL = "official"


class Femnist(NamedTuple):
    """``images`` (N, 28, 28) uint8, white paper 255; ``labels`` (N,) int32, 0..61; ``writers`` (N,) int32, 0..W-1."""

    images: np.ndarray
    labels: np.ndarray
    writers: np.ndarray


def femnist(
    *, manual_dir: str | os.PathLike[str] | None = None, data_dir: str | os.PathLike[str] | None = None
) -> Femnist:
    """Return FEMNIST as arrays; labels 0-9 are digits, 10-35 are A-Z, 36-61 are a-z.

    Writers are numbered in order of first appearance in the file, and rows are grouped by writer; within a writer they
    keep the file's order. ``manual_dir`` holds one ``train-*.parquet``, which may have a subset of the writers. Each
    such file has its own prepared copy, named by the file's sha256 and separate from that of the download, so pass
    ``manual_dir`` in every call. ``data_dir``: see ``prepared``.

    Raises FileNotFoundError if the file cannot be found or downloaded; ValueError if it is damaged or another file.
    """
    config = _OFFICIAL if manual_dir is None else _config(_one_file(manual_dir).read_bytes())
    builder = prepared(SpsFemnist, SOURCE, manual_dir=manual_dir, data_dir=data_dir, config=config)
    writers = records(builder, "train", "writer")
    sizes = [len(writer["labels"]) for writer in writers]
    return Femnist(
        np.concatenate([writer["images"] for writer in writers]),
        np.concatenate([writer["labels"] for writer in writers]),
        np.repeat(np.arange(len(writers), dtype=np.int32), sizes),
    )


class SpsFemnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # its base has no types
    """One record per writer. The config names the source: ``official``, or ``sha256-...`` of a file put by hand."""

    name = "sps_femnist"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # digests are checked here; TFDS's own table needs importlib_resources, which it does not declare
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {SOURCE.files[0]} from {SOURCE.url} into this folder."

    def _info(self) -> tfds.core.DatasetInfo:
        return described(
            self, SOURCE, writer=((), np.int32), images=((None, SIDE, SIDE), np.uint8), labels=((None,), np.int32)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        if self.builder_config.name == _OFFICIAL:
            path = download(SOURCE, dl_manager, self.name)
        else:
            path = _one_file(dl_manager.manual_dir)
        content = path.read_bytes()
        if self.builder_config.name not in (_OFFICIAL, _config(content)):
            raise ValueError(f"{path} changed while it was being read: try again")
        return {"train": self._generate_examples(content, path)}

    def _generate_examples(self, content: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        pngs, labels, writer_ids = _columns(content, path)
        for writer, rows in enumerate(natural(writer_ids)):
            images = np.stack([_image(pngs[row].as_py(), path, row) for row in rows])
            yield writer, {"writer": writer, "images": images, "labels": labels[rows]}


def _one_file(manual_dir: str | os.PathLike[str]) -> Path:
    found = manual_files(SOURCE, manual_dir)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"manual_dir {manual_dir} has {names}: leave one file there, or put each into its own folder")
    return found[0]


def _config(content: bytes) -> str:
    return f"sha256-{hashlib.sha256(content).hexdigest()}"


def _columns(content: bytes, path: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return PNG bytes (an arrow array), labels (N,) int32 and names of writers (N,), from a parquet file in memory."""
    import pyarrow as pa  # needed only to prepare data
    import pyarrow.parquet

    columns = ["image.bytes", "writer_id", "character"]
    try:
        file = pa.parquet.ParquetFile(io.BytesIO(content))
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > MOST or sum(group.total_byte_size for group in groups) > LIMIT:
            raise OSError("larger than all of FEMNIST")
        table = file.read(columns)
        pngs = table["image"].combine_chunks().field("bytes").cast(pa.binary())
        writers = table["writer_id"].cast(pa.string())
        labels = table["character"].cast(pa.int32())
    except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
        why = "it is not a parquet file of FEMNIST's size with columns image{bytes, path}, writer_id and character"
        raise wrong(SOURCE, path, f"{why} ({type(error).__name__})") from None
    nulls = pngs.null_count + writers.null_count + labels.null_count
    labels = labels.to_numpy()
    if nulls or not len(labels) or labels.min() < 0 or labels.max() >= CLASSES:
        raise wrong(SOURCE, path, f"labels must be 0..{CLASSES - 1} and no value missing")
    return pngs, labels, writers.to_numpy()


def _image(png: bytes, path: Path, row: int) -> np.ndarray:
    """Decode a PNG to a (28, 28) uint8 array."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            small = image.size == (SIDE, SIDE)  # checked before decoding: a few bytes can expand to many pixels
            pixels = np.asarray(image if small else [])
            what = f"{image.size[0]} x {image.size[1]} {image.mode}"
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
        zlib.error,
    ) as error:
        raise wrong(SOURCE, path, f"image {row} is not a readable PNG ({type(error).__name__})") from None
    if pixels.shape != (SIDE, SIDE) or pixels.dtype != np.uint8:
        raise wrong(SOURCE, path, f"image {row} is {what}, not 28 x 28 grey")
    return pixels
