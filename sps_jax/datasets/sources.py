"""Where the data sets come from: addresses, names of files, digests and terms of use."""

from typing import NamedTuple


class Source(NamedTuple):
    """One file on the network.

    ``url``: its official address. ``files``: the names (glob patterns) under which it is looked for in a
    ``manual_dir``. ``sha256``: the hexadecimal digest of its bytes, of the uncompressed text where a name ends in
    ``.bz2``; None where it is not known. ``licence``: the terms as the publisher states them. ``megabytes``: of the
    file, about.
    """

    url: str
    files: tuple[str, ...]
    sha256: str | None
    licence: str
    megabytes: float


_LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"

SOURCES: dict[str, Source] = {
    # The digest of the full file (814,277 images, 200 MB) is not known here, and a smaller file of whole writers is
    # as good a source: what is read is checked by its structure instead.
    "femnist": Source(
        "https://huggingface.co/datasets/flwrlabs/femnist/resolve/main/data/train-00000-of-00001.parquet",
        ("train-*.parquet",),
        None,
        "LEAF, BSD-2-Clause (https://leaf.cmu.edu); images from NIST Special Database 19, public domain",
        200,
    ),
    "blog_feedback": Source(
        "https://archive.ics.uci.edu/static/public/304/blogfeedback.zip",
        ("BlogFeedback.zip", "blogfeedback.zip"),
        "1ba74e5ad920f7cd037502b2968581cc695146a226a73eff52fe8ad875ed4bcf",
        "CC BY 4.0; K. Buza, UCI Machine Learning Repository, data set 304, doi 10.24432/C58S3F",
        2.6,
    ),
    "a9a": Source(
        _LIBSVM + "a9a",
        ("a9a", "a9a.txt", "a9a.bz2"),
        "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906",
        "none stated; LIBSVM Data, after UCI Adult",
        2.3,
    ),
    "mushrooms": Source(
        _LIBSVM + "mushrooms",
        ("mushrooms", "mushrooms.txt", "mushrooms.bz2"),
        "f39a4eb628dc61a7d43760815b061c9e497aa728ce1ad8bde57a09ef6043b538",
        "none stated; LIBSVM Data, after UCI Mushroom",
        0.9,
    ),
    # Its digest is that of the six batches inside, see cifar10.py: they may come in another gzip wrapper.
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        ("cifar-10-binary.tar.gz",),
        None,
        "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        170,
    ),
    "shakespeare": Source(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        ("input.txt",),
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "public domain",
        1.1,
    ),
}
