"""Pictures: what tells the methods apart, and what the axes say."""

import pytest

from sps_jax.results import plots


@pytest.fixture
def drawn():
    """``drawn(methods, against)``: the axes of the picture of that many methods."""

    def draw(methods, against="uplink_bits"):
        records = [{"uplink_bits": 10.0**k, "round": k, "test_accuracy": k / 10} for k in range(1, 9)]
        runs = {f"method {i}": [records] for i in range(methods)}
        return plots.curves(runs, "test_accuracy", against, "title").axes[0]

    return draw


def test_lines_are_told_apart_by_colour_and_without(drawn):
    lines = drawn(24).lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 24
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 24
    assert len({line.get_marker() for line in lines[:8]}) == 8


def test_axes_have_units(drawn):
    axes = drawn(2)
    assert axes.get_ylabel() == "test accuracy, fraction of examples"
    axes.figure.canvas.draw()
    assert any("bit" in label.get_text() for label in axes.get_xticklabels())
    assert drawn(2, "round").get_xlabel() == "communication rounds"


def seeds(*levels):
    return [[{"round": k, "test_accuracy": level + k / 10} for k in (1, 2)] for level in levels]


@pytest.mark.parametrize(
    ("band", "words", "half"),
    [("interval", "mean of 2 seeds; band: 95 % t-interval", 12.7062 * 0.1), ("range", "smallest to largest", 0.1)],
)
def test_the_picture_says_what_the_band_is(band, words, half):
    """Two seeds 0.2 apart: deviation 0.2 / sqrt(2), so the interval is 12.7062 times 0.1 each way, the range 0.1."""
    look = plots.Look(band=band)
    axes = plots.curves({"a": seeds(0.1, 0.3)}, "test_accuracy", "round", "title", look=look).axes[0]
    assert words in axes.get_legend().get_title().get_text()
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.max() - heights.min() == pytest.approx(2 * half + 0.1, rel=1e-4)
    low, high = axes.get_ylim()
    assert 0.1 < low < 0.2 and 0.5 < high < 0.6  # the seeds', which a long interval would flatten


def test_one_seed_has_no_band(drawn):
    axes = drawn(2)
    assert not axes.collections and not axes.get_legend().get_title().get_text()


@pytest.mark.parametrize(("columns", "width", "size"), [(None, 7, 10), (1, 3.25, 8), (2, 6.75, 8)])
def test_pictures_for_papers(columns, width, size, tmp_path):
    """As wide as its columns, without title, with fonts that conferences take."""
    look, path = plots.Look(columns=columns, titled=columns is None), tmp_path / "fig.pdf"
    figure = plots.curves({"a": seeds(0.1)}, "test_accuracy", "round", "A title", path, look)
    assert figure.get_figwidth() == width
    assert figure.axes[0].xaxis.label.get_size() == size
    assert figure.axes[0].get_title() == ("A title" if columns is None else "")
    content = path.read_bytes()
    assert content.startswith(b"%PDF") and b"/Type3" not in content and b"/CIDFontType2" in content
    assert plots.Look(columns, font_size=6).points == 6


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (plots.Look(columns=3), "columns must be 1 or 2"),
        (plots.Look(font_size=-1), "font_size must be from 1 to 100 points, not -1"),
        (plots.Look(band="rnge"), "did you mean 'range'"),
    ],
)
def test_a_look_that_is_none(look, message):
    with pytest.raises(ValueError, match=message):
        plots.curves({"a": seeds(0.1)}, "test_accuracy", "round", "title", look=look)


def test_the_bar_of_colours_has_a_label():
    figure = plots.heat_map([[1.0, 2.0]], ("a", [1]), ("b", [1, 2]), "title", label="test accuracy")
    assert figure.axes[1].get_ylabel() == "test accuracy"
