"""Progress and tables: a live line on a terminal, plain lines elsewhere, markup never read."""

import io

import pytest
from rich.console import Console

from hjcontrol._ground import progress as follow
from hjcontrol.cli.terminal import Screen

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
