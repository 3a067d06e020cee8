"""CIFAR-10 from small archives of the same form, and from the real one."""

import hashlib
import importlib
import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from sps_jax import datasets

cifar10 = importlib.import_module("sps_jax.datasets.cifar10")  # the package has a function of this name
FILE = "cifar-10-binary.tar.gz"
ROWS = 3


def write(path, batches, folder="cifar-10-batches-bin"):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def batches(monkeypatch):
    """Batches of three images each, whose digests are taken for the right ones."""
    generator = np.random.default_rng(0)
    batches = {}
    for name in cifar10.MD5:
        labels = generator.integers(0, 10, (ROWS, 1), np.uint8)
        batches[name] = np.hstack([labels, generator.integers(0, 256, (ROWS, 3072), np.uint8)]).tobytes()
    monkeypatch.setattr(cifar10, "MD5", {name: hashlib.md5(b).hexdigest() for name, b in batches.items()})
    return batches


def test_images_and_labels_of_every_batch_in_order(batches, tmp_path):
    write(tmp_path / FILE, dict(reversed(batches.items())))  # the order in the archive does not matter
    for _ in range(2):  # the second time from the prepared copy
        raw = datasets.cifar10(manual_dir=tmp_path, data_dir=tmp_path / "out")
        assert raw.train_x.shape == (5 * ROWS, 32, 32, 3) and raw.test_x.shape == (ROWS, 32, 32, 3)
        assert raw.train_x.dtype == np.uint8 and raw.train_y.dtype == np.int32
        for i, name in enumerate(batches):
            x, y = (raw.test_x, raw.test_y) if i == 5 else (raw.train_x[ROWS * i :], raw.train_y[ROWS * i :])
            for row in range(ROWS):
                record = batches[name][3073 * row : 3073 * (row + 1)]
                assert y[row] == record[0]
                assert x[row, 4, 7].tolist() == [record[1 + plane * 1024 + 4 * 32 + 7] for plane in range(3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b | {"test_batch.bin": b["data_batch_1.bin"]}, "the MD5 of test_batch.bin in it is"),
        (lambda b: {k: v for k, v in b.items() if k != "data_batch_3.bin"}, "it is not a gzipped tar file with"),
        (lambda b: b | {"data_batch_2.bin": b"short"}, "the MD5 of data_batch_2.bin in it is"),
    ],
)
def test_wrong_batches(batches, tmp_path, change, message):
    write(tmp_path / FILE, change(batches))
    with pytest.raises(ValueError, match=message) as caught:
        datasets.cifar10(manual_dir=tmp_path, data_dir=tmp_path / "out")
    assert str(tmp_path / FILE) in str(caught.value) and datasets.SETS["cifar10"].source.url in str(caught.value)
    assert (tmp_path / FILE).exists()  # a file of the user's is left alone
    assert not list((tmp_path / "out").rglob("dataset_info.json"))


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: bytes(1000), lambda b: b"PK"])
def test_damaged_archive(batches, tmp_path, change):
    write(tmp_path / FILE, batches)
    (tmp_path / FILE).write_bytes(change((tmp_path / FILE).read_bytes()))
    with pytest.raises(ValueError, match="is truncated or corrupted"):
        datasets.cifar10(manual_dir=tmp_path, data_dir=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("dataset_info.json"))


@pytest.mark.slow
def test_the_real_archive(originals, tmp_path):
    make = originals["cifar10"].parent / "make_cifar10_archive.py"
    subprocess.run([sys.executable, make, tmp_path / FILE], check=True, capture_output=True)
    raw = datasets.cifar10(manual_dir=tmp_path, data_dir=tmp_path / "out")
    assert (raw.train_x.shape, raw.test_x.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert np.bincount(raw.train_y).tolist() == [5_000] * 10 and np.bincount(raw.test_y).tolist() == [1_000] * 10
    with np.load(originals["cifar10"] / "labels.npz") as labels:
        np.testing.assert_array_equal(raw.train_y, labels["y_train"].ravel())
        np.testing.assert_array_equal(raw.test_y, labels["y_test"].ravel())
    for channel, (mean, deviation) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), strict=True)):
        shades, counts = np.arange(256) / 255, np.bincount(raw.train_x[..., channel].ravel(), minlength=256)
        assert np.average(shades, weights=counts) == pytest.approx(mean, abs=5e-5)
        assert np.average((shades - mean) ** 2, weights=counts) ** 0.5 == pytest.approx(deviation, abs=5e-5)
