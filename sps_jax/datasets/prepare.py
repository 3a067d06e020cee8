"""Download, check, prepare and read data sets with TensorFlow Datasets: the code that all builders share."""

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from sps_jax.results.files import at_home

PATIENCE = 5.0  # seconds to wait for a server's answer

_LOG = logging.getLogger(__name__)


class Source(NamedTuple):
    """A file on the network.

    ``url``: its official address. ``files``: its possible names (glob patterns) in a ``manual_dir``. ``sha256``: the
    hexadecimal digest of its bytes, after decompression of a ``.bz2`` file; None if unknown. ``licence``: the terms as
    the publisher states them. ``megabytes``: its approximate size.
    """

    url: str
    files: tuple[str, ...]
    sha256: str | None
    licence: str
    megabytes: float


def manual_files(source: Source, manual_dir: str | os.PathLike[str]) -> list[Path]:
    """Return the files of ``source`` in ``manual_dir``, sorted by name.

    Raises FileNotFoundError with the expected file names and the address if there are none.
    """
    folder = at_home(manual_dir)
    found = sorted({path for name in source.files for path in folder.glob(name) if path.is_file()})
    if not found:
        state = "has none of" if folder.is_dir() else "is not a folder; it should hold"
        raise FileNotFoundError(f"manual_dir {folder} {state} {', '.join(source.files)}: download {source.url} into it")
    return found


def locate(source: Source, dl_manager: tfds.download.DownloadManager, builder_name: str) -> Path:
    """Return the path of the source's file: from the manager's manual folder if it is there, else downloaded.

    Raises FileNotFoundError with the address and the manual remedy if the download fails.
    """
    with contextlib.suppress(AssertionError, FileNotFoundError):  # AssertionError: no manual folder is set
        return manual_files(source, dl_manager.manual_dir)[0]
    return download(source, dl_manager, builder_name)


def download(source: Source, dl_manager: tfds.download.DownloadManager, builder_name: str) -> Path:
    """Like :func:`locate`, but without the manual folder."""
    try:
        if not _downloaded(source, Path(dl_manager.download_dir) / builder_name):
            # A short request first: without a network, the manager would retry for minutes.
            with requests.get(source.url, stream=True, timeout=PATIENCE) as answer:
                answer.raise_for_status()
            _LOG.info("downloading %s", source.url)
        return Path(dl_manager.download(source.url))
    except (requests.exceptions.RequestException, tfds.download.DownloadError) as error:
        raise FileNotFoundError(
            f"could not download {source.url} ({type(error).__name__}). Download it by hand as {source.files[0]} into "
            "a folder DIR and pass manual_dir=DIR (on the command line: --manual-dir DIR)"
        ) from None


def _downloaded(source: Source, folder: Path) -> bool:
    return any(source.url in note.read_text() for note in folder.glob("*.INFO"))


def check_sha256(content: bytes, source: Source, path: Path) -> None:
    """Raise :func:`wrong` unless ``content``, read from ``path``, has the source's digest."""
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise wrong(source, path, f"its sha256 is {found}, expected {source.sha256}")


def unix_text(content: bytes) -> bytes:
    """Return a text without a byte order mark, with Unix newlines and one at the end; editors and downloads differ."""
    lines = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return lines if lines.endswith(b"\n") else lines + b"\n"


def unpacked(opened: Callable[[Path], contextlib.AbstractContextManager[Any]], path: Path, limit: int) -> bytes:
    """Return a file's content through ``gzip.GzipFile`` or ``bz2.open``; raise a ValueError above ``limit`` bytes."""
    with opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it holds more than {limit:,} bytes")
    return content


def wrong(source: Source, path: Path, why: str) -> ValueError:
    """Return the error for a file that is not the source's; delete it if it was downloaded, to allow a retry."""
    note = path.with_name(path.name + ".INFO")
    if note.exists():
        path.unlink()
        note.unlink()
    return ValueError(f"{path} is truncated or corrupted: {why}. Download it again from {source.url}")


def prepared(
    builder: type[tfds.core.GeneratorBasedBuilder],
    source: Source,
    *,
    manual_dir: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
    config: str | None = None,
) -> tfds.core.GeneratorBasedBuilder:
    """Return a builder with data prepared under ``data_dir``; prepare them first if they are not.

    ``data_dir`` None means ``TFDS_DATA_DIR`` or TFDS's default. Preparing writes into a temporary folder that is
    renamed at the end, so a failure leaves no partial copy. If a prepared copy exists, neither the network nor
    ``manual_dir`` is used. Raises FileNotFoundError if the source is found neither there nor on the network,
    ValueError if the source or the prepared copy is damaged.
    """
    root = root_of(data_dir)
    folder = root / builder.name / (config or "") / str(builder.VERSION)
    options: dict[str, Any] = {"data_dir": os.fspath(root), "file_format": "array_record"}
    if config is not None:
        options["config"] = tfds.core.BuilderConfig(name=config)
    with _quiet():
        if not folder.exists():
            if manual_dir is not None:
                manual_files(source, manual_dir)  # the user named the folder: do not fall back to the network
                manual_dir = os.fspath(manual_dir)
            how = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
            try:
                builder(**options).download_and_prepare(download_config=how)
            except OSError:
                if not folder.exists():  # otherwise another process has prepared the same data
                    raise
        try:
            return builder(**options)
        except Exception as error:
            raise _damaged(folder, error) from error


def root_of(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of prepared data: ``data_dir``, else ``TFDS_DATA_DIR``, else TFDS's default."""
    # TFDS reads the variable only at import; reading it here lets users set it later.
    return at_home(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)


class DataSet(NamedTuple):
    """A data set: its source, loader and builder.

    Attributes:
      source: file that it is prepared from.
      load: function of the keywords ``manual_dir`` and ``data_dir`` that returns its arrays, preparing them first if
        needed.
      builder: TFDS builder that prepares it.
      config: the config of a builder that has one per data set; None matches any.
    """

    source: Source
    load: Callable[..., Any]
    builder: type[tfds.core.GeneratorBasedBuilder]
    config: str | None = None

    def copies(self, data_dir: Path | None = None) -> list[Path]:
        """Return the folders of the prepared copies, an empty list if there are none."""
        return sorted((root_of(data_dir) / self.builder.name).glob(f"{self.config or '**'}/{self.builder.VERSION}"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence TFDS's progress bars, warnings and announcements inside the ``with`` block."""
    bars = getattr(tqdm_utils, "_active", True)  # TFDS has a setter, but no getter
    log = logging.getLogger("absl")
    level = log.level
    tfds.display_progress_bar(False)
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
        tfds.display_progress_bar(bars)


def described(
    builder: tfds.core.GeneratorBasedBuilder, source: Source, **tensors: tuple[tuple[int | None, ...], type]
) -> tfds.core.DatasetInfo:
    """Return the info of a builder whose records have ``tensors``: name -> (shape, dtype).

    Arrays are stored as bytes, because writing and reading single numbers is several times slower.
    """
    features = {
        name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes" if shape else "none")
        for name, (shape, dtype) in tensors.items()
    }
    return tfds.core.DatasetInfo(builder=builder, features=tfds.features.FeaturesDict(features), license=source.licence)


def records(builder: tfds.core.GeneratorBasedBuilder, split: str, order: str) -> list[dict[str, Any]]:
    """Return all records of a prepared split, sorted by their entry ``order``, because TFDS shuffles what it stores.

    Raises ValueError if the prepared copy is damaged.
    """
    try:
        source = builder.as_data_source(split)
        rows = [source[i] for i in range(len(source))]
        return sorted(rows, key=lambda row: row[order])
    except Exception as error:  # whatever the reader raises, the remedy is the same
        raise _damaged(Path(builder.data_path), error) from error


def _damaged(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"the prepared copy in {folder} cannot be read ({type(error).__name__}: {error}): "
        "delete that folder and it will be prepared again"
    )
