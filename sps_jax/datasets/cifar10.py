"""CIFAR-10: 60,000 small colour images of 10 classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the binary version of
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from sps_jax.datasets.prepare import Source, described, locate, prepared, records, unpacked, wrong

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MD5 = {  # of the batches; a record is one label byte, then 3,072 bytes of red, green and blue rows
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}

LIMIT = 200 << 20
"""Largest accepted size of the unpacked archive in bytes; the official one has 184.4 million."""

# No digest of the archive: the six batches inside are checked, as they may come in another gzip wrapper.
SOURCE = Source(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ("cifar-10-binary.tar.gz",),
    None,
    "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    170,
)
_FOLDER = "cifar-10-batches-bin"


class Cifar10(NamedTuple):
    """``train_x`` (50000, 32, 32, 3) uint8, ``train_y`` (50000,) int32, 0..9; ``test_x``, ``test_y``: 10000 more."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def cifar10(
    *, manual_dir: str | os.PathLike[str] | None = None, data_dir: str | os.PathLike[str] | None = None
) -> Cifar10:
    """Return CIFAR-10 as arrays, in the order of the official batches; label i is the class ``CLASSES[i]``.

    ``manual_dir`` holds ``cifar-10-binary.tar.gz``; it is read only if no prepared copy exists. The MD5 of each of its
    six batches is checked, not that of the archive. ``data_dir``: see ``prepared``.

    Raises FileNotFoundError if the archive is found neither there nor on the network; ValueError if it is damaged.
    """
    builder = prepared(SpsCifar10, SOURCE, manual_dir=manual_dir, data_dir=data_dir)
    splits = []
    for split in ("train", "test"):
        batches = records(builder, split, "batch")
        splits += [np.concatenate([batch[name] for batch in batches]) for name in ("images", "labels")]
    return Cifar10(*splits)


class SpsCifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # its base has no types
    """One record per official batch."""

    name = "sps_cifar10"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # digests are checked here; TFDS's own table needs importlib_resources, which it does not declare
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {SOURCE.files[0]} from {SOURCE.url} into this folder."

    def _info(self) -> tfds.core.DatasetInfo:
        return described(
            self, SOURCE, batch=((), np.int32), images=((None, 32, 32, 3), np.uint8), labels=((None,), np.int32)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        *train, test = _batches(locate(SOURCE, dl_manager, self.name))
        return {"train": self._generate_examples(train), "test": self._generate_examples([test])}

    def _generate_examples(self, batches: list[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, batch in enumerate(batches):
            rows = np.frombuffer(batch, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            yield i, {"batch": i, "images": np.ascontiguousarray(images), "labels": rows[:, 0].astype(np.int32)}


def _batches(path: Path) -> list[bytes]:
    """Return the bytes of the batches in an archive in the order of ``MD5``, after checking them."""
    found = {}
    try:
        content = unpacked(gzip.GzipFile, path, LIMIT)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:  # its headers' sizes are not trusted
            for name in MD5:
                member = archive.getmember(f"{_FOLDER}/{name}")
                if not member.isreg():  # a link, perhaps to itself
                    raise ValueError(f"{member.name} is not a file")
                found[name] = archive.extractfile(member).read()  # type: ignore[union-attr]  # see except
    except (tarfile.TarError, OSError, EOFError, KeyError, AttributeError, ValueError, zlib.error) as error:
        raise wrong(SOURCE, path, f"it is not a gzipped tar file with {_FOLDER}/*.bin ({error})") from None
    for name, batch in found.items():
        digest = hashlib.md5(batch, usedforsecurity=False).hexdigest()
        if digest != MD5[name]:
            raise wrong(SOURCE, path, f"the MD5 of {name} in it is {digest}, expected {MD5[name]}")
    return list(found.values())
