"""Declarations: the table of the docs is theirs, and `select` reads them."""

from pathlib import Path

import pytest

import hjcontrol as hj
from hjcontrol.solvers import capability_table, select
from tests.solvers.problems import rings


def test_the_docs_hold_the_table():
    page = Path(__file__).parents[2] / "docs" / "solvers.md"
    assert page.read_text().endswith("\n\n" + capability_table())


def test_select_takes_what_can_treat_the_problem_and_says_why():
    free, ball = select(rings()), select(rings(control_set=hj.control.L2Ball(1.0)))
    group = select(rings(control_set=hj.control.ByLeaf(W=hj.control.GroupBall(1.0))))
    assert (free.name, ball.name, group.name) == ("newton", "direct", "adam")
    assert "vanishing row" in group.others["direct"]
    steps = hj.control.ByLeaf(b=hj.control.Nonnegative(), W=hj.control.Box(-1.0, 1.0))
    assert select(rings(control_set=steps)).name == "newton"
    assert "'bounds'; found a L2Ball" in ball.others["newton"]
    assert "line search" in ball.others["gradient"]
    assert str(free).startswith("newton")
    assert "chosen" in str(free)
    ends = hj.control.TerminalConstraint(lambda x, y: x)
    assert select(rings(terminal_constraint=ends)).name == "direct"
    with pytest.raises(ValueError, match=r"no solver can treat(.|\n)*augmented"):
        select(rings(terminal_constraint=ends, control_set=hj.control.Ternary()))
