"""A result says itself once: text, a cell of a notebook, JSON and Markdown come from one record."""

import re

import numpy as np
import pytest

from hjcontrol._ground.record import Mark, Quantity, Record, figure
from hjcontrol._ground.record_html import LIMIT
from hjcontrol._ground.record_text import table
from hjcontrol.reporting.html import page
from hjcontrol.reporting.markdown import markdown
from tests.faults.good_calls import calls, solution

CHEAP = ("analysis.dimension.sample_size", "analysis.temperature.window", "layers.faces",
         "analysis.continual.overlap", "analysis.extrapolation.gap", "solvers.select")  # fmt: skip
EVIL = "<script>alert('1')</script>&\"|"
WIDE = Record(
    f"A title {EVIL}",
    "A headline of many words " * 8,
    "refuted",
    "bad",
    {EVIL: EVIL, "number": Quantity(1e-12, 3), "none": None, "many": list(range(40))},
    ("number",),
    {"a table": [{"name": f"row {k} " + "of words " * 12, "value": Quantity(10.0 ** (k % 30 - 9), 3),
                  "verdict": Mark("exact", "good"), "said": EVIL} for k in range(-9, 900)]},
    notes=(EVIL,),
    detail=(Record("below", "", facts={"x": np.float32(0.1)}),),
    provenance={"command": EVIL, "date": "today"},
    trace=tuple(1.0 / (k + 1) for k in range(500)),
)  # fmt: skip


def made(name):
    function, arguments = calls()[name]()
    return function(**arguments)


def fits(record):
    text = str(record)
    assert max(map(len, text.splitlines())) <= 80, text
    cell = record._repr_html_()
    assert len(cell.encode()) <= LIMIT
    assert "<script" not in cell
    assert "prefers-color-scheme: dark" in cell
    whole = page(record)
    assert "<script" not in whole
    assert "prefers-color-scheme: dark" in whole
    assert markdown(record).startswith(f"# {record.title}")
    return text


@pytest.mark.parametrize("name", CHEAP)
def test_an_answer_is_told_by_every_renderer(name):
    answer = made(name)
    text = fits(answer.as_record())
    assert str(answer) == text
    assert len(repr(answer).splitlines()) < 15


def test_a_solution_has_its_run_as_a_line():
    found = solution()
    assert "result" in fits(found.as_record())
    long = found.as_record()._replace(trace=WIDE.trace)
    assert "<polyline" in long._repr_html_()


def test_what_is_wide_long_and_evil_fits():
    text = fits(WIDE)
    assert "and 897 more" in text
    assert re.search(r"number +1\.00e-12", text)
    assert "<dd>1.00e-12</dd>" in page(WIDE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.1348587, "0.1349"),
        (Quantity(0.13485873060654, 12), "0.134858730607"),
        (Quantity(2.0e-11, 2), "2.0e-11"),
        (Quantity(None, 2, "%"), "–"),
        (Quantity(93.333, 3, "%"), "93.3 %"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        (float("nan"), "nan"),
        (True, "yes"),
        ([1, 2.5], "1, 2.5"),
        ({"width": 2}, "width 2"),
    ],
)
def test_numbers_are_written_in_one_place(value, words):
    assert figure(value) == words


@pytest.mark.parametrize(
    ("kinds", "repeated"),
    [(("one", "two"), "tolerance  kind"), (("one", "one"), "tolerance"), (("one",), "tolerance")],
    ids=["two columns tell them apart", "none does", "one does"],
)
def test_columns_that_go_below_stand_behind_those_that_tell_rows_apart(kinds, repeated):
    wide = {f"number {k}": 123456789.5 for k in range(8)}
    rows = [{"tolerance": 1e-4, "kind": kind, **wide, "note": "last"} for kind in kinds]
    heads = [line.strip() for line in table(rows) if "tolerance" in line]
    assert len(heads) == 2
    assert heads[0].startswith("tolerance  kind")
    assert heads[1].startswith(f"{repeated}  number")
