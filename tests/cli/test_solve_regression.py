"""`solve` on real targets: regression by least squares, told in the target's own units."""

import json

import jax
import numpy as np
import pytest
from sklearn.metrics import mean_squared_error, r2_score

import hjcontrol as hj
from hjcontrol.cli import main

PROBLEM = """
data = "houses.csv"
max-steps = 15
[network]
width = 2
depth = 1
step = 0.5
[costs]
terminal = "least-squares"
ridge = 1e-3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").write_text(PROBLEM)
    return tmp_path


def houses(folder, prices):
    """A table of two features and a price."""
    rows = zip(*features(), prices, strict=True)
    lines = [f"{a!r},{b!r},{price}" for a, b, price in rows]
    (folder / "houses.csv").write_text("\n".join(["size,age,price", *lines]) + "\n")


def features():
    draws = np.random.default_rng(0).normal(size=(2, 40))
    return draws.tolist()


def prices(scale=1000.0):
    size, age = map(np.array, features())
    return (scale * (3.25 + 2 * size - age + 0.1 * size * age)).tolist()


def solved(here, out="solve"):
    assert main(["solve", "p.toml", "--out", out]) in (0, 3)
    return json.loads((here / out / "result.json").read_text())


def replayed(folder, inputs):
    """The network by hand, from the weights in the file: lift, one residual of tanh, readout."""
    with np.load(folder / "solution.npz") as file:
        W, b = ([file[f"run{k}.{leaf}"][0] for k in range(3)] for leaf in "Wb")
    x = inputs @ W[0].T + b[0]
    x = x + 0.5 * np.tanh(x @ W[1].T + b[1])
    return (x @ W[2].T + b[2])[:, 0]


def test_scores_are_those_of_the_saved_network_in_the_targets_units(here, capsys):
    houses(here, prices())
    told = solved(here)
    data = hj.data.load(here / "houses.csv", regression=True)
    parts = hj.data.split(data, 0.8, key=jax.random.split(jax.random.key(0), 4)[0])
    for name, part in (("train", parts.train), ("test", parts.test)):
        units = lambda y, p=parts: y * p.target_scale + p.target_mean
        truth, guess = units(part.targets), units(replayed(here / "solve", part.features))
        assert told[f"{name}_r2"] == pytest.approx(r2_score(truth, guess), rel=1e-9)
        rmse = mean_squared_error(truth, guess) ** 0.5
        assert told[f"{name}_rmse"] == pytest.approx(rmse, rel=1e-9)
    assert told["train_r2"] > 0.9
    assert told["train_rmse"] > 1  # a unit is a thousandth: the standardised error would be below
    assert told["test_accuracy"] is None
    out, page = capsys.readouterr().out, (here / "solve" / "report.html").read_text()
    for text in (out, page):
        assert "root mean square error" in text
        assert "R²" in text
        assert "accuracy" not in text
        assert " classes;" not in text
        assert "Confusion" not in text


def test_other_units_change_the_error_and_not_the_share(here):
    houses(here, prices())
    first = solved(here, "thousands")
    houses(here, prices(1.0))
    second = solved(here, "ones")
    assert first["test_rmse"] == pytest.approx(1000 * second["test_rmse"], rel=1e-6)
    assert first["test_r2"] == pytest.approx(second["test_r2"], rel=1e-6)


def test_whole_numbers_that_cannot_be_classes_are_real_targets(here, capsys):
    houses(here, [round(price) for price in prices()])
    assert solved(here)["train_r2"] > 0.9
    assert "classes have a single one" in capsys.readouterr().out


def test_labels_keep_their_meaning_under_least_squares(here, capsys):
    """Three outputs and an accuracy, whole numbers and words alike."""
    for names in ("123", ["cat", "dog", "owl"]):
        houses(here, [names[k % 3] for k in range(40)])
        told = solved(here)
        assert 0 <= told["test_accuracy"] <= 1
        assert "test_r2" not in told
        assert "3 classes" in capsys.readouterr().out
        with np.load(here / "solve" / "solution.npz") as file:
            assert file["run2.b"].shape == (1, 3)


@pytest.mark.parametrize("data", ["houses.csv", "diabetes"])
def test_cross_entropy_on_real_targets_names_the_remedy(here, capsys, data):
    houses(here, prices())
    text = PROBLEM.replace("houses.csv", data).replace('terminal = "least-squares"\n', "")
    (here / "p.toml").write_text(text)
    assert main(["solve", "p.toml"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    for word in (data, "terminal = 'least-squares'", "[costs]", "p.toml"):
        assert word in err
    assert not (here / "solve").exists()


def test_words_that_cannot_be_classes_are_refused(here, capsys):
    houses(here, [f"house {k}" for k in range(40)])
    assert main(["solve", "p.toml"]) == 2
    assert "at least two samples a class" in capsys.readouterr().err


def test_a_recurrence_is_scored_on_the_sequences_that_it_reads(here):
    houses(here, prices())
    text = PROBLEM.replace("width = 2\ndepth = 1\nstep = 0.5", 'architecture = "gru"')
    (here / "p.toml").write_text(text.replace("max-steps = 15", "max-steps = 0"))
    told = solved(here)
    # J = mean of squares / 2 + ridge |theta|^2 / 2, of targets with mean 0 and variance 1 in training
    with np.load(here / "solve" / "solution.npz") as file:
        ridge = sum(float(np.sum(file[name] ** 2)) for name in file.files) * 1e-3 / 2
    assert 1 - told["train_r2"] == pytest.approx(2 * (told["objective"] - ridge), rel=1e-9)


def test_a_target_that_is_constant_has_no_share(here):
    houses(here, ["0.5"] * 40)
    told = solved(here)
    assert told["train_r2"] is None
    assert told["test_r2"] is None
    assert told["test_rmse"] < 0.1
