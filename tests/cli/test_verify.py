"""`verify`: our architectures and the user's own network; a wrong rule is refuted, bad input one line."""

import json
import pathlib

import pytest

from hjcontrol.cli import main
from hjcontrol.networks import ARCHITECTURES
from hjcontrol.networks.architectures.page import markdown
from tests.cli.golden import matches

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
    matches("verify", result)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure>") == 2  # a heat map per certificate
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


STATE = """
calls = []
class Layer(eqx.Module):
    W: jax.Array
    rule: object = eqx.field(static=True)
    def __call__(self, x):
        return self.rule(self.W, x)

def network(in_size, classes):
    calls.append(in_size)
    assert len(calls) == 1, "built twice"
    return [Layer(jnp.eye(in_size), lambda W, x: jnp.tanh(W @ x)), readout(in_size, classes)]
"""


def test_a_file_is_executed_once_and_its_network_built_once(tmp_path, capsys):
    path = tmp_path / "state.py"
    path.write_text(
        OWN.split("@jax")[0]
        + f"with open({str(tmp_path / 'runs')!r}, 'a') as f: f.write('x')\n"
        + STATE
    )
    options = ("--data", "iris", "--samples", "20", "--steps", "2", "--out", str(tmp_path / "out"))
    code, out, err = run(capsys, "--architecture", f"{path}:network", *options)
    assert (code, err) == (0, ""), out
    assert (tmp_path / "runs").read_text() == "x"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    trained = result["networks"][f"{path}:network, trained"]
    assert 0 <= trained["test_accuracy"] <= 1  # the test split has the same parts
    assert trained["places"]


FREE = """
import jax, jax.numpy as jnp
import hjcontrol as hj
X = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)

def ruled(factor, f=jnp.tanh, df=lambda x: 1 - jnp.tanh(x) ** 2):
    @jax.custom_vjp
    def rule(x):
        return f(x)
    rule.defvjp(lambda x: (f(x), x), lambda x, p: (factor * p * df(x),))
    return lambda x: jnp.sum(rule(x) ** 2)

def wrong(x=X):
    return ruled(1.01)(x)

pair = (ruled(1.0), X)
made = lambda: (ruled(1.0), (X,))
compiled = jax.jit(lambda x=X: ruled(1.0)(x))
dead = lambda x=-1 - X**2: ruled(1.5, jax.nn.relu, lambda x: 1.0 * (x > 0))(x) + jnp.sum(x**2)
undefined = (ruled(1.0, jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x)), 0 * X)
detached = lambda x=X: jnp.sum((x - jax.lax.stop_gradient(jnp.max(x))) ** 2)
declared = (hj.deliberate("straight-through")(ruled(1.5)), X)
coarse = (ruled(1.0, jnp.tanh, lambda x: (1 - jnp.tanh(x) ** 2).astype("bfloat16").astype(x.dtype)), X)
bare = lambda: 3.0
leaving = lambda x=X: exit(0)
raising = lambda: 1 / 0
words = lambda x=X: "none"
stages = (jnp.tanh, jnp.sin)
sized = lambda in_size=4, classes=3: 3
"""


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    path = tmp_path_factory.mktemp("free") / "free.py"
    path.write_text(FREE)
    return str(path)


@pytest.mark.parametrize(
    ("name", "verdict", "code"),
    [
        ("pair", "exact", 0),
        ("made", "exact", 0),
        ("compiled", "exact", 0),
        ("declared", "deliberate", 0),
        ("wrong", "refuted", 1),
        ("dead", "untested", 3),
        ("undefined", "undefined", 3),
        ("detached", "detached", 3),
        ("coarse", "consistent", 3),
    ],
)
def test_a_function_brings_its_arguments_and_the_code_says_what_was_shown(
    name, verdict, code, free, tmp_path, capsys
):
    found, out, err = run(capsys, f"{free}:{name}", "--out", str(tmp_path))
    assert (found, err) == (code, ""), out
    assert f"Certificate: {verdict}" in out
    assert f"verdict: {verdict}" in out
    assert ("not shown" in out) == (code == 3)
    refuse = lambda constant: pytest.fail(f"{constant} in JSON")
    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert result["verdict"] == verdict
    (facts,) = result["networks"].values()
    place = min(facts["places"], key=lambda p: p["verdict"] != verdict)
    assert list(place) == [
        "verdict", "gap", "reach", "live", "rule", "file", "line", "function", "scope", "iteration",
        "argument", "parameter", "index", "sample", "channel", "arithmetic", "reason", "stage",
    ]  # fmt: skip
    assert place["file"] == free
    if name == "wrong":
        matches("verify-function", {**result, "networks": list(result["networks"].values())})
    page = (tmp_path / "report.html").read_text()
    assert (f"free.py:{place['line']}</figcaption>" in page) == (verdict != "exact")
    assert ("<mark>" in page) == (verdict != "exact")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("pair", "--data", "iris"), "--data: says nothing of"),
        (("pair", "--steps", "3"), "--steps: says nothing of"),
        (("pair", "--optimality"), "--optimality: says nothing of"),
        (("bare",), "returns (fn, args), args a tuple; it returned float"),
        (("raising",), ": division by zero"),
        (("words",), "cannot be traced"),
        (("leaving",), "SystemExit"),
        (("sized",), "found int"),
        (("stages",), "one logit a class is needed"),
    ],
)
def test_what_is_no_function_to_verify_is_one_line(line, message, free, tmp_path, capsys):
    out = tmp_path / "out"
    code, _, err = run(capsys, f"{free}:{line[0]}", *line[1:], "--out", str(out))
    assert code == 2, err
    assert err.count("\n") == 1
    assert message in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def fn(x=X):\n    return missing * x", "NameError at {at} in fn"),
        ("def fn():\n    return 1 / 0, X", "ZeroDivisionError at {at} in fn"),
        (
            "rule.defvjp(lambda x: (jnp.sum(x), x), lambda x, p:\n    ({}[0],))\nfn = rule, X",
            "KeyError at {at}",
        ),
        ("fn = None\nX / missing", "NameError at {at}"),
    ],
    ids=["body", "made", "rule", "file"],
)
def test_an_error_in_the_user_s_file_is_told_with_its_line(text, error, tmp_path, capsys):
    above = "import jax, jax.numpy as jnp\nX = jnp.ones(3)\nrule = jax.custom_vjp(lambda x: jnp.sum(x))\n"
    path = tmp_path / "mine.py"
    path.write_text(above + text)
    line = len(above.splitlines()) + 2  # the second of `text`
    code, out, err = run(capsys, f"{path}:fn", "--out", str(tmp_path / "out"))
    assert code == 2, out
    assert error.format(at=f"mine.py:{line}") in err
    assert err.count("\n") == 1


def test_networks_and_functions_in_one_line(free, own, tmp_path, capsys):
    options = ("--data", "iris", "--samples", "20", "--steps", "0", "--out", str(tmp_path / "o"))
    code, out, err = run(capsys, f"{free}:dead", "--architecture", f"{own}:network", *options)
    assert (code, err) == (1, ""), out  # what is refuted speaks before what is untested
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert list(result["networks"]) == [f"{free}:dead", f"{own}:network, at its start"]
