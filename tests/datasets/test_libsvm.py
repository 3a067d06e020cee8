import bz2

import numpy as np
import pytest

from sps_jax import datasets


@pytest.mark.parametrize(
    ("name", "rows", "features", "ones", "larger"),
    [("a9a", 32561, 123, 7841, b"+1"), ("mushrooms", 8124, 112, None, b"2")],
)
def test_against_the_text(originals, data_dir, name, rows, features, ones, larger):
    x, y = datasets.libsvm(name, manual_dir=originals[name], data_dir=data_dir)
    assert x.shape == (rows, features) and x.dtype == np.float32 and x.flags.writeable
    assert y.shape == (rows,) and y.dtype == np.int32 and set(y) == {0, 1}
    assert ones is None or y.sum() == ones
    lines = [line.split() for line in bz2.decompress((originals[name] / f"{name}.bz2").read_bytes()).splitlines()]
    np.testing.assert_array_equal(y, [line[0] == larger for line in lines])
    expected = np.zeros((rows, features), np.float32)
    for row, line in enumerate(lines):
        for field in line[1:]:
            column, value = field.split(b":")
            expected[row, int(column) - 1] = float(value)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("name", ["a9", "mushroom", "covtype", "", None])
def test_unknown_name(name, tmp_path):
    with pytest.raises(ValueError, match="Allowed: a9a, mushrooms"):
        datasets.libsvm(name, data_dir=tmp_path)


def test_nearest_name_is_suggested(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'mushrooms'"):
        datasets.libsvm("mushroms", data_dir=tmp_path)


def test_uncompressed_text_is_as_good(originals, tmp_path):
    text = bz2.decompress((originals["mushrooms"] / "mushrooms.bz2").read_bytes())
    (tmp_path / "mushrooms").write_bytes(text)
    assert datasets.libsvm("mushrooms", manual_dir=tmp_path, data_dir=tmp_path / "out").x.sum() == text.count(b":")


@pytest.mark.parametrize("change", [lambda b: b[:-500], lambda b: b"BZh9" + bytes(1000), lambda b: b""])
def test_damaged_bz2(originals, tmp_path, change):
    content = (originals["a9a"] / "a9a.bz2").read_bytes()
    (tmp_path / "a9a.bz2").write_bytes(change(content))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a9a\.bz2 is truncated or corrupted"):
            datasets.libsvm("a9a", manual_dir=tmp_path, data_dir=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("dataset_info.json"))


def test_damaged_text(originals, tmp_path):
    text = bz2.decompress((originals["a9a"] / "a9a.bz2").read_bytes())
    (tmp_path / "a9a").write_bytes(text[:100_000])
    with pytest.raises(ValueError, match=r"a9a is truncated or corrupted: its sha256 is [0-9a-f]{64}, expected f5d5"):
        datasets.libsvm("a9a", manual_dir=tmp_path, data_dir=tmp_path / "out")


def test_another_sets_file(originals, tmp_path):
    (tmp_path / "mushrooms.bz2").write_bytes((originals["a9a"] / "a9a.bz2").read_bytes())
    with pytest.raises(ValueError, match="expected f39a"):
        datasets.libsvm("mushrooms", manual_dir=tmp_path, data_dir=tmp_path / "out")
