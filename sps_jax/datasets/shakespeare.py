"""Tiny Shakespeare: 40,000 lines of the plays by speaking role; roles are natural clients.

A. Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015; the text that TensorFlow Datasets
calls ``tiny_shakespeare``. One client per role follows McMahan et al. 2017, arXiv 1602.05629.
"""

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from sps_jax.datasets.prepare import Source, check_sha256, described, locate, prepared, records, unix_text

SOURCE = Source(
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    ("input.txt",),
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "public domain",
    1.1,
)


class Shakespeare(NamedTuple):
    """``vocabulary``: the 65 characters, sorted; ``roles``: 309 names; ``texts``: one array per role.

    A text is (T,) int32, the indices in the vocabulary of all that the role speaks, with a newline after every line.
    """

    vocabulary: str
    roles: tuple[str, ...]
    texts: tuple[np.ndarray, ...]


def shakespeare(
    *, manual_dir: str | os.PathLike[str] | None = None, data_dir: str | os.PathLike[str] | None = None
) -> Shakespeare:
    """Return Tiny Shakespeare, roles in order of first appearance; 141 of them speak 1,000 characters or more.

    A speech is a line with the role's name and a colon, then the lines up to the next empty one; names are not part of
    the texts. ``manual_dir`` holds ``input.txt``; it is read only if no prepared copy exists. ``data_dir``: see
    ``prepared``.

    Raises FileNotFoundError if the file is found neither there nor on the network; ValueError if it is damaged.
    """
    builder = prepared(SpsShakespeare, SOURCE, manual_dir=manual_dir, data_dir=data_dir)
    roles = records(builder, "train", "client")
    texts = [np.array(role["text"], np.int32) for role in roles]  # int32, because uint8 cannot index
    symbols = np.unique(np.concatenate(texts))
    places = np.zeros(symbols[-1] + 1, np.int32)
    places[symbols] = np.arange(len(symbols))
    names = tuple(bytes(role["role"]).decode() for role in roles)
    return Shakespeare("".join(map(chr, symbols)), names, tuple(places[text] for text in texts))


def windows(text: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return examples of next-character prediction: ``x`` and ``y`` (m, length), ``y`` shifted by one character.

    ``text`` is (T,). The windows follow each other without overlap; m = floor((T - 1) / length), and an incomplete last
    window is left out.
    """
    m = (len(text) - 1) // length
    return text[: m * length].reshape(m, length), text[1 : m * length + 1].reshape(m, length)


class SpsShakespeare(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # its base has no types
    """One record per role."""

    name = "sps_shakespeare"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # digests are checked here; TFDS's own table needs importlib_resources, which it does not declare
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {SOURCE.files[0]} from {SOURCE.url} into this folder."

    def _info(self) -> tfds.core.DatasetInfo:
        return described(self, SOURCE, client=((), np.int32), role=((None,), np.uint8), text=((None,), np.uint8))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        path = locate(SOURCE, dl_manager, self.name)
        content = unix_text(path.read_bytes())
        check_sha256(content, SOURCE, path)
        return {"train": self._generate_examples(by_role(content.decode("ascii")))}

    def _generate_examples(self, texts: dict[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for client, (role, text) in enumerate(texts.items()):
            characters = [np.array(list(part.encode("ascii")), np.uint8) for part in (role, text)]
            yield client, {"client": client, "role": characters[0], "text": characters[1]}


def by_role(play: str) -> dict[str, str]:
    """Return role -> all that it speaks, roles in order of first appearance."""
    texts: dict[str, str] = {}
    for speech in re.split(r"\n{2,}", play.strip("\n")):
        role, _, lines = f"{speech}\n".partition(":\n")
        texts[role] = texts.get(role, "") + lines
    return texts
