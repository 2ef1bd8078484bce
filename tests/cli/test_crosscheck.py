"""`crosscheck` as a person meets it: exit codes, lines, files; the mathematics is faked."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.cli import main
from tests.cli import fakes
from tests.cli.golden import matches

ROOT = Path(__file__).parents[2]
TWO = ["--solver", "gradient", "--solver", "newton"]
QUICK = ["crosscheck", "--data", "iris", "--width", "3", "--depth", "2"]


@pytest.fixture
def faked(monkeypatch, tmp_path):
    fakes.install(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def strict(path):
    refuse = lambda name: pytest.fail(f"{name} in JSON")
    return json.loads(path.read_text(), parse_constant=refuse)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_files_lines_and_code(faked, capsys):
    assert main(QUICK) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "crosscheck/result.json"
    assert names(faked / "crosscheck") == ["report.html", "result.json"]
    result = strict(faked / "crosscheck" / "result.json")
    assert list(result) == [
        "problem",
        "solvers",
        "costate",
        "finite_difference",
        "direct",
        "verdict",
    ]
    assert list(result["solvers"]) == ["gradient", "newton", "direct"]
    for row in result["solvers"].values():
        assert list(row) == [
            "objective", "stationarity", "num_steps", "compile_seconds", "solve_seconds",
            "test_accuracy", "result",
        ]  # fmt: skip
        assert row["result"] == "successful"
        assert 0 <= row["test_accuracy"] <= 1
    assert list(result["direct"]) == [
        "num_samples", "objective_gap", "weight_distance", "multiplier_disagreement", "seconds",
        "newton_seconds",
    ]  # fmt: skip
    assert result["direct"]["num_samples"] == 24
    assert result["direct"]["weight_distance"] == 1e-12
    assert result["direct"]["multiplier_disagreement"] == 3e-16
    assert result["costate"]["newton"] == {"backprop|pairing": 3e-16, "backprop|recursion": 3e-16}
    assert result["finite_difference"]["newton"] == 1e-9
    assert result["verdict"] == "exact"
    matches("crosscheck", result)
    page = (faked / "crosscheck" / "report.html").read_text()
    assert "hjcontrol crosscheck --data iris --width 3 --depth 2" in page


def test_number_of_weights_is_counted_right(faked):
    main([*QUICK, "--solver", "newton", "--out", "a/b"])
    result = strict(faked / "a" / "b" / "result.json")
    assert result["problem"]["num_weights"] == 4 * 3 + 3 + 2 * (9 + 3) + 3 * 3 + 3
    assert result["direct"] is None
    assert list(result["solvers"]) == ["newton"]


def test_refuted_is_one(faked, monkeypatch):
    monkeypatch.setattr(hj, "verify", lambda s, **k: fakes.verify(s, verdict="refuted"))
    assert main(QUICK) == 1
    assert strict(faked / "crosscheck" / "result.json")["verdict"] == "refuted"


def test_a_step_limit_is_said_and_is_no_refutation(faked, monkeypatch, capsys):
    def limited(problem, method, *, init, progress):
        still = fakes.Still(label=method, result="max_steps_reached")
        return fakes.real_solve(problem, still, init=init, progress=progress)

    monkeypatch.setattr(hj, "solve", limited)
    assert main([*QUICK, "--solver", "adam"]) == 0
    assert "max steps reached" in capsys.readouterr().out
    result = strict(faked / "crosscheck" / "result.json")
    assert result["solvers"]["adam"]["result"] == "max_steps_reached"
    assert "Raise `max_steps`" in (faked / "crosscheck" / "report.html").read_text()


def test_what_is_not_finite_becomes_null(faked, monkeypatch):
    def broken(solution, **asked):
        certificate = fakes.verify(solution, **asked)
        certificate.agreement["backprop|pairing"] = float("inf")
        certificate.finite_difference = np.float64("nan")
        return certificate

    monkeypatch.setattr(hj, "verify", broken)
    assert main([*QUICK, "--solver", "newton"]) == 0
    result = strict(faked / "crosscheck" / "result.json")
    assert result["costate"]["newton"]["backprop|pairing"] is None
    assert result["finite_difference"]["newton"] is None


def interrupted_after(count):
    solved = []

    def solve(problem, method, *, init, progress):
        if len(solved) == count:
            progress(1, 2.0, 1.0, 0.1)
            raise KeyboardInterrupt
        solved.append(method)
        return fakes.solve(problem, method, init=init, progress=progress)

    return solve


@pytest.mark.parametrize("count", [1, 2, 3])
def test_interruption_keeps_what_is_finished(faked, monkeypatch, capsys, count):
    monkeypatch.setattr(hj, "solve", interrupted_after(count))
    assert main(QUICK) == 130
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert "interrupted" in err
    result = strict(faked / "crosscheck" / "result.json")
    assert list(result["solvers"]) == ["gradient", "newton"][:count]
    assert result["interrupted"] is True
    assert out.splitlines()[-1] == "crosscheck/result.json"
    assert "Interrupted" in (faked / "crosscheck" / "report.html").read_text()


def test_interruption_before_anything_writes_nothing(faked, monkeypatch, capsys):
    monkeypatch.setattr(hj, "solve", interrupted_after(0))
    assert main(QUICK) == 130
    assert "nothing" in capsys.readouterr().err
    assert names(faked) == []


def test_full_disk_keeps_the_result_and_no_half_report(faked, monkeypatch, capsys):
    synced = []

    def fsync(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        if synced[-1] > 20_000:  # the report; its pictures make it the larger one
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    assert main(QUICK) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(r"report\.html cannot be written \(No space left", err)
    assert names(faked / "crosscheck") == ["result.json"]


BAD = {
    "unknown data": (["--data", "digit"], "mean 'digits'"),
    "absent file": (["--data", "absent.csv"], "absent.csv: no such file"),
    "ragged": (["--data", "ragged.csv"], "ragged.csv: line 3 has 1 fields"),
    "missing target": (["--data", "good.csv", "--target", "z"], "no column 'z'"),
    "fewer samples than classes": (["--data", "iris", "--train-size", "2"], "3 classes"),
    "no test samples": (["--data", "iris", "--train-size", "150"], "0 test samples"),
    "depth": (["--depth", "0"], "--depth"),
    "ridge": (["--ridge", "-1"], "--ridge"),
    "solver": (["--solver", "newtn"], "mean 'newton'"),
    "key": (["--config", "bad.toml"], "unknown key 'widht'"),
    "out is a file": (["--data", "iris", "--out", "good.csv"], "--out good.csv"),
    "out under a file": (["--data", "iris", "--out", "good.csv/a"], "--out good.csv/a"),
    "out in /proc": (["--data", "iris", "--out", "/proc/hjcontrol"], "--out /proc/hjcontrol"),
    "unknown option": (["--widht", "3"], "--widht"),
    "option without value": (["--width"], "--width"),
    "argument": (["digits"], "digits"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text("a,t\n1,x\n2,y\n3,x\n4,y\n")
    (tmp_path / "ragged.csv").write_text("a,t\n1,x\n2\n")
    (tmp_path / "bad.toml").write_text("widht = 3\n")
    before = names(tmp_path)
    line, words = BAD[case]
    assert main(["crosscheck", *line]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("hjcontrol crosscheck: ")
    assert words in err
    assert names(tmp_path) == before


def test_a_fault_of_the_program_is_never_a_refutation(faked, monkeypatch, capsys):
    def fault(*args, **kwargs):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(hj, "solve", fault)
    assert main(QUICK) == 70
    assert "RuntimeError: two lines" in capsys.readouterr().err
    assert names(faked) == []


def script(how, *line, folder, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.fakes", how, *QUICK, *TWO, *line, "--out", str(folder)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,
    )  # fmt: skip


def test_a_real_interrupt(tmp_path):
    process = script("slow", folder=tmp_path / "out")
    for line in process.stdout:
        if "READY" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(err.splitlines()) == 1
    assert names(tmp_path / "out") == ["report.html", "result.json"]
    assert list(strict(tmp_path / "out" / "result.json")["solvers"]) == ["gradient"]


def test_a_real_limit_on_file_size(tmp_path):
    process = script("limit=20000", folder=tmp_path / "out")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert len(err.splitlines()) == 1
    assert "report.html cannot be written" in err
    assert names(tmp_path / "out") == ["result.json"]


def test_a_reader_who_leaves(tmp_path):
    process = script("plain", folder=tmp_path / "out")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    assert names(tmp_path / "out") == ["report.html", "result.json"]


def test_what_is_solved_is_written_before_it_is_verified(faked, monkeypatch):
    """A process that is killed while it verifies has its solutions on disk, and they say so."""
    seen = []

    def verify(solution, **asked):
        kept = strict(faked / "crosscheck" / "result.json")
        seen.append((solution.solver, list(kept["solvers"]), kept["interrupted"]))
        return fakes.verify(solution, **asked)

    monkeypatch.setattr(hj, "verify", verify)
    assert main([*QUICK, *TWO]) == 0
    assert seen == [("gradient", ["gradient"], True), ("newton", ["gradient", "newton"], True)]
    assert "interrupted" not in strict(faked / "crosscheck" / "result.json")


def test_json_on_standard_output_and_nothing_else(faked, capsys):
    assert main([*QUICK, "--solver", "newton", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    told = json.loads(out)
    assert told == strict(faked / "crosscheck" / "result.json")
    assert names(faked / "crosscheck") == ["report.html", "result.json"]


def test_quiet_prints_nothing_and_open_opens_the_page(faked, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main([*QUICK, "--solver", "newton", "--quiet", "--open"]) == 0
    assert capsys.readouterr() == ("", "")
    assert opened == [(faked / "crosscheck" / "report.html").as_uri()]
