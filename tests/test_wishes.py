"""Paths, pictures, checkpoints and files as users give them: heard, or refused in one sentence."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax import datasets, results
from sps_jax.algorithms import ALGORITHMS
from sps_jax.datasets.libsvm import published
from sps_jax.datasets.prepare import unix_text
from sps_jax.problems import quadratic
from sps_jax.results import plots
from sps_jax.runs import checkpoint
from sps_jax.simulation.sweep import grid, sweep

SMALL = ("--problem", "quadratic", "--clients", 2, "--rounds", 2, "--algorithm", "gd", "--quiet")
RECORDS = {"gd": [[{"round": r, "uplink_bits": 8 * r, "test_accuracy": r / 4} for r in (1, 2)]]}


# --- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tilde_is_the_home_folder_in_every_path(command, tmp_path, monkeypatch):
    """A shell leaves the tilde of ``--out=~/x`` as it is; no command may make a folder of that name."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert command("run", *SMALL, "--checkpoint-every", 1, "--out=~/x").returncode == 0
    assert command("resume", "~/x").returncode == 0
    assert command("sweep", *SMALL, "--stepsize", "0.1", "--out=~/sweep").returncode == 0
    assert "gd" in command("table", "~/x").stdout
    assert command("plot", "~/x", "--out=~/fig.pdf").returncode == 0
    assert {path.name for path in home.iterdir()} >= {"x", "sweep", "fig.pdf"}
    assert not (tmp_path / "~").exists()
    assert len(results.load("~/x")) == 2
    checkpoint.save("~/kept", 1, {"x": np.ones(2)})
    assert (home / "kept" / "1").is_dir() and checkpoint.restore("~/kept", {"x": np.ones(2)})["x"].tolist() == [1, 1]
    refused = command("run", *SMALL, "--out=~nobody-of-this-name/x")
    assert refused.returncode == 2 and "home folder" in refused.stderr and "Traceback" not in refused.stderr


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sweep", "--sparsity", "--rounds", 2), "--sparsity has no value; give at least one, or leave it out"),
        (("run", "--rounds", 2, "--prune-leaves"), "--prune-leaves has no value; give at least one, or leave it out"),
        (
            ("run", "--algorithm", "gd", "--sparsity", 0.5),
            "--sparsity is not an option of the chosen problem and algorithms (quadratic, gd)",
        ),
        (
            ("sweep", "--algorithm", "gd", "--sparsity", 0.5, 0.9),
            "--sparsity is not an option of the chosen problem and algorithms (quadratic, gd)",
        ),
        (
            ("run", "--algorithm", "gd", "--structure", "rows"),
            "--structure is not an option of the chosen problem and algorithms (quadratic, gd)",
        ),
        (
            ("run", "--algorithm", "fedavg", "--no-prune-ends"),
            "--prune-ends is not an option of the chosen problem and algorithms (quadratic, fedavg)",
        ),
        (
            ("run", "--algorithm", "gd", "--local-steps", 5),
            "--local-steps is not an option of the chosen problem and algorithms (quadratic, gd)",
        ),
        (
            ("sweep", "--algorithm", "gd", "--prob", 0.5),
            "--prob is not an option of the chosen problem and algorithms (quadratic, gd)",
        ),
    ],
)
def test_an_option_that_nothing_hears_is_refused(arguments, says, command, tmp_path):
    """An option without a value, and one that no method of the run has; neither may be passed over."""
    done = command(*arguments, "--problem", "quadratic", "--quiet")
    assert done.returncode == 2 and done.stderr == f"sps-jax: error: {says}\n" and not list(tmp_path.iterdir())


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("fig.pdf", b"%PDF"),
        ("fig.svg", b"<?xml"),
        ("fig.png", b"\x89PNG"),
        ("fig.PNG", b"\x89PNG"),
        ("fig", b"\x89PNG"),
    ],
)
def test_a_picture_has_the_format_of_its_suffix(name, begins, tmp_path):
    """Curves and maps, twice the same bytes; without a suffix a PNG, which its name then says."""
    path = tmp_path / name
    written = path if path.suffix else path.with_suffix(".png")
    for draw in (
        lambda: plots.curves(RECORDS, "test_accuracy", "uplink_bits", "title", path),
        lambda: plots.heat_map(np.ones((1, 2)), ("a", [1]), ("b", [1, 2]), "title", path),
    ):
        draw()
        assert written.read_bytes().startswith(begins)


@pytest.mark.parametrize("name", ["fig.pdf", "fig.svg", "fig.png"])
def test_the_same_records_are_the_same_picture(name, tmp_path):
    """Without a date, and with the same names of shapes."""
    pictures = []
    for _ in range(2):
        plots.curves(RECORDS, "test_accuracy", "uplink_bits", "title", str(tmp_path / name))
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1] and b"Date" not in pictures[0] and b"<dc:date>" not in pictures[0]


@pytest.mark.parametrize("name", ["fig.pgf", "fig.raw", "fig.rgba", "fig."])
def test_what_no_viewer_opens_is_no_picture(name, tmp_path):
    with pytest.raises(ValueError, match=rf"unknown format of the picture {name}"):
        plots.curves(RECORDS, "test_accuracy", "uplink_bits", "title", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_format_that_is_none_is_refused_before_anything_is_read_or_drawn(command, tmp_path):
    with pytest.raises(
        ValueError, match=r"unknown format of the picture fig\.pgn, its suffix 'pgn': did you mean 'png'"
    ):
        plots.curves(RECORDS, "test_accuracy", "uplink_bits", "title", tmp_path / "fig.pgn")
    refused = command("plot", "nowhere", "--out", "fig.pdff")
    assert refused.returncode == 2 and "did you mean 'pdf'" in refused.stderr and not list(tmp_path.iterdir())


# --- checkpoints --------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "a b")
TREES = {
    "keys": {"threefry": jax.random.key(3, impl="threefry2x32"), "rbg": jax.random.key(3, impl="rbg")},
    "many keys": jax.random.split(jax.random.key(0), 3),
    "numbers": {"int": 3, "float": 0.5, "bool": True, "complex": 1 + 2j, "array": np.arange(3)},
    "pair": Pair(np.float32(2), [jnp.bfloat16(1.5), jnp.zeros((0, 3)), jnp.int32(4)]),
    "nothing": {"none": None, "empty": (), "more": []},
    "no entries": {"x": np.zeros((0, 2))},
    "a number alone": 7,
    "numbers of NumPy": {
        "float32": np.float32(2),
        "float64": np.float64(2),
        "int": np.int16(2),
        "bool": np.bool_(True),
    },
    "small": {"bfloat16": np.ones(3, jnp.bfloat16), "int4": jnp.ones(3, jnp.int4), "f8": jnp.ones(3, jnp.float8_e5m2)},
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_as_it_was(name, tmp_path):
    """Keys as keys of their generator, Python's numbers as such, all else as arrays of the same dtype."""
    tree = TREES[name]
    checkpoint.save(tmp_path / "kept", 1, tree)
    found = checkpoint.restore(tmp_path / "kept", tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for one, like in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert isinstance(one, np.generic) == isinstance(like, np.generic)
        if hasattr(like, "dtype"):
            assert one.dtype == like.dtype and one.shape == like.shape
        else:
            assert type(one) is type(like)
        data = (
            jax.random.key_data
            if jax.dtypes.issubdtype(getattr(like, "dtype", float), jax.dtypes.prng_key)
            else np.asarray
        )
        np.testing.assert_array_equal(data(one), data(like))


@pytest.mark.parametrize(
    ("leaf", "what"),
    [
        ("text", "of type str"),
        (print, "of type builtin"),
        (np.array(["a"]), "an array of <U1"),
        (10**30, f"the integer {10**30}, which does not fit in int64"),
        (2**63, f"the integer {2**63}"),
        (np.zeros(2, np.longdouble), f"an array of {np.dtype(np.longdouble)}"),
        (np.zeros(2, "f4,i4"), "an array of "),
        (np.zeros(2, jnp.uint4), "an array of uint4"),
        (np.zeros(2, "m8[s]"), "an array of timedelta"),
    ],
)
def test_a_leaf_that_cannot_be_kept_is_named(leaf, what, tmp_path):
    with pytest.raises(ValueError, match=rf"\['odd'\] is {what}.*a checkpoint holds arrays of numbers"):
        checkpoint.save(tmp_path / "kept", 1, {"fine": np.ones(2), "odd": leaf})


KEYS = {
    "rbg": jax.random.key(3, impl="rbg"),
    "unsafe_rbg": jax.random.key(3, impl="unsafe_rbg"),
    "none": np.ones(4, "u4"),
}


@pytest.mark.parametrize(("kept", "asked"), [(a, b) for a in KEYS for b in KEYS])
def test_a_key_comes_back_as_one_of_its_own_generator(kept, asked, tmp_path):
    """Both generators' keys are four integers of 32 bits, as are four integers that are no key."""
    checkpoint.save(tmp_path / "kept", 1, {"key": KEYS[kept]})
    if kept == asked:
        assert checkpoint.restore(tmp_path / "kept", {"key": KEYS[asked]})["key"].dtype == KEYS[kept].dtype
        return
    what = {"none": "no random key"}
    says = (
        rf"\['key'\] is {what.get(kept, f'a key of {kept}')}, but {what.get(asked, f'a key of {asked}')} was requested"
    )
    with pytest.raises(checkpoint.Unreadable, match=says):
        checkpoint.restore(tmp_path / "kept", {"key": KEYS[asked]})


def test_a_tree_may_be_asked_for_by_abstract_leaves(tmp_path):
    tree = {"key": jax.random.key(3, impl="rbg"), "x": np.arange(3.0)}
    checkpoint.save(tmp_path / "kept", 1, tree)
    found = checkpoint.restore(
        tmp_path / "kept", jax.eval_shape(lambda: {"key": tree["key"], "x": jnp.zeros(3)}) | {"x": tree["x"]}
    )
    np.testing.assert_array_equal(jax.random.key_data(found["key"]), jax.random.key_data(tree["key"]))


def test_an_order_of_bytes_is_no_other_array(tmp_path):
    """What was written on one machine is read on another; what comes back has the machine's own order."""
    checkpoint.save(tmp_path / "kept", 1, {"x": np.arange(3, dtype=">f4")})
    for like in (">f4", "<f4"):
        found = checkpoint.restore(tmp_path / "kept", {"x": np.zeros(3, like)})["x"]
        np.testing.assert_array_equal(found, [0, 1, 2])
        assert found.dtype == np.float32 and found.dtype.isnative


# --- files and grids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["as it is", "crlf", "cr", "bom", "no newline"])
def test_a_text_is_the_same_whoever_wrote_its_lines(change):
    text = b"1 1:0.5\n-1 2:1\n"
    changed = {
        "as it is": text,
        "crlf": text.replace(b"\n", b"\r\n"),
        "cr": text.replace(b"\n", b"\r"),
        "bom": b"\xef\xbb\xbf" + text,
        "no newline": text[:-1],
    }[change]
    assert unix_text(changed) == text


@pytest.mark.parametrize("change", ["comment", "comment behind", "empty lines", "no blank at the end", "tabs"])
def test_a_libsvm_text_is_the_same_whoever_wrote_it(change):
    """As it is published, with a blank behind each row."""
    text = b"1 1:0.5 \n-1 2:1 4:1 \n"
    changed = {
        "comment": b"# from another tool\n" + text,
        "comment behind": text.replace(b" \n", b" # row\n"),
        "empty lines": text.replace(b"\n", b"\n\n"),
        "no blank at the end": text.replace(b" \n", b"\n"),
        "tabs": text.replace(b" ", b"\t"),
    }[change]
    assert changed != text and published(changed) == text


@pytest.mark.parametrize(
    "use",
    [
        lambda path: results.load(path),
        lambda path: checkpoint.save(path, 1, {"x": 1}),
        lambda path: plots.curves(RECORDS, "test_accuracy", "uplink_bits", "title", path),
        lambda path: datasets.libsvm("a9a", manual_dir=path, data_dir=path),
    ],
)
def test_a_home_of_nobody_is_named_in_python_too(use):
    with pytest.raises(ValueError, match=r"~nobody-of-this-name/x\.png begins with ~, but"):
        use("~nobody-of-this-name/x.png")


def test_an_empty_grid_is_said_to_be_empty():
    with pytest.raises(ValueError, match="stepsize has no value, so the grid has no points"):
        grid(stepsize=[], seed=range(2))
    with pytest.raises(ValueError, match="no points to sweep over"):
        sweep(ALGORITHMS["gd"], quadratic(clients=2), [], rounds=1)
