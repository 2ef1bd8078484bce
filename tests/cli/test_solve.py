"""`solve` as a person meets it: a TOML file in, files and an exit code out; Ctrl-C, and on from there."""

import json

import numpy as np
import pytest

from hjcontrol.cli import main
from tests.cli.golden import matches

SMALL = """
data = "iris"
solver = "adam"
max-steps = 300
samples = 30
[network]
width = 3
depth = 2
activation = "sigmoid"
[costs]
ridge = 1e-3
[control-set]
kind = "box"
lower = -0.5
upper = 0.5
[options.adam]
batch-size = 10
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").write_text(SMALL)
    return tmp_path


def weights(folder):
    with np.load(folder / "solution.npz") as file:
        return {name: file[name] for name in file.files}


def test_solved_interrupted_and_resumed(here, monkeypatch, capsys):
    assert main(["solve", "p.toml", "--out", "whole"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "whole/result.json"
    assert sorted(p.name for p in (here / "whole").iterdir()) == [
        "report.html",
        "result.json",
        "solution.npz",
    ]
    result = json.loads((here / "whole" / "result.json").read_text())
    assert result["verdict"] == "exact"
    assert result["result"] == "max_steps_reached"
    assert result["control_set"] == "Box"
    matches("solve", result)
    assert max(np.abs(a).max() for a in weights(here / "whole").values()) <= 0.5

    from hjcontrol.solvers import driver

    add = driver._Meter.add

    def stopped(self, *row):
        add(self, *row)
        if self.steps > 100:
            raise KeyboardInterrupt

    line = ["solve", "p.toml", "--checkpoint", "run", "--every", "0", "--out", "again"]
    with monkeypatch.context() as patch:
        patch.setattr(driver._Meter, "add", stopped)
        assert main(line) == 130
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.strip().endswith("Go on with: hjcontrol " + " ".join(line) + " --resume")
    assert not (here / "again").exists()
    assert main(line) == 2
    assert "already holds a checkpoint" in capsys.readouterr().err
    assert main([*line, "--seed", "1", "--resume"]) == 2
    assert "problem differs" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 0
    a, b = weights(here / "whole"), weights(here / "again")
    assert list(a) == list(b)
    assert "run1.W" in a
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_auto_says_what_it_takes(here, capsys):
    text = SMALL.replace("box", "ternary").replace("lower = -0.5\nupper = 0.5\n", "")
    (here / "p.toml").write_text(text)
    assert main(["solve", "p.toml", "--solver", "auto", "--max-steps", "5"]) == 0
    assert "auto: discrete-msa, the only one that keeps" in capsys.readouterr().out
    assert set(
        np.unique(np.concatenate([a.ravel() for a in weights(here / "solve").values()]))
    ) <= {
        -1.0,
        0.0,
        1.0,
    }


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (("data", "dta"), [], ["unknown key 'dta'", "mean 'data'"]),
        (("width", "widht"), [], ["network", "unknown key 'widht'", "mean 'width'"]),
        (("width = 3", "width = 0"), [], ["network.width", "found 0"]),
        (('"sigmoid"', '"tanhh"'), [], ["activation", "mean 'tanh'"]),
        (("ridge", "rigde"), [], ["costs", "unknown 'rigde'", "mean 'ridge'"]),
        (("ridge = 1e-3", "ridge = -1"), [], ["costs.ridge", "found -1"]),
        (('"box"', '"bax"'), [], ["control-set", "mean 'box'"]),
        (("lower = -0.5", "lower = 1"), [], ["control-set: box", "lower <= upper"]),
        (("lower = -0.5", "lowr = 1"), [], ["unknown key 'lowr'", "mean 'lower'"]),
        (("batch-size", "batchsize"), [], ["options.adam", "mean 'batch-size'"]),
        (("options.adam", "options.adm"), [], ["unknown solver", "mean 'adam'"]),
        (("[network]", '[network]\narchitecture = "gruu"'), [], ["architecture", "mean 'gru'"]),
        (("", ""), ["--solver", "newtn"], ["--solver", "mean 'newton'"]),
        (("", ""), ["--solver", "ddp"], ["bounds on weights", "Use `Newton`"]),
        (("", ""), ["--resume"], ["--resume needs --checkpoint"]),
        (("=", ""), [], ["not valid TOML"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, change, options, words):
    text = SMALL.replace(*change) if change[0] else SMALL
    (here / "p.toml").write_text(text)
    assert main(["solve", "p.toml", *options]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err
    assert [p.name for p in here.iterdir()] == ["p.toml"]
