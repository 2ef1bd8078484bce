"""`layers` lists what `certify` judges; a wrong answer is refused whoever gave it."""

import json

import numpy as np
import pytest

from hjcontrol.cli import main
from hjcontrol.layers import FURTHER, REGISTRY
from tests.cli.golden import matches


def certify(tmp_path, capsys, arrays, *options):
    path = tmp_path / "candidate.npz"
    np.savez(path, **arrays)
    code = main(["certify", str(path), *options, "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    result = tmp_path / "out" / "result.json"
    return code, out, err, json.loads(result.read_text()) if result.exists() else None


@pytest.fixture
def answers():
    z = np.random.default_rng(0).normal(size=(4, 5))
    e = np.exp((z - z.max(axis=1, keepdims=True)) / 0.3)
    return {"z": z, "p": e / e.sum(axis=1, keepdims=True)}


def test_layers_are_listed(capsys):
    assert main(["layers", "--names"]) == 0
    assert capsys.readouterr().out.split() == [*REGISTRY, *FURTHER]
    assert main(["layers"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in REGISTRY)
    assert "simplex" in out


def test_right_answers_are_certified(tmp_path, capsys, answers):
    code, out, err, result = certify(
        tmp_path, capsys, answers, "--layer", "softmax", "--eps", "0.3"
    )
    assert (code, err) == (0, "")
    assert "4 of 4 certified" in out
    assert result["certified"] == 4
    matches("certify", result)
    assert max(abs(s["gap"]) for s in result["samples"]) < 1e-12


def test_a_wrong_answer_is_refused_and_named(tmp_path, capsys, answers):
    answers["p"][2, [0, 1]] += [1e-4, -1e-4]
    code, out, _, result = certify(tmp_path, capsys, answers, "--layer", "softmax", "--eps", "0.3")
    assert code == 1
    assert "3 of 4 certified" in out
    assert [s["verdict"] for s in result["samples"]][2] == "suboptimal"


def test_the_wrong_temperature_is_refused(tmp_path, capsys, answers):
    code, *_ = certify(tmp_path, capsys, answers, "--layer", "softmax", "--eps", "0.31")
    assert code == 1


BAD = {
    "layer": ({}, ["--layer", "nothing"], "found 'nothing'"),
    "eps": ({}, ["--layer", "softmax", "--eps", "-1"], "found -1"),
    "missing": ({"p": None}, ["--layer", "softmax"], "'p' (candidate) are needed"),
    "shape": ({"p": np.ones(3)}, ["--layer", "softmax"], "must have one shape"),
    "nan": ({"z": np.full((4, 5), np.nan)}, ["--layer", "softmax"], "found nan at [0, 0]"),
}


@pytest.mark.parametrize(("change", "options", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(tmp_path, capsys, answers, change, options, words):
    arrays = {k: v for k, v in (answers | change).items() if v is not None}
    code, out, err, result = certify(tmp_path, capsys, arrays, *options)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert (out, result) == ("", None)
    assert not (tmp_path / "out").exists()
