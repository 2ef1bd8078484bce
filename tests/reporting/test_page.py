"""The page: one file, nothing beside it, nothing unescaped, and whole when parts are missing."""

import html.parser
import re

import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.control import ControlProblem, least_squares
from hjcontrol.networks import Dense
from hjcontrol.reporting import report
from hjcontrol.reporting.html import inline
from tests.reporting.pieces import certificate, judged, problem, solution


class Reader(html.parser.HTMLParser):
    """Open elements, addresses and alternative texts of a page."""

    EMPTY = ("meta", "link", "path", "use", "image", "rect")

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.alts, self.names = [], [], [], set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        attributes = dict(attrs)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        assert tag != "img", "pictures are SVG, in the ink of the page"
        if tag == "svg":
            self.alts.append(attributes.get("aria-label"))
            assert attributes["role"] == "img"
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in self.EMPTY:
            return
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def solved():
    return solution(label="one"), solution(label="two", result="max_steps_reached")


def written(tmp_path, *args, **kwargs):
    path = report(tmp_path / "report.html", *args, **kwargs)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Reader(text)
    assert not page.open
    return text, page


def test_everything_on_one_page(tmp_path, solved):
    one, two = solved
    x = np.asarray(one.problem.inputs)
    text, page = written(
        tmp_path,
        {"one": one, "two": two, "small": solution(problem(n=5), label="small")},
        certificates={"one": certificate(), "two": certificate(verdict="consistent")},
        comparisons={"one against two": "the same"},
        test=(x, np.asarray(one.problem.targets)),
        classes=["x", "y", "z"],
        tables={"Asked": {"num_samples": 12, "ridge": 1e-3, "target": None}},
        command="hjcontrol crosscheck --data 'a b.csv'",
        verdict="exact",
    )
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "script" not in page.names
    assert "http" not in re.sub(r"data:[^\"]*|xmlns(:xlink)?=\"[^\"]*\"", "", text)
    assert (
        len(page.alts) == 2 + 2 + 2 + 1 + 1
    )  # two problems' curves, heat maps, ensemble, confusion
    assert all(page.alts)
    for words in ("max steps reached", "Raise `max_steps`", "one against two", "num samples"):
        assert words in text
    assert "hjcontrol crosscheck --data &#x27;a b.csv&#x27;" in text
    assert "&lt;b&gt;not bold&lt;/b&gt;" in text


def test_what_a_user_named_is_escaped(tmp_path, solved):
    evil = "<script>alert(1)</script>\"'&"
    text, page = written(
        tmp_path,
        {evil: solved[0]},
        certificates={evil: certificate()},
        comparisons={evil: evil},
        tables={evil: {evil: evil}},
        classes=[evil, evil, evil],
        title=evil,
        command=evil,
        notice=evil,
    )
    assert "script" not in page.names
    assert "<script>" not in text


def test_conditions_of_optimality_are_a_table_and_a_picture(tmp_path):
    found = {"good": judged(), "bad": judged(value=2e-3), "short": judged(stages=2)}
    text, page = written(tmp_path, {}, certificates=found)
    assert len(page.alts) == 2  # two stages are a row of the table, no picture
    assert all(page.alts)
    assert text.count('class="verdict bad">✗ violated') == 1
    assert text.count('class="verdict good">✓ holds') == 5
    for cell in (
        '<td class="number">0.002</td>',
        "≤ 1.0e−06",
        "≥ −1.0e−06",
        '<td class="number">−0.1</td>',
        "stage 4 (&lt;i&gt;mine&lt;/i&gt;)",
    ):
        assert cell in text
    assert [text.count(f">{v}</span>") for v in ("strict minimum", "not optimal")] == [2, 1]
    assert "Optimality:" not in text  # and not once more as plain text
    assert "Optimality:" in str(found["good"])


def test_an_interrupted_run_has_a_page(tmp_path, solved):
    text, page = written(tmp_path, {}, notice="Interrupted")
    assert "Interrupted" in text
    assert not page.alts
    text, page = written(tmp_path, solved[0], notice="Interrupted")
    assert len(page.alts) == 3


def test_solutions_of_one_method_get_names(tmp_path, solved):
    text, _ = written(tmp_path, [solved[0], solved[0]])
    assert "one 2" in text


def test_a_regression_has_no_classes(tmp_path):
    rng = np.random.default_rng(0)
    p = ControlProblem(
        [Dense(2, 2), Dense(2, 2)],
        jnp.asarray(rng.normal(size=(6, 2))),
        jnp.asarray(rng.normal(size=(6, 2))),
        terminal=least_squares,
    )
    text, page = written(tmp_path, solution(p))
    assert "Confusion" not in text
    assert len(page.alts) == 3


def test_a_full_disk_leaves_the_old_page(tmp_path, solved, monkeypatch):
    written(tmp_path, {}, title="old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        report(tmp_path / "report.html", solved[0])
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert "<title>old</title>" in (tmp_path / "report.html").read_text()


def test_a_picture_says_how_narrow_it_may_become():
    drawn = inline('<svg height="200pt" width="400pt"><g id="a"/></svg>', "f1-", "a & b")
    assert drawn.startswith('<svg role="img" aria-label="a &amp; b" style="--least: 260pt" ')
    assert 'id="f1-a"' in drawn
    assert "--least" not in inline('<svg viewBox="0 0 4 4"></svg>', "f1-", "")
