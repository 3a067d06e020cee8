import hashlib
import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sps_jax import datasets

FILE = "train-00000-of-00001.parquet"


def png(pixels, format="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


GREY = png(np.full((28, 28), 255, np.uint8))


def write(folder, images, labels, writers, file=FILE):
    """A parquet file with the columns of flwrlabs/femnist."""
    folder.mkdir(exist_ok=True)
    image = [{"bytes": image, "path": None} for image in images]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = {"image": pa.array(image, kind), "writer_id": pa.array(writers, pa.string()), "character": labels}
    pq.write_table(pa.table(table), folder / file)
    return folder


@pytest.fixture(scope="module")
def original(originals):
    return pq.read_table(originals["femnist"] / FILE)


def test_has_the_known_shape(femnist):
    assert femnist.images.shape == (42002, 28, 28) and femnist.images.dtype == np.uint8
    assert femnist.labels.shape == femnist.writers.shape == (42002,)
    assert femnist.labels.dtype == femnist.writers.dtype == np.int32
    assert set(femnist.labels) == set(range(62))
    sizes = np.bincount(femnist.writers)
    assert (len(sizes), sizes.min(), sizes.max(), np.median(sizes)) == (255, 42, 356, 169)


def test_paper_is_white(femnist):
    assert np.median(femnist.images) == 255
    assert femnist.images.min() == 0


def test_rows_are_the_files_rows(femnist, original):
    """Writers are contiguous in this file, so grouping leaves the order as it is."""
    names = original["writer_id"].to_pylist()
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    np.testing.assert_array_equal(femnist.writers, [number[name] for name in names])
    np.testing.assert_array_equal(femnist.labels, original["character"].to_numpy())
    for row in (0, 1, 12345, 42001):
        pixels = Image.open(io.BytesIO(original["image"][row]["bytes"].as_py())).tobytes()
        assert femnist.images[row].tobytes() == pixels


def test_arrays_can_be_written_to(femnist):
    assert all(array.flags.writeable for array in femnist)


def test_writers_in_pieces_are_gathered(tmp_path):
    shades = [png(np.full((28, 28), shade, np.uint8)) for shade in range(5)]
    folder = write(tmp_path / "in", shades, [5, 6, 7, 8, 9], ["b", "a", "b", "c", "a"])
    data = datasets.femnist(manual_dir=folder, data_dir=tmp_path / "out")
    np.testing.assert_array_equal(data.images[:, 0, 0], [0, 2, 1, 4, 3])
    np.testing.assert_array_equal(data.labels, [5, 7, 6, 9, 8])
    np.testing.assert_array_equal(data.writers, [0, 0, 1, 1, 2])


def test_different_files_have_different_copies(tmp_path):
    one = write(tmp_path / "one", [GREY], [1], ["a"])
    two = write(tmp_path / "two", [GREY, GREY], [2, 3], ["a", "b"])
    for _ in range(2):
        assert datasets.femnist(manual_dir=one, data_dir=tmp_path / "out").labels.tolist() == [1]
        assert datasets.femnist(manual_dir=two, data_dir=tmp_path / "out").labels.tolist() == [2, 3]
    digest = hashlib.sha256((one / FILE).read_bytes()).hexdigest()
    assert (tmp_path / "out" / "sps_femnist" / f"sha256-{digest}").is_dir()


def test_two_files_are_one_too_many(tmp_path):
    write(tmp_path / "in", [GREY], [1], ["a"])
    write(tmp_path / "in", [GREY], [1], ["a"], file="train-00001-of-00002.parquet")
    with pytest.raises(ValueError, match="leave one file"):
        datasets.femnist(manual_dir=tmp_path / "in", data_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("image", "label", "writer", "says"),
    [
        (GREY, 62, "a", r"labels must be 0\.\.61"),
        (GREY, -1, "a", r"labels must be 0\.\.61"),
        (GREY, None, "a", "no value missing"),
        (GREY, 1, None, "no value missing"),
        (None, 1, "a", "no value missing"),
        (b"not a picture", 1, "a", "image 1 is not a readable PNG"),
        (GREY[: len(GREY) // 2], 1, "a", "image 1 is not a readable PNG"),
        (png(np.zeros((28, 28), np.uint8), "BMP"), 1, "a", "image 1 is not a readable PNG"),
        (png(np.zeros((27, 28), np.uint8)), 1, "a", "image 1 is 28 x 27 L, not 28 x 28 grey"),
        (png(np.zeros((28, 28, 3), np.uint8)), 1, "a", "image 1 is 28 x 28 RGB, not 28 x 28 grey"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_counts_as_prepared(tmp_path, image, label, writer, says):
    folder = write(tmp_path / "in", [GREY, image], [0, label], ["a", writer])
    for _ in range(2):
        with pytest.raises(ValueError, match=says) as caught:
            datasets.femnist(manual_dir=folder, data_dir=tmp_path / "out")
        assert FILE in str(caught.value)
    assert not list((tmp_path / "out").rglob("dataset_info.json"))


def test_missing_column(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": [b""], "writer_id": ["a"]}), tmp_path / "in" / FILE)
    with pytest.raises(ValueError, match="not a parquet file of FEMNIST's size with columns"):
        datasets.femnist(manual_dir=tmp_path / "in", data_dir=tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 10, 100_000])
def test_truncated_file(tmp_path, originals, keep):
    content = (originals["femnist"] / FILE).read_bytes()[:keep]
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match="truncated or corrupted: it is not a parquet file") as caught:
        datasets.femnist(manual_dir=tmp_path, data_dir=tmp_path / "out")
    assert str(tmp_path / FILE) in str(caught.value)


def test_corrupted_middle(tmp_path, originals):
    content = bytearray((originals["femnist"] / FILE).read_bytes())
    content[2_000_000:2_100_000] = bytes(100_000)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match="corrupted"):
        datasets.femnist(manual_dir=tmp_path, data_dir=tmp_path / "out")


def test_prepared_copy_is_used_again(tmp_path, monkeypatch):
    folder = write(tmp_path / "in", [GREY], [1], ["a"])
    first = datasets.femnist(manual_dir=folder, data_dir=tmp_path / "out")
    shutil.copytree(folder, tmp_path / "elsewhere")
    monkeypatch.setattr(Image, "open", None)  # decoding again would fail
    second = datasets.femnist(manual_dir=tmp_path / "elsewhere", data_dir=tmp_path / "out")
    np.testing.assert_array_equal(first.images, second.images)
