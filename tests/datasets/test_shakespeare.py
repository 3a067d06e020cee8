import numpy as np
import pytest

from sps_jax import datasets
from sps_jax.datasets.shakespeare import by_role, windows


@pytest.fixture(scope="module")
def shakespeare(originals, tmp_path_factory):
    return datasets.shakespeare(manual_dir=originals["shakespeare"], data_dir=tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def play(originals):
    return (originals["shakespeare"] / "input.txt").read_text(encoding="ascii")


def text_of(shakespeare, role):
    return "".join(shakespeare.vocabulary[place] for place in shakespeare.texts[shakespeare.roles.index(role)])


def test_has_the_known_shape(shakespeare, play):
    assert shakespeare.vocabulary == "".join(sorted(set(play))) and len(shakespeare.vocabulary) == 65
    assert len(shakespeare.roles) == len(shakespeare.texts) == len(set(shakespeare.roles)) == 309
    assert sum(len(text) >= 1000 for text in shakespeare.texts) == 141
    assert all(text.dtype == np.int32 and text.ndim == 1 for text in shakespeare.texts)


@pytest.mark.slow
def test_every_line_is_spoken_once(shakespeare, play):
    """As many lines of each content as in the file, less the lines with names and the empty ones."""
    spoken = sorted(line for role in shakespeare.roles for line in text_of(shakespeare, role).splitlines())
    lines = play.split("\n")
    names = {f"{role}:" for role in shakespeare.roles}
    heads = [i for i, line in enumerate(lines) if line in names and (i == 0 or not lines[i - 1])]
    kept = [line for i, line in enumerate(lines) if line and i not in set(heads)]
    assert spoken == sorted(kept)


def test_first_speeches(shakespeare):
    assert shakespeare.roles[:2] == ("First Citizen", "All")
    assert text_of(shakespeare, "First Citizen").startswith(
        "Before we proceed any further, hear me speak.\nYou are all resolved rather to die than to famish?\n"
    )


def test_speeches_of_a_role_are_joined():
    play = "A:\none\ntwo\n\nB:\nthree\n\nC:\n\n\nA:\nfour: and\nE:\n"
    assert by_role(play) == {"A": "one\ntwo\nfour: and\nE:\n", "B": "three\n", "C": ""}


@pytest.mark.parametrize(("characters", "expected"), [(1, 0), (3, 0), (4, 1), (6, 1), (7, 2)])
def test_windows_cover_the_text_once(characters, expected):
    text = np.arange(characters, dtype=np.int32)
    x, y = windows(text, 3)
    assert x.shape == y.shape == (expected, 3)
    np.testing.assert_array_equal(x.ravel(), text[: 3 * expected])
    np.testing.assert_array_equal(y, x + 1)


def test_changed_file(originals, tmp_path):
    (tmp_path / "input.txt").write_bytes((originals["shakespeare"] / "input.txt").read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"input\.txt is truncated or corrupted: its sha256 is [0-9a-f]{64}, expected"):
        datasets.shakespeare(manual_dir=tmp_path, data_dir=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("dataset_info.json"))
