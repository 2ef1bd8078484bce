"""Pictures of landscapes hold the data they are given, on a line and in the plane."""

import numpy as np
import pytest

from hjcontrol.analysis.bifurcation import bifurcation_diagram
from hjcontrol.layers import LSE
from hjcontrol.reporting.landscapes import animate, diagram, landscape
from hjcontrol.reporting.plots import svg

Y = np.array([-1.3, 0.0, 1.0])
CORNERS = np.array([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.6]])


@pytest.fixture(scope="module")
def line():
    return bifurcation_diagram(LSE(Y[:, None], -(Y**2) / 2), (0.1, 2.0))


@pytest.fixture(scope="module")
def plane():
    return bifurcation_diagram(LSE(CORNERS, np.zeros(3)), (0.3, 1.0), [[-2.0, -2.0], [2.0, 2.0]])


def test_the_diagram_shows_every_branch_and_fold(line):
    ax = diagram(line)
    assert len(ax.lines) == len(line.branches) + len(line.folds)
    assert len(ax.texts) == len(line.folds) == 1
    assert ax.get_xscale() == "log"
    assert svg(ax).startswith("<svg ")


def test_a_landscape_marks_its_critical_points(line, plane):
    ax = landscape(line, 0.15)
    marked = sum(len(drawn.get_xdata()) for drawn in ax.lines[1:])
    assert marked == len(line.at(0.15)[1]) == 3
    ax = landscape(plane, 0.5)
    assert sum(len(drawn.get_xdata()) for drawn in ax.lines) == len(plane.at(0.5)[1])
    assert "eps = 0.5" in ax.get_title()


def test_the_animation_is_one_gif_or_none(line, tmp_path):
    path = animate(line, tmp_path / "folds.gif", frames=3)
    assert path.read_bytes().startswith(b"GIF89a")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="frames >= 2"):
        animate(line, tmp_path / "none.gif", frames=1)
