"""From a source to a prepared copy and back: what the builders share."""

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

PATIENCE = 5.0  # seconds to wait for an address to answer before saying that it does not

_LOG = logging.getLogger(__name__)


class Source(NamedTuple):
    """One file on the network.

    ``url``: its official address. ``files``: the names (glob patterns) under which it is looked for in a
    ``manual_dir``. ``sha256``: the hexadecimal digest of its bytes, of the uncompressed text where a name ends in
    ``.bz2``; None where it is not known. ``licence``: the terms as the publisher states them. ``megabytes``: of the
    file, about.
    """

    url: str
    files: tuple[str, ...]
    sha256: str | None
    licence: str
    megabytes: float


def manual_files(source: Source, manual_dir: str | os.PathLike[str]) -> list[Path]:
    """The files of ``source`` that lie in ``manual_dir``, sorted by name.

    Raises FileNotFoundError, saying which file from which address was expected, where there is none.
    """
    folder = at_home(manual_dir)
    found = sorted({path for name in source.files for path in folder.glob(name) if path.is_file()})
    if not found:
        state = "has none of" if folder.is_dir() else "is no folder; it should hold"
        raise FileNotFoundError(f"manual_dir {folder} {state} {', '.join(source.files)}: download {source.url} into it")
    return found


def locate(source: Source, dl_manager: tfds.download.DownloadManager, builder_name: str) -> Path:
    """The path of the source's file: the one put by hand in the manager's manual folder, or else the download.

    Raises FileNotFoundError, with the address and what to do by hand, where the network does not give the file.
    """
    with contextlib.suppress(AssertionError, FileNotFoundError):  # AssertionError: there is no manual folder
        return manual_files(source, dl_manager.manual_dir)[0]
    return download(source, dl_manager, builder_name)


def download(source: Source, dl_manager: tfds.download.DownloadManager, builder_name: str) -> Path:
    """Like ``locate``, but never looks in the manual folder."""
    try:
        if not _downloaded(source, Path(dl_manager.download_dir) / builder_name):
            # Asked first with a short patience: without a network, the manager retries for minutes.
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
    """Raises :func:`wrong` unless ``content``, read from ``path``, has the source's digest."""
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise wrong(source, path, f"its sha256 is {found}, expected {source.sha256}")


def unix_text(content: bytes) -> bytes:
    """The bytes of a text file without what editors and downloads add: a byte order mark, CR, no newline at the end."""
    lines = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return lines if lines.endswith(b"\n") else lines + b"\n"


def unpacked(opened: Callable[[Path], contextlib.AbstractContextManager[Any]], path: Path, limit: int) -> bytes:
    """All that ``gzip.GzipFile`` or ``bz2.open`` reads of a file; a ValueError where that is over ``limit`` bytes."""
    with opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it holds more than {limit:,} bytes")
    return content


def wrong(source: Source, path: Path, why: str) -> ValueError:
    """The error for a file that is not the source's; among the manager's downloads it is removed to be got again."""
    note = path.with_name(path.name + ".INFO")
    if note.exists():
        path.unlink()
        note.unlink()
    return ValueError(f"{path} is truncated or corrupted: {why}. Get it again from {source.url}")


def prepared(
    builder: type[tfds.core.GeneratorBasedBuilder],
    source: Source,
    *,
    manual_dir: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
    config: str | None = None,
) -> tfds.core.GeneratorBasedBuilder:
    """A builder whose data lie prepared under ``data_dir``; prepares them where they do not yet.

    ``data_dir`` None means ``TFDS_DATA_DIR`` or TFDS's default. Preparing writes into a temporary folder that takes
    its place at the end, so a failure leaves nothing that counts as prepared. Where data are prepared already,
    neither the network nor ``manual_dir`` is looked at. Raises FileNotFoundError where the source is nowhere to
    be had, ValueError where the source or the prepared copy is damaged.
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
                if not folder.exists():  # otherwise another process was faster, which is as good
                    raise
        try:
            return builder(**options)
        except Exception as error:
            raise _damaged(folder, error) from error


def root_of(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where prepared data lie: ``data_dir``, else ``TFDS_DATA_DIR``, else TFDS's default."""
    # TFDS reads the variable when it is imported; here it counts when the data are asked for.
    return at_home(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)


class DataSet(NamedTuple):
    """A data set.

    Attributes:
      source: where it comes from.
      load: ``manual_dir, data_dir`` as keywords -> its arrays; prepares them where they are not yet.
      builder: what prepares it.
      config: the builder's, where it has several; None for any.
    """

    source: Source
    load: Callable[..., Any]
    builder: type[tfds.core.GeneratorBasedBuilder]
    config: str | None = None

    def copies(self, data_dir: Path | None = None) -> list[Path]:
        """The folders of its prepared copies, none where it is not prepared."""
        return sorted((root_of(data_dir) / self.builder.name).glob(f"{self.config or '**'}/{self.builder.VERSION}"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's progress bars, warnings and announcements away from the user's terminal, for the time being."""
    bars = getattr(tqdm_utils, "_active", True)  # there is a setter, but no getter
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
    """The info of a builder whose records are ``tensors``, a shape and a dtype each.

    Arrays are stored as bytes: numbers one by one are several times as slow to write and to read.
    """
    features = {
        name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes" if shape else "none")
        for name, (shape, dtype) in tensors.items()
    }
    return tfds.core.DatasetInfo(builder=builder, features=tfds.features.FeaturesDict(features), license=source.licence)


def records(builder: tfds.core.GeneratorBasedBuilder, split: str, order: str) -> list[dict[str, Any]]:
    """All records of a prepared split, in increasing order of their entry ``order``.

    TFDS stores records shuffled, hence the order by content. Raises ValueError where the prepared copy is damaged.
    """
    try:
        source = builder.as_data_source(split)
        rows = [source[i] for i in range(len(source))]
        return sorted(rows, key=lambda row: row[order])
    except Exception as error:  # whatever the reader stumbles on, the remedy is the same
        raise _damaged(Path(builder.data_path), error) from error


def _damaged(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"the prepared copy in {folder} cannot be read ({type(error).__name__}: {error}): "
        "delete that folder and it will be prepared again"
    )
