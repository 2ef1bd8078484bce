"""Progress and tables: a live line on a terminal, plain lines elsewhere, markup never read."""

import io
import sys

import jax
import pytest
from rich.console import Console

from hjcontrol._ground import progress as follow
from hjcontrol._ground.record import Picture, Record
from hjcontrol.cli.terminal import Screen
from hjcontrol.solvers import solve
from tests.reporting.pieces import Still, problem, solution

pytestmark = pytest.mark.any_precision


def screen(tty):
    return Screen(Console(file=io.StringIO(), force_terminal=tty, width=100, highlight=False))


@pytest.mark.parametrize("tty", [True, False])
def test_progress_shows_the_last_figures(tty):
    shown = screen(tty)
    with shown.progress("newton") as progress:
        progress(1, 2.5, 1e-1, 0.1)
        progress(7, 1.25, 3e-13, 4.2)
    text = shown.console.file.getvalue()
    for words in ("newton", "step     7", "J = 1.25", "3.00e-13", "4.2 s"):
        assert words in text


def test_plain_lines_are_seconds_apart(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    shown = screen(False)
    with shown.progress("newton") as progress:
        for k in range(100):
            now[0] = 0.2 * k
            progress(k, 1.0, 1.0, now[0])
    assert len(shown.console.file.getvalue().splitlines()) <= 7


def test_long_paths_and_brackets_stay_whole():
    shown = screen(False)
    path = "[red]/" + "long/" * 60 + "result.json"
    shown.line(path)
    shown.table("[b]", [{"[i]": "[u]"}])
    text = shown.console.file.getvalue()
    assert path in text.splitlines()
    assert "[u]" in text


def test_a_solve_that_shows_its_progress_writes_whole_lines_to_standard_error(capsys):
    solution(steps=4)
    assert capsys.readouterr() == ("", "")
    solve(problem(), Still(steps=4), key=jax.random.key(0), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    assert err.endswith("\n")
    assert "still" in err
    assert "step     4   J = 0.5" in err


def test_progress_does_without_rich(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with follow.shown("newton") as say:
        say("step 7")
    assert capsys.readouterr().err == "newton\nstep 7\n"


def test_a_part_that_is_good_is_a_line_on_the_terminal(capsys):
    good = Record("fine", "all is well", verdict="exact", tone="good", facts={"gap": 1e-16})
    bad = Record("wrong", "not well", verdict="refuted", tone="bad", facts={"gap": 0.5})
    picture = Record("a picture", "", pictures=(Picture("caption", "alt", lambda: None),))
    shown = screen(False)
    shown.answer(Record("whole", "two parts", detail=(good, bad, picture)), ["verdict: refuted"])
    text = shown.console.file.getvalue()
    assert "fine: all is well" in text
    assert "1e-16" not in text
    assert "gap  0.5" in text
    assert "picture" not in text
    assert text.endswith("\n\nverdict: refuted\n")


@pytest.mark.parametrize("how", [{"quiet": True}, {"aside": True}])
def test_nothing_is_shown_where_standard_output_is_the_results(how, capsys):
    shown = Screen(**how)
    shown.line("a line")
    shown.answer(Record("a", "record"), ["verdict: exact"])
    with shown.progress("newton") as progress:
        progress(1, 1.0, 1.0, 0.1)
    with shown.working("work", 60.0):
        pass
    assert capsys.readouterr() == ("", "")
