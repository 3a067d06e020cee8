"""Own data without code: files, prepared TFDS sets and columns of Hugging Face, on the command line and in Python."""

import importlib.util
import io
import json
from collections.abc import Sequence

import jax
import numpy as np
import pandas
import pytest
import tensorflow_datasets
from PIL import Image

import sps_jax as sps
from sps_jax.datasets.columns import Named, chosen, read_examples
from sps_jax.problems.own import images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 4, 4), np.uint8)
LABELS = np.array(["cat", "dog", "emu"])[np.arange(30) % 3]
USERS = np.array(["ann", "bob"])[np.arange(30) // 3 % 2]
FRAME = pandas.DataFrame(PIXELS.reshape(30, 16)).rename(columns=str).assign(kind=LABELS, user=USERS)
NAMES = {"label": "kind", "client": "user"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same examples in the three kinds of file."""
    path = tmp_path_factory.mktemp("own")
    np.savez(path / "data.npz", x=PIXELS, kind=LABELS, user=USERS)
    FRAME.to_csv(path / "data.csv")  # with its index
    FRAME.to_parquet(path / "data.parquet")
    pandas.DataFrame({"x": list(PIXELS.reshape(30, 16)), "kind": LABELS, "user": USERS}).to_parquet(
        path / "rows.parquet"
    )
    return path


FILES = ["data.npz", "data.csv", "data.parquet", "rows.parquet"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_arrays_in_it(folder, name):
    """As images, scaled; a client of each user, in order; the fifth of each is held out."""
    found = sps.problems.arrays(file=folder / name, image="4,4", **NAMES, data_seed=3)
    wanted = sps.from_arrays(PIXELS, LABELS, USERS, test=0.2, seed=3)
    assert found.classes == wanted.classes == ("cat", "dog", "emu") and found.counts.tolist() == [12, 12]
    for a, b in zip(*(jax.tree.leaves((p.data, p.test)) for p in (found, wanted)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.asarray(found.data[0]).max() <= 1


def test_inputs_are_chosen_and_numbers_stay_without_an_image(folder):
    found = sps.problems.arrays(file=folder / "data.csv", inputs="3, 5", **NAMES, test=0)
    rows = np.flatnonzero(USERS == "ann")
    np.testing.assert_array_equal(found.data[0][0], PIXELS.reshape(30, 16)[rows][:, [3, 5]])
    assert found.test is None


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"clients": 1}, [15]),  # the first user
        ({"partition": "iid", "clients": 4}, [8, 8, 7, 7]),
        ({"partition": "by_label", "clients": 3}, [10, 10, 10]),
        ({"partition": "few_labels", "labels_each": 1, "clients": 3}, [10, 10, 10]),
        ({"partition": "by_size", "clients": 1}, [30]),
        ({"partition": "quantity", "clients": 2, "least": 15}, [15, 15]),
        ({"partition": "dirichlet", "dirichlet_alpha": 1e12, "clients": 2, "least": 15}, [15, 15]),
        ({"client": None}, [3] * 10),
    ],
)
def test_every_partition_serves_own_data(folder, options, sizes):
    found = sps.problems.arrays(file=folder / "data.npz", **NAMES | {"test": 0, "inputs": "x"} | options)
    assert found.counts.tolist() == sizes


def test_feature_noise_skews_the_inputs(folder):
    """Of the scaled pixels: the variance of what is added is 1/2 at the first of two users and 1 at the second."""
    plain, noisy = (
        sps.problems.arrays(file=folder / "data.npz", **NAMES, test=0, feature_noise=noise) for noise in (0, 1.0)
    )
    for i, variance in ((0, 0.5), (1, 1.0)):  # 240 numbers: 4 standard deviations of a sample variance
        added = np.asarray(noisy.data[0][i]) - np.asarray(plain.data[0][i])
        assert abs(added.var() / variance - 1) < 4 * np.sqrt(2 / 240)


@pytest.mark.slow
def test_a_network_sees_grey_images(folder):
    problem = sps.problems.arrays(file=folder / "data.npz", **NAMES, model="resnet20", batch_size=2)
    params = jax.eval_shape(problem.init, jax.random.key(0))
    losses = jax.eval_shape(problem.loss, params, *(a[0] for a in problem.data))
    assert losses.shape == (12,) and problem.data[0].dtype == np.uint8


@pytest.mark.parametrize("name", FILES[:3])
def test_the_command_line_reads_it(folder, name, command, tmp_path):
    options = ["--problem", "arrays", "--file", folder / name, *BOTH, "--image", "4,4"]
    done = command("run", *options, "--algorithm", "fedavg", "--rounds", 2, "--out", "out", "--quiet")
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["settings"]
    assert settings["file"] == str(folder / name) and "test_accuracy" in done.stdout


BOTH = ("--label", "kind", "--client", "user")
WRONG = {
    "no file": ((), "arrays needs a file: --file FILE"),
    "absent": (("--file", "absent.csv"), "there is no file absent.csv"),
    "suffix": (("--file", "data.xlsx"), "data.xlsx must be a file .npz, .csv, .parquet"),
    "damaged": (("--file", "damaged.npz"), "damaged.npz cannot be read as .npz"),
    "damaged parquet": (("--file", "damaged.parquet"), "damaged.parquet cannot be read as .parquet"),
    "empty": (("--file", "empty.csv"), "empty.csv cannot be read as .csv"),
    "label": (("--file", "data.csv", "--label", "kinds"), "unknown column 'kinds': did you mean 'kind'?"),
    "client": (("--file", "data.csv", "--label", "kind", "--client", "users"), "did you mean 'user'?"),
    "names": (("--file", "data.csv", "--label", "kind"), "column 'user' holds <U3, not real numbers"),
    "image": (
        ("--file", "data.npz", *BOTH, "--image", "4,5"),
        "image 4,5 has 20 numbers",
    ),
    "shape": (("--file", "data.npz", *BOTH, "--image", "4"), "height,width"),
    "model": (
        ("--file", "data.npz", *BOTH, "--model", "resnet"),
        "unknown model 'resnet'",
    ),
    "no image": (
        ("--file", "data.csv", *BOTH, "--model", "resnet20"),
        "takes images of",
    ),
    "lengths": (("--file", "uneven.npz"), "lengths are y 3, x 2"),
    "several": (("--file", "several.npz"), "name one of a, b"),
    "alone": (("--file", "alone.npz"), "there is no column of inputs beside y"),
    "clients": (("--file", "data.csv", *BOTH, "--clients", 3), "between 1 and 2"),
    "not prepared": (("tfds",), "is not prepared in"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_ends_in_one_sentence(case, folder, command, tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for name, content in (("damaged.npz", b"PK"), ("damaged.parquet", b"PAR1"), ("empty.csv", b""), ("data.xlsx", b"")):
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "uneven.npz", x=np.ones((2, 2)), y=np.arange(3))
    np.savez(tmp_path / "several.npz", a=np.ones((3, 2)), b=np.ones((3, 2)), y=np.arange(3))
    np.savez(tmp_path / "alone.npz", y=np.arange(3))
    options, says = WRONG[case]
    if options == ("tfds",):
        options = ("--problem", "tfds:mnist", "--data-dir", tmp_path)
    else:
        options = ("--problem", "arrays", *options)
    done = command("run", *options, "--algorithm", "gd", "--rounds", 1, "--out", "out", "--quiet")
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_images_are_bytes_only_where_they_can_be():
    whole = np.full((2, 4), 255)
    assert images(whole, "2,2").dtype == np.uint8 and images(whole + 1, "2x2").dtype == whole.dtype
    assert images(whole / 255, "2,2,1").shape == (2, 2, 2, 1) and images(whole, None) is whole


def test_names_default_to_y():
    found = chosen({"y": np.arange(2), "x": np.eye(2)}, Named())
    assert found.y.tolist() == [0, 1] and found.clients is None
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_examples("absent.npz", Named())


# --- prepared by TensorFlow Datasets ----------------------------------------------------------------------------------


class Tiny(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
    """Thirty training images and their writers, and six for testing."""

    name = "tiny_images"
    VERSION = tensorflow_datasets.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        kinds = tensorflow_datasets.features
        features = {"image": kinds.Image(shape=(4, 4, 1)), "label": kinds.ClassLabel(names=["cat", "dog", "emu"])}
        features |= {"writer": kinds.Text()}
        return tensorflow_datasets.core.DatasetInfo(
            builder=self, features=kinds.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(30), "test": self._generate_examples(6)}

    def _generate_examples(self, many):
        for i in range(many):
            png = io.BytesIO()
            Image.fromarray(PIXELS[i]).save(png, "PNG")
            png.seek(0)
            yield i, {"image": png, "label": i % 3, "writer": str(USERS[i])}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    from sps_jax.datasets.prepare import _quiet

    with _quiet():
        builder = Tiny(data_dir=root, file_format="array_record")
        builder.download_and_prepare(
            download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        )
    return root


def test_a_prepared_set_is_read_without_tensorflow(prepared):
    """TFDS shuffles what it stores, so rows are compared as sets; its class names are the problem's."""
    problem = sps.problems.tfds(dataset="tiny_images", data_dir=prepared, client="writer", partition="natural")
    assert problem.classes == ("cat", "dog", "emu") and sorted(problem.counts.tolist()) == [15, 15]
    assert problem.test[0].shape == (6, 16)
    seen = {tuple(row) for own in np.asarray(problem.data[0]) for row in np.round(own * 255).astype(int).tolist()}
    assert seen == set(map(tuple, PIXELS.reshape(30, 16).tolist()))
    assert importlib.util.find_spec("tensorflow") is None or "tensorflow" not in __import__("sys").modules


@pytest.mark.slow
def test_the_command_line_names_it(prepared, command, tmp_path):
    options = ["--data-dir", prepared, "--algorithm", "fedavg", "--rounds", 1, "--quiet", "--clients", 3]
    for problem in (["--problem", "tfds:tiny_images"], ["--problem=tfds:tiny_images"]):
        done = command("run", *problem, *options, "--out", problem[-1][-5:] + str(len(problem)))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"dataset": "mnist"},
            "mnist is not prepared in .*: with TensorFlow, tfds build mnist --file_format=array_record",
        ),
        ({"client": "author"}, "unknown feature 'author': .*Allowed: .*writer"),
        ({"dataset": None}, "tfds needs a data set: --problem tfds:NAME"),
    ],
)
def test_what_is_missing_is_said(prepared, options, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        sps.problems.tfds(**{"dataset": "tiny_images", "data_dir": prepared} | options)


def test_what_only_tensorflow_reads_is_said(prepared, tmp_path):
    """The same, as if it were stored as tfrecord; and with several configs to choose from."""
    own = prepared / "tiny_images" / "1.0.0"
    for config in ("a", "b"):
        copy = tmp_path / "tiny_images" / config / "1.0.0"
        copy.mkdir(parents=True)
        for file in own.iterdir():
            (copy / file.name).write_bytes(file.read_bytes().replace(b'"array_record"', b'"tfrecord"'))
    with pytest.raises(ValueError, match=r"^tiny_images is prepared in several configs, name one of tiny_images/a"):
        sps.problems.tfds(dataset="tiny_images", data_dir=tmp_path)
    with pytest.raises(ValueError, match="is stored as tfrecord, which only TensorFlow can read: prepare it again"):
        sps.problems.tfds(dataset="tiny_images/a", data_dir=tmp_path)


# --- Hugging Face -----------------------------------------------------------------------------------------------------


class Column(Sequence):
    """As a column of ``datasets``: read on demand, entry by entry."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        return self.values[key]


def test_columns_of_pictures_and_names():
    pictures = Column([Image.fromarray(picture) for picture in PIXELS])
    found = sps.from_arrays(pictures, Column(LABELS.tolist()), Column(USERS.tolist()))
    wanted = sps.from_arrays(PIXELS, LABELS, USERS)
    assert found.classes == wanted.classes
    for a, b in zip(*(jax.tree.leaves(p.data) for p in (found, wanted)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_columns_of_hugging_face():
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    if not hasattr(datasets, "Dataset"):
        pytest.skip("datasets is this repository's folder of tests, as Hugging Face's is not installed")
    columns = {"x": PIXELS.reshape(30, 16).tolist(), "kind": LABELS.tolist(), "user": USERS.tolist()}
    own = datasets.Dataset.from_dict(columns)
    found = sps.from_arrays(own["x"], own["kind"], own["user"])
    assert found.classes == ("cat", "dog", "emu")
    np.testing.assert_array_equal(found.data[0][0], PIXELS.reshape(30, 16)[USERS == "ann"])
    with pytest.raises(ValueError, match=r"^x is a Dataset .*whose entries are dicts: .*entry\['x'\]"):
        sps.from_arrays(own, own["kind"], own["user"])
