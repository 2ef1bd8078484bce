"""Plots return axes that hold the data, and leave matplotlib's global state alone."""

import re
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest

from hjcontrol.control import History
from hjcontrol.networks import HeadTable
from hjcontrol.reporting.components import Components
from hjcontrol.reporting.plots import (
    agreement,
    confusion,
    convergence,
    ensemble,
    fitted,
    heads,
    minimum_gaps,
    new_axes,
    svg,
)


def width(axes):
    """Width of the picture in CSS pixels; its ink is the text's, and it has no background."""
    text = svg(axes)
    xml.etree.ElementTree.fromstring(text)
    assert "#1b1f24" not in text.lower()
    assert "#ffffff" not in text[: text.find("<g id=")]
    return float(re.search(r'width="([\d.]+)pt"', text)[1]) * 96 / 72


@pytest.mark.parametrize("quantity", ["objective", "stationarity"])
def test_convergence_draws_every_solver(quantity):
    falling = 10.0 ** -np.arange(5)
    histories = {
        "a": History(np.arange(5.0), falling, falling**2),
        "b": History(np.zeros(1), np.array([np.nan]), np.array([0.0])),
    }
    ax = convergence(histories, quantity)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), getattr(histories["a"], quantity))
    assert svg(ax).startswith("<svg ")


def test_convergence_of_nothing():
    assert width(convergence({}, "objective")) > 0


@pytest.mark.parametrize("span", [1.3, 3.0, 20.0, 90.0])
def test_an_axis_under_two_decades_has_plain_numbers(span):
    seconds = 0.017 * np.geomspace(1, span, 9)
    history = History(seconds, np.geomspace(2, 1, 9), np.geomspace(1, 1e-9, 9))
    ax = convergence({"a": history}, "objective")
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    shown = [t.get_text() for t in ax.get_xticklabels()]
    inside = [s for s, x in zip(shown, ax.get_xticks(), strict=True) if low <= x <= high]
    assert len(inside) >= 3
    assert all(float(s) > 0 for s in inside)


def test_a_bound_is_a_line():
    history = History(np.arange(1.0, 4.0), np.array([3.0, 2.0, 1.1]), np.ones(3))
    ax = convergence({"a": history}, "objective", bound=1.0)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names == ["a", "no weights are below"]
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), [1.0, 1.0])


@pytest.mark.parametrize("features", [1, 2])
def test_fitted_functions_are_drawn_over_the_samples(features):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, features)), rng.normal(size=9)
    sides = [np.linspace(0, 1, 5)] * features
    values = {"convex": np.ones((5,) * features), "gradient": np.zeros((5,) * features)}
    ax = fitted(x, y, sides, values)
    assert width(ax) > 0
    assert len(ax.figure.axes) == (1 if features == 1 else 3)


def test_agreement_shows_powers_of_ten_and_exact_zeros():
    ax = agreement({"a|b": [1e-16, 0.0, np.nan], "a|finite_difference": [1e-9, 1e-3]})
    grid = ax.images[0].get_array()
    np.testing.assert_allclose(np.asarray(grid[0, :2]), [-16, -17])
    assert [t.get_text() for t in ax.texts] == ["-16", "0", "-9", "-3"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a | b", "a | finite difference"]


def test_a_deep_chain_keeps_its_ticks_apart():
    ax = agreement({"a|b": np.full(257, 1e-15)})
    assert len(ax.get_xticks()) <= 17
    assert not ax.texts
    assert width(ax) < 1500


def test_gaps_of_all_sizes_are_drawn():
    exact = np.array([np.nan, 0.0, 1e-12, np.inf])
    sampled = np.array([1e-3, 0.0, 1e-9, 1e-2])
    ax = minimum_gaps(exact, sampled, 1e-6)
    shown = [line.get_ydata() for line in ax.lines]
    np.testing.assert_array_equal(shown[0], [np.nan, 1e-17, 1e-12, 0.3])
    np.testing.assert_array_equal(shown[1], [1e-3, 1e-17, 1e-9, 1e-2])
    np.testing.assert_array_equal(shown[2], [1e-6, 1e-6])
    assert len(minimum_gaps(np.full(4, np.nan), sampled, 1e-6).lines) == 2
    assert width(ax) < 700


@pytest.mark.parametrize("classes", [0, 2, 12])
def test_ensemble_shares_its_axes(classes):
    points = tuple(np.random.default_rng(k).normal(size=(9, 2)) * (k + 1) for k in range(4))
    labels = np.arange(9) % classes if classes else None
    shown = Components((1, 3, 5, 7), points, (0.5, 0.25))
    axes = ensemble(shown, labels, [f"c{i}" for i in range(classes)], 8)
    visible = [ax for ax in axes.flat if ax.get_visible()]
    assert len(visible) == 4
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in visible}) == 1
    assert visible[1].get_title() == "depth 3 of 8"
    assert width(axes.flat[0]) > 0


@pytest.mark.parametrize("count", [3, 20])
def test_heads_are_drawn_block_by_head(count):
    values = np.random.default_rng(0).uniform(size=(5, 2, count))
    values[1, 0, 0] = 1000.0  # one odd head leaves the others their contrast
    axes = heads(HeadTable(*values))
    for ax, k in zip(axes.flat, (0, 4, 1, 2), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), values[k])
        assert ax.images[0].get_clim()[1] < 1000
        assert len(ax.texts) == (2 * count if count <= 16 else 0)
    assert width(axes[0, 0]) > 0


@pytest.mark.parametrize("count", [2, 30])
def test_confusion_into_axes_of_the_caller(count):
    matrix = 3 * np.eye(count, dtype=int)
    matrix[0] = 0  # a class without test samples
    mine = new_axes()
    ax = confusion(matrix, [f"a long class name {i}" for i in range(count)], ax=mine)
    assert ax is mine
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert ax.get_xticklabels()[0].get_text().endswith("…")


def test_pyplot_is_never_imported():
    code = (
        "import sys; from hjcontrol.reporting.plots import agreement, svg\n"
        "assert 'matplotlib' not in sys.modules\n"
        "svg(agreement({'a|b': [1e-9]}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
