"""Real data for the tests of this folder: each set is prepared once a session, in a temporary folder."""

from pathlib import Path

import pytest

from sps_jax import datasets

FOLDERS = {
    "femnist": "femnist",
    "blog_feedback": "blogfeedback",
    "a9a": "libsvm",
    "mushrooms": "libsvm",
    "cifar10": "cifar10",
    "shakespeare": "tiny_shakespeare",
}


@pytest.fixture(scope="session")
def originals():
    """The folder with the original file of each data set, by name; skips where they are absent."""
    shared = Path(__file__).parents[2].parent / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("the folder ../shared/data with copies of the public data sets is absent")
    return {name: shared / folder for name, folder in FOLDERS.items()}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def femnist(originals, data_dir):
    return datasets.femnist(manual_dir=originals["femnist"], data_dir=data_dir)


@pytest.fixture(scope="session")
def blog_feedback(originals, data_dir):
    return datasets.blog_feedback(manual_dir=originals["blog_feedback"], data_dir=data_dir)
