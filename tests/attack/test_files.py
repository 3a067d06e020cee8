"""Files that are damaged, swapped or made to harm: refused by name, or what they were."""

import ast
import bz2
import functools
import gzip
import http.server
import importlib
import io
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sps_jax import datasets
from sps_jax.runs import checkpoint

PACKAGE = Path(datasets.__file__).parents[1]
cifar10, femnist, libsvm = (
    importlib.import_module(f"sps_jax.datasets.{name}") for name in ("cifar10", "femnist", "libsvm")
)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cut, one bit flipped, some bytes in another place, or nothing."""
    how, at = draw.choice(["cut", "flip", "flip", "flip", "swap", "empty"]), draw.randrange(len(content))
    if how == "flip":
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    half = len(content) // 2
    return {"cut": content[:at], "swap": content[half:] + content[:half], "empty": b""}[how]


# --- nothing is executed or unpickled -----------------------------------------------------------------------------

FORBIDDEN = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "__import__", "extract", "extractall", "unpack_archive", "read_pickle", "system", "popen"}


def harmful(source: str) -> list[str]:
    """What of ``source`` would let a file run code, or write where it likes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            found += [name for name in names if name.split(".")[0] in FORBIDDEN]
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            method = isinstance(node.func, ast.Attribute)  # flax has one called eval
            if (
                (name in CALLS and not (method and name == "eval"))
                or given.get("shell") == "True"
                or given.get("allow_pickle", "False") != "False"
            ):
                found.append(ast.unparse(node))
    return found


def test_no_module_unpickles_executes_or_extracts():
    for path in PACKAGE.rglob("*.py"):
        assert not harmful(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("source", ["from pickle import load", "import yaml", "eval(x)", "archive.extractall(x)"])
def test_the_check_sees_harm(source):
    assert harmful(source) and harmful("np.load(x, allow_pickle=True)") and not harmful("np.load(x); eval_shape(f)")


# --- archives -----------------------------------------------------------------------------------------------------


def tar(path, *members):
    """An archive of (name, content, changes of its header) each."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content, changes in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in changes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))


BATCH = "cifar-10-batches-bin/data_batch_1.bin"
ARCHIVES = {
    "climbs out": [("../../evil", b"harm", {}), ("/tmp/evil", b"harm", {})],
    "a link out": [(BATCH, b"", {"type": tarfile.SYMTYPE, "linkname": "../../secret"})],
    "a hard link out": [(BATCH, b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/hostname"})],
    "a link to itself": [(BATCH, b"", {"type": tarfile.SYMTYPE, "linkname": "data_batch_1.bin"})],
    "a device": [(BATCH, b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})],
    "a folder": [(BATCH, b"", {"type": tarfile.DIRTYPE})],
    "a bomb": [(BATCH, bytes(1 << 17), {})],
    "a bomb beside": [("bomb", bytes(1 << 17), {})],
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_tar_archives_made_to_harm(case, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LIMIT", 1 << 16)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    tar(folder / "cifar-10-binary.tar.gz", *ARCHIVES[case])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="is truncated or corrupted") as caught:
        cifar10._batches(folder / "cifar-10-binary.tar.gz")
    assert ("more than 65,536 bytes" in str(caught.value)) == ("bomb" in case)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_size_that_a_tar_header_tells_is_not_believed(tmp_path):
    header = tarfile.TarInfo(BATCH)
    header.size = 10**13
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(1024)))
    with pytest.raises(ValueError, match="is truncated or corrupted"):
        cifar10._batches(path)


def test_tar_archives_damaged_at_random(tmp_path):
    draw, path = random.Random(0), tmp_path / "cifar-10-binary.tar.gz"
    tar(path, *[(f"cifar-10-batches-bin/{name}", draw.randbytes(50), {}) for name in cifar10.MD5])
    content = path.read_bytes()
    for _ in range(200):
        path.write_bytes(damaged(content, draw))
        with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz is truncated or corrupted"):
            cifar10._batches(path)


def test_bz2_bombs_and_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(libsvm, "LIMIT", 1 << 16)
    path, draw = tmp_path / "a9a.bz2", random.Random(0)
    path.write_bytes(bz2.compress(bytes(1 << 20)))
    with pytest.raises(ValueError, match=r"a9a.bz2 is truncated or corrupted \(it holds more than 65,536 bytes\)"):
        libsvm._text(path, "URL")
    text = b"+1 3:1 11:1\n-1 2:1\n" * 50
    content = bz2.compress(text)
    for _ in range(200):
        path.write_bytes(damaged(content, draw))
        try:
            assert libsvm._text(path, "URL") in (text, b"")
        except ValueError as error:
            assert "a9a.bz2 is truncated or corrupted" in str(error)


# --- parquet ------------------------------------------------------------------------------------------------------


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def parquet(pngs):
    images = pa.array(
        [{"bytes": one, "path": None} for one in pngs], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    writers, labels = [f"w{i // 2}" for i in range(len(pngs))], [i % 62 for i in range(len(pngs))]
    file = io.BytesIO()
    pq.write_table(pa.table({"image": images, "writer_id": writers, "character": labels}), file)
    return file.getvalue()


def read(content, path):
    pngs, labels, writers = femnist._columns(content, path)
    return np.stack([femnist._image(one.as_py(), path, i) for i, one in enumerate(pngs)]), labels, writers


def test_parquet_damaged_at_random(tmp_path):
    generator, draw = np.random.default_rng(0), random.Random(0)
    content = parquet([png(generator.integers(0, 256, (28, 28), np.uint8)) for _ in range(6)])
    whole, unseen = read(content, tmp_path / "train-0.parquet"), 0
    for _ in range(400):
        try:
            found = read(damaged(content, draw), tmp_path / "train-0.parquet")
        except ValueError as error:
            assert "train-0.parquet is truncated or corrupted" in str(error)
        else:  # a file by hand has no digest: a label may be another label, a writer another writer
            np.testing.assert_array_equal(found[0], whole[0])
            assert ((found[1] >= 0) & (found[1] < 62)).all() and len(found[2]) == 6
            unseen += 1
    assert 0 < unseen < 200


@pytest.mark.parametrize("name", ["MOST", "LIMIT"])
def test_parquet_of_absurd_size(name, monkeypatch):
    content = parquet([png(np.zeros((28, 28), np.uint8))] * 3)
    monkeypatch.setattr(femnist, name, 2)
    with pytest.raises(ValueError, match="not a parquet file of FEMNIST's size"):
        femnist._columns(content, Path("train-0.parquet"))


@pytest.mark.parametrize("side", [29, 10_000, 50_000, 2**31 - 1])
def test_pngs_of_absurd_size(side):
    """What is made of the header alone: no pixel is."""
    chunk = lambda kind, body: len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)  # noqa: E731
    header = side.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    with pytest.raises(ValueError, match=r"train-0.parquet is truncated or corrupted: image 3 is"):
        femnist._image(bomb, Path("train-0.parquet"), 3)


# --- prepared copies ----------------------------------------------------------------------------------------------


def test_prepared_copies_damaged_at_random(tmp_path):
    (tmp_path / "in").mkdir()
    generator, draw = np.random.default_rng(0), random.Random(1)
    pngs = [png(generator.integers(0, 256, (28, 28), np.uint8)) for _ in range(6)]
    (tmp_path / "in" / "train-0.parquet").write_bytes(parquet(pngs))
    load = functools.partial(datasets.femnist, manual_dir=tmp_path / "in", data_dir=tmp_path / "out")
    whole = load()
    (path,) = tmp_path.rglob("*array_record*")
    content, refused = path.read_bytes(), 0
    for _ in range(25):
        path.write_bytes(damaged(content, draw))
        try:
            found = load()
        except ValueError as error:
            assert "delete that folder and it will be prepared again" in str(error)
            refused += 1
        else:
            for one, other in zip(found, whole, strict=True):
                np.testing.assert_array_equal(one, other)
    assert refused > 10


# --- checkpoints --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's closed event loop
def test_checkpoints_damaged_at_random(tmp_path):
    """They come back bit by bit, with their record, or say that they cannot be used."""
    tree = {"w": np.arange(300, dtype=np.float32).reshape(3, 100), "t": np.int32(7)}
    about = {"past": {"rounds": 4, "uplink_bits": 123456789}, "metrics_bytes": 4321, "run": {"algorithm": "gd"}}
    checkpoint.save(tmp_path / "whole", 4, tree, about)
    other = {"w": tree["w"] + 1, "t": tree["t"]}
    checkpoint.save(tmp_path / "other", 4, other, about | {"metrics_bytes": 1234})
    draw, refused = random.Random(2), 0
    files = sorted(
        path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole" / "4").rglob("*") if path.is_file()
    )
    for i in range(60):
        copy = shutil.copytree(tmp_path / "whole", tmp_path / f"copy{i}")
        victim = draw.choice(files)
        foreign = tmp_path / "other" / victim
        content = (copy / victim).read_bytes()
        swap = draw.random() < 0.2 and foreign.is_file()
        (copy / victim).write_bytes(foreign.read_bytes() if swap else damaged(content, draw) if content else b"x")
        try:
            with checkpoint.Checkpoints(copy, read_only=True) as checkpoints:
                (step,) = checkpoints.steps()
                record, found = checkpoints.about(step), checkpoints.restore(step, tree)
        except checkpoint.Unreadable as error:
            assert str(copy / "4") in str(error)
            refused += 1
        except ValueError as error:  # none is left
            assert "not enough values" in str(error)
        else:
            assert record == about, victim
            np.testing.assert_array_equal(found["w"], tree["w"])
            np.testing.assert_array_equal(found["t"], tree["t"])
        shutil.rmtree(copy)
    assert refused > 10


# --- downloads ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """``stage(answers)``: an address on this machine that gives one answer a request, the last ones for ever."""
    servers = []

    def begin(*answers):
        asked = []

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                told, body = answers[min(len(asked), len(answers) - 1)]
                asked.append(self.path)
                self.send_response(200)
                if told is not None:
                    self.send_header("Content-Length", str(told))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(libsvm.SOURCES, "mushrooms", libsvm.SOURCES["mushrooms"]._replace(url=url + "mushrooms"))
        monkeypatch.setattr(femnist, "SOURCE", femnist.SOURCE._replace(url=url + "femnist"))
        return asked

    yield begin
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("told", [True, False])
def test_an_interrupted_download_never_counts_as_done(told, stage, tmp_path):
    """Cut in the middle, whether its length was told or not; the next attempt gets it whole."""
    content = parquet([png(np.full((28, 28), shade, np.uint8)) for shade in range(4)])
    length, half = len(content) if told else None, content[: len(content) // 2]
    asked = stage((length, half), (length, half), (length, half), (length, content))
    with pytest.raises(
        (FileNotFoundError, ValueError), match="could not download" if told else "truncated or corrupted"
    ):
        datasets.femnist(data_dir=tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json")) and not list(tmp_path.rglob("*.INFO"))
    for _ in range(3):
        try:
            found = datasets.femnist(data_dir=tmp_path)
            break
        except (FileNotFoundError, ValueError):
            assert len(asked) < 5
    np.testing.assert_array_equal(found.images[:, 0, 0], range(4))


PREPARE = """
import sys, time
from sps_jax import datasets
folder, begin = sys.argv[1], float(sys.argv[2])
time.sleep(max(0, begin - time.time()))
print(datasets.femnist(manual_dir=folder + "/in", data_dir=folder + "/out").images.sum())
"""


@pytest.mark.slow
def test_two_processes_prepare_one_data_set_at_once(tmp_path):
    (tmp_path / "in").mkdir()
    pngs = [png(np.full((28, 28), shade, np.uint8)) for shade in range(200)]
    (tmp_path / "in" / "train-0.parquet").write_bytes(parquet(pngs))
    command = [sys.executable, "-c", PREPARE, str(tmp_path), str(time.time() + 6)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ends = [process.communicate(timeout=120) for process in [subprocess.Popen(command, **pipes) for _ in range(4)]]
    assert [out for out, _ in ends] == [f"{28 * 28 * sum(range(200))}\n"] * 4, ends
    assert not list((tmp_path / "out").rglob("*incomplete*"))
