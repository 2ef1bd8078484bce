"""Whatever is typed: an exit code of 0, 1, 2, 3, 130, one line on standard error, no half-written file.

70 is a fault of the program itself; no input reaches it. The state machine runs `solve` again and again
in one folder, interrupted, resumed, on files that fail: what a code says of the folder is true each time.
"""

import contextlib
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import booleans, sampled_from

import hjcontrol as hj
from hjcontrol.cli import main
from hjcontrol.solvers import driver
from tests.cli import fakes
from tests.faults.corpus import FILES, LINES, REFUSED, SMALL
from tests.slow import asked_for


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("case", REFUSED)
def test_a_problem_that_cannot_be_is_refused_in_one_line(here, capsys, case):
    (here / "p.toml").write_text(REFUSED[case])
    assert main(["solve", "p.toml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(p.name for p in here.iterdir()) == sorted([*FILES, "p.toml"])


@pytest.mark.parametrize("case", LINES)
def test_a_line_that_cannot_be_is_refused_in_one_line(here, capsys, case):
    assert main(LINES[case]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_called_numpy_replaces_no_module(here, capsys):
    (here / "numpy.py").write_text("net = lambda n, c: [lambda x: x[:c]]\n")
    from hjcontrol.cli.sources import _object

    assert callable(_object("numpy.py:net"))
    assert sys.modules["numpy"] is np


def test_memory_is_asked_for_before_it_is_taken(here, capsys):
    (here / "p.toml").write_text(REFUSED["more memory than there is, still drawable"])
    assert main(["solve", "p.toml"]) == 2
    assert "not enough memory" in capsys.readouterr().err


class Folder(RuleBasedStateMachine):
    """`hjcontrol solve` in one folder, again and again."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.codes = []

    def solve(self, text, *options, stop=None):
        add = driver._Meter.add

        def stopped(meter, *row):
            add(meter, *row)
            if stop is not None and meter.steps >= stop:
                raise KeyboardInterrupt

        before = self.results()
        (self.folder / "p.toml").write_text(text)
        said = io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            patch.chdir(self.folder)
            patch.setattr(driver._Meter, "add", stopped)
            patch.setattr(hj, "verify", fakes.verify)
            page = "hjcontrol.reporting.html.write_page"
            patch.setattr(page, lambda path, *a: path.write_text("page"))
            code = main(["solve", "p.toml", "--out", "out", *options])
        assert code in (0, 1, 2, 3, 130)
        assert len(said.getvalue().splitlines()) == (0 if code < 2 else 1)
        assert (self.results() == before) or code in (0, 1)
        return code

    def results(self):
        path = self.folder / "out" / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    def checkpoints(self):
        return sorted(p.name for p in (self.folder / "run").glob("checkpoint-*.npz"))

    @rule(case=sampled_from(sorted(REFUSED)))
    def refused(self, case):
        if "memory" not in case:
            assert self.solve(REFUSED[case]) == 2

    @rule(steps=sampled_from([0, 2, 5]))
    def solved(self, steps):
        assert self.solve(SMALL, "--max-steps", str(steps)) == 0
        assert self.results()["num_steps"] == steps

    @rule(stop=sampled_from([1, 3]))
    def interrupted(self, stop):
        assert self.solve(SMALL, "--max-steps", "9", stop=stop) == 130

    @rule(stop=sampled_from([None, 1, 4]), steps=sampled_from([6, 9]), resume=booleans())
    def kept(self, stop, steps, resume):
        there = self.checkpoints()
        last = int(there[-1][11:23]) if there else 0
        options = ["--checkpoint", "run", "--max-steps", str(steps)] + ["--resume"] * resume
        code = self.solve(SMALL, *options, stop=None if stop is None else last + stop)
        if (there and not resume) or last > steps:
            assert code == 2
        elif code == 0:
            assert self.results()["num_steps"] == steps
            assert self.checkpoints()
        else:
            assert code == 130
            assert self.checkpoints()[-1] >= (there or [""])[-1]

    @rule()
    def damaged(self):
        for name in self.checkpoints()[-1:]:
            (self.folder / "run" / name).write_bytes(b"torn")
        whole = len(self.checkpoints()) > 1
        if self.checkpoints():
            code = self.solve(SMALL, "--checkpoint", "run", "--max-steps", "9", "--resume")
            assert code == (0 if whole else 2)
            if not whole:
                shutil.rmtree(self.folder / "run")

    @invariant()
    def nothing_is_half_written(self):
        assert not list(self.folder.rglob(".*"))

    def teardown(self):
        shutil.rmtree(self.folder)


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=4 if asked_for() else 2, stateful_step_count=8)
