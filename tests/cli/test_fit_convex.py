"""`fit-convex`, real throughout, on small data; and what it says to bad input."""

import json
import re

import numpy as np
import pytest

from hjcontrol.cli import main
from tests.cli.golden import matches

FIELDS = ["objective", "gap", "theorem", "seconds", "test_metric"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bowl(here):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 2))
    y = 0.5 * (x**2).sum(axis=1) + 0.1 * rng.standard_normal(40)
    np.savez(here / "bowl.npz", X=x, y=y)
    return "bowl.npz"


def strict(path):
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))


def test_logistic_on_iris(here, capsys):
    assert main(["fit-convex", "--data", "iris"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-2:] == ["fit-convex/report.html", "fit-convex/result.json"]
    result = strict(here / "fit-convex" / "result.json")
    assert list(result)[:6] == [*FIELDS, "gradient"]
    assert list(result["gradient"]) == FIELDS
    assert result["verdict"] == "certified"
    assert abs(result["gap"]) <= 1e-12
    assert 0 <= result["gradient"]["gap"] + 1e-12 <= 1e-7
    assert result["test_metric"] >= 0.8
    matches("fit-convex", result)
    page = (here / "fit-convex" / "report.html").read_text()
    for word in ("Theorem: Fenchel", "Not covered", "Gradient-trained twin", "certified"):
        assert word in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().split()


@pytest.mark.parametrize(
    ("model", "extra", "verdict"),
    [
        ("hopf-cole", ["--atoms", "8"], "certified"),
        ("convex-regression", [], "certified"),
        ("gated-relu", ["--atoms", "6", "--ridge", "0.05"], "certified"),
        ("dc", ["--atoms", "6"], "stationary"),
        ("dc", ["--atoms", "4", "--eps", "0"], "stationary"),
    ],
)
def test_regression_models_on_a_file(model, extra, verdict, bowl, here):
    line = ["fit-convex", "--model", model, "--data", bowl, "--out", "it", *extra]
    assert main(line) == 0
    result = strict(here / "it" / "result.json")
    assert result["verdict"] == verdict
    assert result["metric"] == "test RMSE"
    assert 0 < result["test_metric"] < 2
    if model != "dc":
        assert result["gradient"]["gap"] >= -1e-9
    assert sorted(p.name for p in (here / "it").iterdir()) == ["report.html", "result.json"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--model", "logistik"], "Did you mean 'logistic'?"),
        (["--data", "nothing"], "unknown"),
        (["--data", "none.csv"], "none.csv"),
        (["--model", "gated-relu", "--data", "none.npz"], "none.npz"),
        (["--model", "dc", "--data", "what"], "diabetes"),
        (["--eps", "0"], "--eps"),
        (["--model", "dc", "--eps", "-1"], ">= 0"),
        (["--eps", "cold"], "--eps"),
        (["--atoms", "0"], "--atoms"),
        (["--ridge", "-1"], "--ridge"),
        (["--data", "iris", "--ridge", "0"], "ridge"),
        (["--data", "iris", "--train-size", "1000"], "train size"),
        (["--model", "hopf-cole", "--train-size", "1000"], "train size"),
        (["--model", "convex-regression", "--data", "digits"], "variables"),
    ],
)
def test_bad_input_is_one_line_and_code_two(line, words, here, capsys):
    assert main(["fit-convex", *line]) == 2
    err = capsys.readouterr().err
    assert err.startswith("hjcontrol fit-convex: ")
    assert len(err.splitlines()) == 1
    assert words in err
    assert not (here / "fit-convex").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.array([[1.0], [np.nan], [2.0]]), "y": np.zeros(3)}, "finite"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(2)}, "shape|found"),
        ({"X": np.zeros((2, 1)), "y": np.zeros(2)}, "three samples"),
        ({"X": np.zeros((3, 1)), "y": np.array(["a", "b", "c"])}, "real numbers"),
    ],
)
def test_bad_files_are_named(arrays, words, here, capsys):
    np.savez(here / "bad.npz", **arrays)
    assert main(["fit-convex", "--model", "gated-relu", "--data", "bad.npz"]) == 2
    err = capsys.readouterr().err
    assert "bad.npz" in err
    assert re.search(words, err)


def test_a_csv_file_with_its_target_named(here):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 2))
    rows = np.column_stack([x, np.abs(x).sum(axis=1)])
    text = "a,b,goal\n" + "\n".join(",".join(f"{v:.17g}" for v in row) for row in rows)
    (here / "t.csv").write_text(text)
    line = ["fit-convex", "--model", "gated-relu", "--atoms", "5", "--data", "t.csv"]
    assert main([*line, "--target", "goal"]) == 0
    assert main([*line, "--target", "gaol"]) == 2
