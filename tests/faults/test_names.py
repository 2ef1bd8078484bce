"""Names as they are: whatever a class, a column or a file is called, the page is written; and a picture
that fails leaves its place with the reason, never costing the work.
"""

import itertools
import json
import warnings
import xml.etree.ElementTree

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from hjcontrol._ground.record import Picture
from hjcontrol.cli import main
from hjcontrol.control import History
from hjcontrol.reporting import html, plots

NAMES = ["$a$", "$", "$\\frac{", "_hidden", "__", "\\", "a\\$b", "x\0", "\udcff", "漢字", "<b>&amp;",
         "{}", "%s", " ", "a\nb", "\x1b[31m", "é" * 40, "$x$$y"]  # fmt: skip
MATRIX = np.eye(3, dtype=int)
HISTORY = History(np.array([0.0, 1.0]), np.array([2.0, 1.0]), np.array([1.0, 0.1]))


@given(st.lists(st.sampled_from(NAMES), min_size=3, max_size=3))
@settings(max_examples=6)
@example(["$a$", "_hidden", "\udcff"])
@example(["$\\frac{", "x\0", "a\\$b"])
def test_class_names_never_break_a_picture(names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xml.etree.ElementTree.fromstring(plots.svg(plots.confusion(MATRIX, names)))


@pytest.mark.parametrize("name", ["$a$", "_x", "a\\$b", "a"])
def test_a_name_is_shown_as_it_is(name):
    axes = plots.convergence({name: HISTORY}, "objective")
    (entry,) = axes.get_legend().get_texts()
    axes.figure.canvas.draw()
    shown, math = entry._preprocess_math(entry.get_text())
    assert not math
    assert shown.strip() == name


def test_a_picture_that_fails_leaves_its_place_and_the_reason():
    def broken():
        raise RuntimeError("no <ink>")

    text = html.drawn(Picture("Convergence", "alt", broken), itertools.count())
    assert "could not be drawn: RuntimeError: no &lt;ink&gt;" in text
    assert "Convergence" in text


SMALL = 'data = "t.csv"\nsolver = "adam"\nmax-steps = 3\n[network]\nwidth = 2\ndepth = 1\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = ("$\\frac{", "_x")
    rows = [f'{i % 7},{i % 5},"{kinds[i % 2]}"' for i in range(16)]
    (tmp_path / "t.csv").write_text("$a_b$,_c,kind\n" + "\n".join(rows) + "\n")
    (tmp_path / "p.toml").write_text(SMALL)
    return tmp_path


def test_results_are_written_before_verification_and_before_the_report(here, monkeypatch, capsys):
    assert main(["solve", "p.toml"]) == 0
    html = (here / "solve" / "report.html").read_text()
    assert "could not be drawn" not in html

    def broken(*arguments, **options):
        raise RuntimeError("no paper")

    with monkeypatch.context() as patch:
        patch.setattr("hjcontrol.reporting.html.page", broken)
        assert main(["solve", "p.toml", "--out", "b"]) == 0
    assert "report.html could not be made (RuntimeError: no paper)" in capsys.readouterr().out
    assert json.loads((here / "b" / "result.json").read_text())["verdict"] is not None

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hjcontrol.verification.verify", interrupted)
        assert main(["solve", "p.toml", "--out", "c"]) == 130
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "the solution is kept (in c/result.json)" in err
    kept = ["report.html", "result.json", "solution.npz"]
    assert sorted(p.name for p in (here / "c").iterdir()) == kept
    assert json.loads((here / "c" / "result.json").read_text())["verdict"] is None
