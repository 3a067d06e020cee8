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
