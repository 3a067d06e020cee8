"""BlogFeedback: predict the number of comments on a blog post in the next 24 hours; blogs are natural clients.

K. Buza, "Feedback Prediction for Blogs", 2014; UCI Machine Learning Repository, data set 304,
https://archive.ics.uci.edu/dataset/304/blogfeedback, CC BY 4.0.
"""

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from sps_jax.datasets.partition import natural
from sps_jax.datasets.prepare import Source, check_sha256, described, locate, prepared, records

FEATURES = 280
BLOG_COLUMNS = 50  # the first columns are statistics of the blog, not of the post

SOURCE = Source(
    "https://archive.ics.uci.edu/static/public/304/blogfeedback.zip",
    ("BlogFeedback.zip", "blogfeedback.zip"),
    "1ba74e5ad920f7cd037502b2968581cc695146a226a73eff52fe8ad875ed4bcf",
    "CC BY 4.0; K. Buza, UCI Machine Learning Repository, data set 304, doi 10.24432/C58S3F",
    2.6,
)
_TRAIN = "blogData_train.csv"


class BlogFeedback(NamedTuple):
    """Features of blog posts, and their numbers of comments in the next 24 hours.

    ``train_x`` (52397, 280) float32, ``train_y`` (52397,) float32, ``train_blogs`` (52397,) int32, 0..553;
    ``test_x`` (7624, 280) float32, ``test_y`` (7624,) float32.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    train_blogs: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def blog_feedback(
    *, manual_dir: str | os.PathLike[str] | None = None, data_dir: str | os.PathLike[str] | None = None
) -> BlogFeedback:
    """Return BlogFeedback as arrays, with features and targets as published (not scaled).

    Posts belong to one blog if their first 50 columns are equal, compared as float64. Blogs are numbered in order of
    first appearance in the file, and training rows are grouped by blog; within a blog they keep the file's order. Test
    rows are ordered by day, February and March 2012, as in the files. ``manual_dir`` holds ``BlogFeedback.zip``; it is
    read only if no prepared copy exists. ``data_dir``: see ``prepared``.

    Raises FileNotFoundError if the archive is found neither there nor on the network; ValueError if it is damaged.
    """
    builder = prepared(SpsBlogFeedback, SOURCE, manual_dir=manual_dir, data_dir=data_dir)
    train, test = records(builder, "train", "client"), records(builder, "test", "client")
    sizes = [len(blog["y"]) for blog in train]
    return BlogFeedback(
        np.concatenate([blog["x"] for blog in train]),
        np.concatenate([blog["y"] for blog in train]),
        np.repeat(np.arange(len(train), dtype=np.int32), sizes),
        np.concatenate([day["x"] for day in test]),
        np.concatenate([day["y"] for day in test]),
    )


class SpsBlogFeedback(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # its base has no types
    """One record per blog in ``train``, one per day in ``test``."""

    name = "sps_blog_feedback"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # digests are checked here; TFDS's own table needs importlib_resources, which it does not declare
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {SOURCE.files[0]} from {SOURCE.url} into this folder."

    def _info(self) -> tfds.core.DatasetInfo:
        return described(self, SOURCE, client=((), np.int32), x=((None, FEATURES), np.float32), y=((None,), np.float32))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        path = locate(SOURCE, dl_manager, self.name)
        content = path.read_bytes()
        check_sha256(content, SOURCE, path)
        tables = _tables(content, path)
        train = tables.pop(_TRAIN)
        blogs = [train[rows] for rows in natural(np.unique(train[:, :BLOG_COLUMNS], axis=0, return_inverse=True)[1])]
        days = [tables[name] for name in sorted(tables)]
        return {"train": self._generate_examples(blogs), "test": self._generate_examples(days)}

    def _generate_examples(self, clients: list[np.ndarray]) -> Iterator[tuple[int, dict[str, Any]]]:
        for client, table in enumerate(clients):
            rows = table.astype(np.float32)
            yield client, {"client": client, "x": rows[:, :FEATURES], "y": rows[:, FEATURES]}


def _tables(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return name -> (rows, 281) float64 array of every CSV file in a zip archive in memory."""
    import pyarrow as pa  # needed only to prepare data
    from pyarrow import csv

    read = csv.ReadOptions(autogenerate_column_names=True)
    convert = csv.ConvertOptions(column_types={f"f{i}": pa.float64() for i in range(FEATURES + 1)})
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            tables = {
                name: csv.read_csv(io.BytesIO(archive.read(name)), read_options=read, convert_options=convert)
                for name in archive.namelist()
                if name.endswith(".csv")
            }
    except (zipfile.BadZipFile, EOFError, pa.ArrowException) as error:
        raise ValueError(f"{path} is corrupted ({error}): download it again from {SOURCE.url}") from None
    arrays = {name: np.stack([column.to_numpy() for column in table.columns], 1) for name, table in tables.items()}
    if _TRAIN not in arrays or any(a.shape[1] != FEATURES + 1 or np.isnan(a).any() for a in arrays.values()):
        raise ValueError(f"{path} is not BlogFeedback: download it again from {SOURCE.url}")
    return arrays
