"""`pde` as a person meets it: exit codes, lines, files, and the figures in them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from hjcontrol.cli import main, pde
from tests.cli.golden import matches

Y, G = np.array([-1.5, -0.5, 0.5, 1.5])[:, None], np.array([1.0, 0.3, 0.3, 1.0])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A layer, by the dictionary at t = 1: `W = y/2`, `b = -g - |y|^2/4`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pde, "POINTS", {1: 65, 2: 25})
    np.savez("one.npz", W=Y / 2, b=-G - (Y[:, 0] ** 2) / 4)
    return tmp_path


def strict(path):
    refuse = lambda name: pytest.fail(f"{name} in JSON")
    return json.loads(path.read_text(), parse_constant=refuse)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_one_dimension(folder, capsys):  #: heat 2e-14, raw -0.05
    assert main(["pde", "one.npz"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-2:] == ["pde/report.html", "pde/result.json"]
    assert names(folder / "pde") == ["report.html", "result.json"]
    result = strict(folder / "pde" / "result.json")
    assert result["verdict"] == "exact"
    assert list(result["residuals"]) == ["raw", "mean", "heat"]
    for name in ("raw", "mean"):
        both = [result["residuals"][name][k] for k in ("largest", "smallest")]
        np.testing.assert_allclose(both, -0.1 / 2, rtol=1e-10)  # exactly -d eps/(2t), everywhere
    assert abs(result["residuals"]["heat"]["largest"]) < 1e-13
    np.testing.assert_allclose(result["initial_data"]["atoms"], Y, rtol=1e-14)
    gauge = 0.1 / 2 * np.log(4 * np.pi * 0.1)
    np.testing.assert_allclose(result["initial_data"]["values"], G - gauge, rtol=1e-12)
    matches("pde", result)
    assert result["grid"]["largest_difference"] < 0.02 * result["grid"]["range_of_u"]
    page = (folder / "pde" / "report.html").read_text()
    assert page.count("<figure>") == 4
    assert "hjcontrol pde one.npz" in page


def test_without_viscosity_the_three_sums_are_one(folder):
    assert main(["pde", "one.npz", "--eps", "0"]) == 0
    result = strict(folder / "pde" / "result.json")
    assert all(abs(r["largest"]) < 1e-13 for r in result["residuals"].values())
    np.testing.assert_allclose(result["initial_data"]["values"], G, rtol=1e-14)


def test_forgetting_the_normaliser_is_refuted(folder, monkeypatch, capsys):
    """The raw sum in the heat kernel's place: it misses the equation by -d eps/(2t), and that is seen."""
    real = pde._by_jets
    mixed = lambda *asked: {**real(*asked), "heat": real(*asked)["raw"]}
    monkeypatch.setattr(pde, "_by_jets", mixed)
    assert main(["pde", "one.npz"]) == 1
    assert "verdict: refuted" in capsys.readouterr().out


def test_without_a_file_it_fits_the_diabetes_data_and_shows_a_slice(folder, capsys):
    assert main(["pde", "--time", "0.5", "--eps", "0.25", "--out", "a/b"]) == 0
    assert "plane of the two directions" in capsys.readouterr().out
    result = strict(folder / "a" / "b" / "result.json")
    assert result["layer"]["dimension"] == 10
    assert result["layer"]["r_squared"] > 0.55  # a least-squares line has 0.52
    assert result["layer"]["stationarity"] <= 1e-8
    assert (result["eps"], result["time"], result["grid"]) == (0.25, 0.5, None)
    np.testing.assert_allclose(result["residuals"]["raw"]["largest"], -10 * 0.25 / 1.0, rtol=1e-10)
    assert result["verdict"] == "exact"
    assert (folder / "a" / "b" / "report.html").read_text().count(
        "<figure>"
    ) == 3  # no characteristics


@pytest.mark.parametrize("line", [["pde", "--help"], ["pde", "x.npz", "--eps", "-1"]], ids=str)
def test_help_and_bad_options_import_nothing_heavy(line):
    program = (
        f"import sys\nfrom hjcontrol.cli import main\nmain({line!r})\n"
        "assert not {'jax', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def arrays(**changes):
    whole = {"W": np.ones((2, 1)), "b": np.zeros(2)} | changes
    return {k: v for k, v in whole.items() if v is not None}


BAD = {
    "absent": (None, ["absent.npz"], "absent.npz: no such file"),
    "a folder": (None, ["."], "directory"),
    "not npz": (b"W,b", ["bad.npz"], "not an NPZ file"),
    "pickled": (arrays(W=np.array([{}], object)), ["bad.npz"], "pickled objects are not loaded"),
    "no b": (arrays(b=None), ["bad.npz"], "the arrays are 'W' (2, 1)"),
    "words": (arrays(b=np.array(["a", "b"])), ["bad.npz"], "'b' must hold real numbers"),
    "shapes": (arrays(b=np.zeros(3)), ["bad.npz"], "found (2, 1) and (3,)"),
    "empty": (arrays(W=np.ones((0, 1)), b=np.zeros(0)), ["bad.npz"], "found (0, 1) and (0,)"),
    "not finite": (arrays(W=np.array([[np.nan], [1]])), ["bad.npz"], "1 of 2 entries are not"),
    "huge": (arrays(W=np.array([[1e200], [1]])), ["bad.npz"], "overflow at t = 1"),
    "eps of the file": (arrays(eps=-1.0), ["bad.npz"], "'eps' must be a finite number >= 0"),
    "eps": (arrays(), ["bad.npz", "--eps", "-1"], "--eps: a finite number >= 0"),
    "time": (arrays(), ["bad.npz", "--time", "0"], "--time: a finite number > 0"),
    "time in words": (arrays(), ["bad.npz", "--time", "one"], "found one"),
    "window": (arrays(), ["bad.npz", "--window", "inf"], "--window"),
    "out is a file": (arrays(), ["bad.npz", "--out", "bad.npz"], "--out bad.npz"),
    "option": (arrays(), ["bad.npz", "--tme", "1"], "--tme"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    content, line, words = BAD[case]
    if isinstance(content, bytes):
        (tmp_path / "bad.npz").write_bytes(content)
    elif content is not None:
        np.savez("bad.npz", **content)
    before = names(tmp_path)
    assert main(["pde", *line]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("hjcontrol pde: ")
    assert words in err
    assert names(tmp_path) == before


def test_full_disk_keeps_the_result_and_no_half_report(folder, monkeypatch, capsys):
    def fsync(descriptor):
        if os.fstat(descriptor).st_size > 20_000:  # the report; its pictures make it the larger one
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    assert main(["pde", "one.npz"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert names(folder / "pde") == ["result.json"]
