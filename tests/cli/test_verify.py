"""`verify`: our architectures and the user's own network; a wrong rule is refuted, bad input one line."""

import json
import pathlib

import pytest

from hjcontrol.cli import main
from hjcontrol.networks import ARCHITECTURES
from hjcontrol.networks.architectures.page import markdown

OWN = """
import equinox as eqx, jax, jax.numpy as jnp
from hjcontrol.networks import readout

@jax.custom_vjp
def wrong(W, x):
    return x + jnp.tanh(W @ x)

def forward(W, x):
    return wrong(W, x), (W, x)

def reverse(saved, p):
    W, x = saved
    q = p * (1 - jnp.tanh(W @ x) ** 2)
    return 1.01 * jnp.outer(q, x), p + W.T @ q

wrong.defvjp(forward, reverse)

class Layer(eqx.Module):
    W: jax.Array
    rule: object = eqx.field(static=True)
    def __call__(self, x):
        return self.rule(self.W, x)

right = lambda W, x: x + jnp.tanh(W @ x)
def network(in_size, classes):
    W = jnp.eye(in_size) / 2
    return [Layer(W, right), Layer(W, wrong), Layer(W, right), readout(in_size, classes)]

number = 3
short = [readout(4, 2)]
"""


def run(capsys, *options):
    code = main(["verify", *options])
    return code, *capsys.readouterr()


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return str(path)


def test_architectures_are_listed(capsys):
    assert main(["architectures", "--names"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == list(ARCHITECTURES)
    assert main(["architectures"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for name in ARCHITECTURES for word in name.split())
    assert "viscosity" in out


def test_the_docs_page_is_current(capsys):
    page = pathlib.Path(__file__).parents[2] / "docs" / "architectures.md"
    assert page.read_text(encoding="utf-8") == markdown(), (
        "renew it: hjcontrol architectures --markdown > docs/architectures.md"
    )
    assert main(["architectures", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown()


def test_ours_is_verified_at_its_start_and_trained(tmp_path, capsys):
    options = ("--data", "iris", "--samples", "20", "--steps", "3", "--out", str(tmp_path))
    code, out, err = run(capsys, "--architecture", "rnn", *options)
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == str(tmp_path / "result.json")
    assert "verdict: exact" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verdict"] == "exact"
    assert list(result["networks"]) == ["rnn, at its start", "rnn, trained"]
    for facts in result["networks"].values():
        assert facts["disagreement"]["backprop|pairing"] < 1e-11
        assert len(facts["per_stage"]["backprop|pairing"]["states"]) == facts["stages"] + 1
    assert 0 <= result["networks"]["rnn, trained"]["test_accuracy"] <= 1
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert "hjcontrol verify --architecture rnn" in page


def test_a_wrong_rule_of_the_users_is_refuted_and_named(tmp_path, capsys, own):
    options = ("--data", "iris", "--samples", "20", "--steps", "0", "--out", str(tmp_path / "out"))
    code, out, err = run(capsys, "--architecture", f"{own}:network", *options)
    assert (code, err) == (1, ""), out
    assert "verdict: refuted" in out
    assert "weights of 1 (Layer)" in out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (facts,) = result["networks"].values()
    assert facts["refuted"] == ["weights of 1 (Layer)"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grue", "found 'grue'. Did you mean 'gru'?"),
        ("nothing.at.all:net", "nothing.at.all cannot be imported (ModuleNotFoundError"),
        ("{own}:netwrok", "has no 'netwrok'. Did you mean 'network'?"),
        ("{own}:number", "found int"),
        ("{own}:short", "one logit a class is needed"),
    ],
)
def test_what_is_no_network_is_one_line(name, message, own, tmp_path, capsys):
    out = tmp_path / "out"
    code, _, err = run(
        capsys, "--architecture", name.format(own=own), "--data", "iris", "--out", str(out)
    )
    assert code == 2, err
    assert err.count("\n") == 1
    assert message in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", "1"), "--samples: a whole number >= 2 is needed; found 1"),
        (("--steps", "-3"), "--steps: a whole number >= 0 is needed; found -3"),
        (("--data", "digit"), "Did you mean 'digits'?"),
        (("--seed", "x"), "--seed: a whole number >= 0 is needed; found x"),
    ],
)
def test_bad_options_are_one_line(options, message, tmp_path, capsys):
    code, _, err = run(capsys, *options, "--out", str(tmp_path / "out"))
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
