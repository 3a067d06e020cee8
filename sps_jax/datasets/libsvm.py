"""Binary classification data sets of LIBSVM, for logistic regression: a9a and mushrooms.

C.-C. Chang and C.-J. Lin, LIBSVM Data, https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html
(no licence stated; after UCI Adult and UCI Mushroom).
"""

import bz2
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from sps_jax.datasets.prepare import Source, check_sha256, described, locate, prepared, records, unix_text, unpacked
from sps_jax.errors import refuse_unknown

FEATURES: dict[str, int] = {"a9a": 123, "mushrooms": 112}
LIMIT = 1 << 24
"""Largest accepted size of an uncompressed file in bytes; the larger official one has 2.3 million."""

_URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
SOURCES = {
    "a9a": Source(
        _URL + "a9a",
        ("a9a", "a9a.txt", "a9a.bz2"),
        "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906",
        "none stated; LIBSVM Data, after UCI Adult",
        2.3,
    ),
    "mushrooms": Source(
        _URL + "mushrooms",
        ("mushrooms", "mushrooms.txt", "mushrooms.bz2"),
        "f39a4eb628dc61a7d43760815b061c9e497aa728ce1ad8bde57a09ef6043b538",
        "none stated; LIBSVM Data, after UCI Mushroom",
        0.9,
    ),
}


class LibSVM(NamedTuple):
    """``x`` (N, d) float32, dense; ``y`` (N,) int32, 0 or 1. a9a: (32561, 123); mushrooms: (8124, 112)."""

    x: np.ndarray
    y: np.ndarray


def libsvm(
    name: str, *, manual_dir: str | os.PathLike[str] | None = None, data_dir: str | os.PathLike[str] | None = None
) -> LibSVM:
    """Return the data set ``name``, ``a9a`` or ``mushrooms``, as arrays in the order of the file.

    The smaller of the two labels in the file (-1 and +1, or 1 and 2) becomes 0, the larger 1. ``manual_dir`` holds the
    file under its own name, with or without ``.bz2``; it is read only if no prepared copy exists. ``data_dir``: see
    ``prepared``.

    Raises ValueError for an unknown name or a damaged file, FileNotFoundError if the file is found neither there nor on
    the network.
    """
    refuse_unknown("LIBSVM data set", name, FEATURES)
    builder = prepared(SpsLibsvm, SOURCES[name], manual_dir=manual_dir, data_dir=data_dir, config=name)
    (whole,) = records(builder, "train", "part")
    # Copies, because a record is a view of read-only bytes.
    return LibSVM(whole["x"].copy(), whole["y"].copy())


class SpsLibsvm(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # its base has no types
    """One record with the whole data set, which has no natural clients; the config is the data set's name."""

    name = "sps_libsvm"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # digests are checked here; TFDS's own table needs importlib_resources, which it does not declare
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put a9a or mushrooms, as text or .bz2, into this folder."

    def _info(self) -> tfds.core.DatasetInfo:
        name = self.builder_config.name
        return described(
            self, SOURCES[name], part=((), np.int32), x=((None, FEATURES[name]), np.float32), y=((None,), np.int32)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        source = SOURCES[self.builder_config.name]
        path = locate(source, dl_manager, self.name)
        text = published(_text(path, source.url))
        check_sha256(text, source, path)
        return {"train": self._generate_examples(text)}

    def _generate_examples(self, text: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_svmlight_file  # needed only to prepare data

        x, y = load_svmlight_file(io.BytesIO(text), n_features=FEATURES[self.builder_config.name], dtype=np.float32)
        yield 0, {"part": 0, "x": x.toarray(), "y": (y == y.max()).astype(np.int32)}


def published(text: bytes) -> bytes:
    """Return the rows of a text in LIBSVM's published form, undoing the changes of editors and other writers.

    A row is a label and its features, each followed by a space, then a newline; comments and empty lines are dropped.

    >>> published(b"# two rows\\r\\n1  3:1\\t5:1 # first\\r\\n\\r\\n-1 4:1")
    b'1 3:1 5:1 \\n-1 4:1 \\n'
    """
    rows = [line.partition(b"#")[0].split() for line in unix_text(text).split(b"\n")]
    return b"".join(b" ".join(row) + b" \n" for row in rows if row)


def _text(path: Path, url: str) -> bytes:
    """Return the bytes of a text file, decompressed if its name ends in .bz2."""
    if path.suffix != ".bz2":
        return path.read_bytes()
    try:
        return unpacked(bz2.open, path, LIMIT)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is truncated or corrupted ({error}): download it again from {url}") from None
