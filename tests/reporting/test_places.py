"""The table of places, and the user's lines: every verdict in words, all escaped, no file needed."""

import dataclasses

import numpy as np
import pytest

from hjcontrol.reporting.places import excerpts, place_table, printable, shade
from hjcontrol.verification.certificate import Certificate, Pair, Row
from hjcontrol.verification.naming import Source
from hjcontrol.verification.verdicts import ORDER, tone
from tests.reporting.test_page import written

EVIL = 'def $x_1$(a): return "<script>\\alpha" & a'


def row(verdict="refuted", file="", line=0, **other):
    facts = {
        "gap": 1e-2, "reach": 1.0, "live": 1.0, "rule": "rule", "kind": "custom_vjp",
        "iteration": None, "argument": 0, "parameter": "", "index": (2, 3), "shape": (4, 4),
        "arithmetic": "float64", "reason": "", "gaps": np.zeros(()), "reaches": np.zeros(()),
    }  # fmt: skip
    source = Source(file, line, "f", "scope", library=False)
    return Row(verdict=verdict, source=source, **(facts | other))


def of(*rows, pairs=(), notes=()):
    sizes = {"samples": 1, "stages": 1, "weights": 1, "leaves": 1, "places": 1, "dtype": "float64"}
    few = {"stationarity": 0.0, "feasibility": 0.0}
    return Certificate(tuple(rows), 1.0, None, 1e-6, sizes, pairs=pairs, notes=notes, **few)


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "$a_b$ <i>"
    folder.mkdir()
    path = folder / "m.py"
    path.write_text("\n".join(["# 1", "# 2", "# 3", "# 4", EVIL, "# 6", "# 7", "# 8", "# 9"]))
    return path


def test_every_verdict_has_its_words_and_colour(tmp_path):
    rows = [row(v, line=k) for k, v in enumerate(ORDER)]
    text, _ = written(tmp_path, {}, certificates={"all": of(*rows)}, verdict="no custom rule")
    for v in ORDER:
        assert f'<span class="verdict {tone(v)}">{v}</span>' in text
    style = text[text.index("<style>") : text.index("</style>")]
    assert all(f".verdict.{tone(v)}" in style for v in ORDER)
    assert {tone(v) for v in ORDER} == {"good", "partial", "bad"}


def test_the_style_sheet_is_no_text_of_a_users(tmp_path):
    text, _ = written(tmp_path, {})
    assert '"Segoe UI"' in text[: text.index("</style>")]  # escaped, the rule would be dropped


def test_the_offending_line_is_marked_and_escaped(tmp_path, mine):
    out = tmp_path / "out"
    out.mkdir()
    bad = row(file=str(mine), line=5, rule="$r_\\<b>", reason="<u>", parameter="['<s>']")
    right = row("exact", file=str(mine), line=9, gap=1e-16)
    text, page = written(out, {}, certificates={"$a_\\ <b>": of(bad, right, notes=("<q>",))})
    assert not page.names & {"script", "b", "s", "u", "q"}
    assert text.count("<mark>") == 1
    marked = text[text.index("<mark>") : text.index("</mark>")]
    assert "def $x_1$(a): return &quot;&lt;script&gt;\\alpha&quot; &amp; a" in marked
    body = text[text.index("<body>") :]
    assert [f"# {k}\n" in body for k in (1, 2, 3, 4, 6, 7, 8, 9)] == [0, 1, 1, 1, 1, 1, 1, 0]
    assert "$r_\\&lt;b&gt;" in body
    assert "$a_b$ &lt;i&gt;/m.py:5" in body


def test_a_file_that_is_gone_leaves_its_place(tmp_path):
    found = excerpts([row(file=str(tmp_path / "gone.py"), line=3), row(file="", line=0)])
    assert [(e["line"], e["lines"]) for e in found] == [(3, [])]
    text, _ = written(tmp_path, {}, certificates={"a": of(row(file="/nowhere/x.py", line=3))})
    assert "cannot be read any more" in text


def test_a_chain_shows_the_places_that_are_not_exact_and_keeps_its_heat_map(tmp_path):
    pair = Pair("backprop|pairing", "exact", "exact", np.zeros(3), np.zeros(2), None, 0.0)
    right = of(row("exact", gap=0.0), pairs=(pair,))
    assert place_table(right) is None
    bent = row("exact", kink=True, stage=1, tensor="state")
    kink = place_table(of(bent, row("exact", line=2), pairs=(pair,)))
    assert [(r["kink"], r["at"]) for r in kink["rows"]] == [
        (True, "stage 1 state, argument 0[2, 3]")
    ]
    text, page = written(
        tmp_path, {}, certificates={"right": right, "free": of(row("exact")), "none": of()}
    )
    assert len(page.alts) == 1
    assert 'scope="col">free' not in text  # a function has no routes


def test_zero_is_no_agreement_where_nothing_was_compared():
    table = place_table(of(row("untested", gap=0.0), row("exact", gap=0.0, line=2)))
    assert [(r["gap"], r["shade"]) for r in table["rows"]] == [("–", "blank"), ("0", "shade0")]


def test_a_strip_shows_the_worst_iteration():
    gaps = np.full((48, 4), 1e-16)
    gaps[31, 2] = 1e-2
    gaps[0, 0] = np.nan
    (shown,) = place_table(of(row(gaps=gaps, iteration=(31, 2))))["rows"]
    assert "192 iterations, the largest gap 1.0e−02 at 31, 2" in shown["strip"]["words"]
    shades = shown["strip"]["shades"]
    assert [k for k, s in enumerate(shades) if s != "shade0"] == [31]
    assert place_table(of(dataclasses.replace(row(), gaps=np.zeros(1))))["strips"] is False


def test_gaps_of_all_sizes_have_a_shade():
    found = [shade(g) for g in (0.0, 1e-16, 1e-9, 1e-3, 1.0, np.inf, np.nan)]
    assert found == ["shade0", "shade0", "shade4", "shade7", "shade7", "shade7", "blank"]


def test_what_cannot_be_printed_is_a_mark():
    assert printable("\ta\u202eb\x0cc\x00  \n") == "    a\ufffdb c\ufffd"
    assert len(printable("x" * 10**6)) == 200
