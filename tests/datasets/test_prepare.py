"""What the data sets share: downloads, the prepared copy, what is said when something is missing."""

import bz2
import functools
import http.server
import importlib
import logging
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from sps_jax import datasets

libsvm = importlib.import_module("sps_jax.datasets.libsvm")  # a function has its name in the package

LOADERS = {
    "femnist": datasets.femnist,
    "blog_feedback": datasets.blog_feedback,
    "cifar10": datasets.cifar10,
    "shakespeare": datasets.shakespeare,
    "mushrooms": functools.partial(datasets.libsvm, "mushrooms"),
}


@pytest.fixture
def unreachable(monkeypatch):
    """No name resolves and no connection is made, whatever the machine's network."""

    def refuse(*args, **kwargs):
        raise socket.gaierror("no network")

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder served over HTTP on this machine, from which mushrooms is to be downloaded, and its server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        source = datasets.SETS["mushrooms"].source._replace(url=f"http://127.0.0.1:{server.server_port}/mushrooms")
        monkeypatch.setitem(libsvm.SOURCES, "mushrooms", source)
        yield folder, server
        server.shutdown()
        thread.join()


@pytest.fixture
def mushrooms(originals):
    return bz2.decompress((originals["mushrooms"] / "mushrooms.bz2").read_bytes())


@pytest.mark.parametrize("name", LOADERS)
def test_offline_without_the_file(name, tmp_path, unreachable):
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match="--manual-dir DIR") as caught:
        LOADERS[name](data_dir=tmp_path)
    assert time.monotonic() - began < 10
    source = datasets.SETS[name].source
    assert source.url in str(caught.value) and source.files[0] in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert not list(tmp_path.rglob("dataset_info.json"))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("exists", [True, False])
def test_manual_dir_without_the_file(name, exists, tmp_path, unreachable):
    folder = tmp_path / "by hand"
    if exists:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match="has none of" if exists else "is not a folder") as caught:
        LOADERS[name](manual_dir=folder, data_dir=tmp_path)
    assert str(folder) in str(caught.value) and datasets.SETS[name].source.url in str(caught.value)


def test_download(mirror, mushrooms, tmp_path):
    folder, _ = mirror
    (folder / "mushrooms").write_bytes(mushrooms)
    assert datasets.libsvm("mushrooms", data_dir=tmp_path / "out").x.shape == (8124, 112)
    (folder / "mushrooms").unlink()
    assert datasets.libsvm("mushrooms", data_dir=tmp_path / "out").x.shape == (8124, 112)


def test_missing_at_the_address(mirror, tmp_path):
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match="--manual-dir"):
        datasets.libsvm("mushrooms", data_dir=tmp_path / "out")
    assert time.monotonic() - began < 10


def test_wrong_download_is_removed(mirror, mushrooms, tmp_path):
    folder, _ = mirror
    (folder / "mushrooms").write_bytes(mushrooms[:-20])  # in the midst of a row
    with pytest.raises(ValueError, match="truncated or corrupted"):
        datasets.libsvm("mushrooms", data_dir=tmp_path / "out")
    (folder / "mushrooms").write_bytes(mushrooms)
    assert datasets.libsvm("mushrooms", data_dir=tmp_path / "out").y.shape == (8124,)


def test_downloaded_file_serves_without_a_network(mirror, mushrooms, tmp_path, monkeypatch):
    folder, _ = mirror
    (folder / "mushrooms").write_bytes(mushrooms)
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.datasets.load_svmlight_file", None)  # downloaded, but not prepared
        with pytest.raises(TypeError):
            datasets.libsvm("mushrooms", data_dir=tmp_path / "out")
    (folder / "mushrooms").unlink()
    assert datasets.libsvm("mushrooms", data_dir=tmp_path / "out").y.shape == (8124,)


def test_directory_of_the_environment(originals, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    datasets.libsvm("mushrooms", manual_dir=originals["mushrooms"])
    assert (tmp_path / "sps_libsvm" / "mushrooms").is_dir()


def test_an_interruption_leaves_nothing_prepared(originals, tmp_path, monkeypatch):
    module = importlib.import_module("sps_jax.datasets.libsvm")
    whole = module.SpsLibsvm._generate_examples

    def interrupted(self, text):
        yield from whole(self, text)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.SpsLibsvm, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            datasets.libsvm("mushrooms", manual_dir=originals["mushrooms"], data_dir=tmp_path)
    assert not [path for path in (tmp_path / "sps_libsvm").rglob("*") if path.is_file()]
    assert datasets.libsvm("mushrooms", manual_dir=originals["mushrooms"], data_dir=tmp_path).y.shape == (8124,)


def test_another_process_was_faster(originals, tmp_path, monkeypatch):
    prepare = tfds.core.DatasetBuilder.download_and_prepare

    def late(self, **options):
        prepare(self, **options)
        raise OSError("directory not empty")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", late)
    assert datasets.libsvm("mushrooms", manual_dir=originals["mushrooms"], data_dir=tmp_path).y.shape == (8124,)


@pytest.mark.parametrize("file", ["*array_record*", "dataset_info.json", "features.json"])
@pytest.mark.parametrize("damage", ["truncate", "garble", "remove"])
def test_damaged_copy(originals, tmp_path, file, damage):
    options = {"manual_dir": originals["mushrooms"], "data_dir": tmp_path}
    good = datasets.libsvm("mushrooms", **options)
    (path,) = tmp_path.rglob(file)
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"\x17" * len(content))
    try:
        data = datasets.libsvm("mushrooms", **options)
    except ValueError as error:
        assert str(path.parent) in str(error) and "delete that folder" in str(error)
    else:  # not everything in the copy is needed to read it
        np.testing.assert_array_equal(data.x, good.x)


def test_is_silent_and_leaves_settings_alone(originals, tmp_path, capfd, caplog):
    level, bars = logging.getLogger("absl").level, tqdm_utils._active
    datasets.libsvm("mushrooms", manual_dir=originals["mushrooms"], data_dir=tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert (logging.getLogger("absl").level, tqdm_utils._active) == (level, bars)


def test_import_leaves_tensorflow_alone():
    code = "import sys, sps_jax.datasets; print('tensorflow' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_partition_needs_numpy_and_what_reads_containers():
    """So do the modules that it consists of."""
    own = {f"sps_jax.datasets.{name}" for name in ("containers", "owners", "skew")}
    for name in ("partition", "owners", "skew"):
        module = importlib.import_module(f"sps_jax.datasets.{name}")
        lines = Path(module.__file__).read_text().splitlines()
        imports = {line.split()[1] for line in lines if line.startswith(("import ", "from "))} - own
        assert {name.split(".")[0] for name in imports} <= {"heapq", "math", "operator", "collections", "numpy"}
