import csv
import io
import zipfile

import numpy as np
import pytest

from sps_jax import datasets

FILE = "BlogFeedback.zip"


@pytest.fixture(scope="module")
def texts(originals):
    """The lines of each CSV file, fields still text."""
    with zipfile.ZipFile(originals["blog_feedback"] / FILE) as archive:
        names = sorted(archive.namelist())
        return {name: list(csv.reader(io.StringIO(archive.read(name).decode()))) for name in names}


@pytest.mark.slow
def test_has_the_known_shape(blog_feedback):
    shapes = [array.shape for array in blog_feedback]
    assert shapes == [(52397, 280), (52397,), (52397,), (7624, 280), (7624,)]
    assert [array.dtype for array in blog_feedback] == [np.float32, np.float32, np.int32, np.float32, np.float32]
    assert all(np.isfinite(array).all() and array.flags.writeable for array in blog_feedback)
    sizes = np.bincount(blog_feedback.train_blogs)
    assert (len(sizes), sizes.min(), sizes.max(), np.median(sizes)) == (554, 3, 3666, 27)


@pytest.mark.slow
def test_training_rows_are_the_files_rows_grouped_by_blog(blog_feedback, texts):
    groups = {}
    for row in texts["blogData_train.csv"]:
        groups.setdefault(tuple(map(float, row[:50])), []).append(row)
    assert len(groups) == 554
    np.testing.assert_array_equal(
        blog_feedback.train_blogs, np.repeat(np.arange(554), [len(g) for g in groups.values()])
    )
    rows = [row for group in groups.values() for row in group]
    np.testing.assert_array_equal(blog_feedback.train_y, [np.float32(row[280]) for row in rows])
    for i in range(0, len(rows), 997):
        np.testing.assert_array_equal(blog_feedback.train_x[i], np.array(rows[i][:280], np.float32))


def test_test_rows_follow_the_days(blog_feedback, texts):
    rows = [row for name, table in texts.items() if name != "blogData_train.csv" for row in table]
    np.testing.assert_array_equal(blog_feedback.test_y, [np.float32(row[280]) for row in rows])
    for i in range(0, len(rows), 97):
        np.testing.assert_array_equal(blog_feedback.test_x[i], np.array(rows[i][:280], np.float32))


def test_prepared_copy_needs_no_source(blog_feedback, data_dir, tmp_path):
    again = datasets.blog_feedback(manual_dir=tmp_path / "nowhere", data_dir=data_dir)
    for one, other in zip(blog_feedback, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_truncated_archive(originals, tmp_path):
    content = (originals["blog_feedback"] / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:-100])
    with pytest.raises(ValueError, match="truncated or corrupted") as caught:
        datasets.blog_feedback(manual_dir=tmp_path, data_dir=tmp_path / "out")
    said = str(caught.value)
    assert str(tmp_path / FILE) in said and datasets.SETS["blog_feedback"].source.url in said
    assert datasets.SETS["blog_feedback"].source.sha256 in said  # the expected digest; the one found precedes it
    assert (tmp_path / FILE).exists()  # a file of the user's is left alone
    assert not list((tmp_path / "out").rglob("dataset_info.json"))


def test_name_in_lower_case(originals, tmp_path):
    (tmp_path / "blogfeedback.zip").write_bytes((originals["blog_feedback"] / FILE).read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"blogfeedback\.zip is truncated"):
        datasets.blog_feedback(manual_dir=tmp_path, data_dir=tmp_path / "out")
