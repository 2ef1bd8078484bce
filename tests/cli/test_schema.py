"""Settings: the command line over the file over the defaults, each value checked at once."""

from pathlib import Path

import pytest

from hjcontrol.cli.crosscheck import Asked
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.schema import read

pytestmark = pytest.mark.any_precision


def settings(given, config=None):
    return read(Asked, given, None if config is None else ("--config ", config))


def config(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return str(path)


def test_defaults():
    assert settings({}) == Asked()
    assert settings({"width": None, "solver": []}) == Asked()


def test_command_line_over_file_over_default(tmp_path):
    text = 'width = 5\ntrain-size = 100\nsolver = ["newton"]\nridge = 0\nstep = 1\nout = "here"\n'
    found = settings({"width": "7"}, config(tmp_path, text))
    assert found == Asked(
        width=7, train_size=100, solver=("newton",), ridge=0.0, step=1.0, out=Path("here")
    )
    assert settings({}, config(tmp_path, "direct_samples = 3")).direct_samples == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("500", 500), ("75%", 0.75), ("12.5 %", 0.125), ("1", 1), ("1e-1", 0.1)],
)
def test_train_size(text, value):
    assert settings({"train_size": text}).train_size == value


BAD = [
    ("width", "0"), ("width", "2.5"), ("width", "wide"), ("width", "99999999999"),
    ("depth", "0"), ("depth", "-3"), ("depth", ""), ("step", "nan"), ("step", "0"),
    ("step", "inf"), ("ridge", "-1e-3"), ("ridge", "nan"), ("seed", "-1"), ("seed", "1.0"),
    ("train_size", "0"), ("train_size", "1.5"), ("train_size", "100%"), ("train_size", "-5"),
    ("train_size", "nan"), ("train_size", "half"), ("solver", "newtn"), ("direct_samples", "1"),
    ("data", ""), ("target", ""), ("out", ""), ("width", True), ("solver", 3), ("data", 3),
    ("solver", {"a": 1}), ("ridge", "1 e-3"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BAD)
def test_bad_value_is_named(key, value):
    with pytest.raises(CommandError) as error:
        settings({key: value})
    assert f"--{key.replace('_', '-')}" in str(error.value)
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("widht = 3", ["unknown key 'widht'", "direct-samples", "mean 'width'"]),
        ("config = 'a'", ["unknown key"]),
        ("width = 0", ["run.toml: width", "found 0"]),
        ("width = true", ["run.toml: width"]),
        ("width = [1]", ["run.toml: width"]),
        ("solver = []", ["at least one"]),
        ("width 3", ["not valid TOML", "line 1"]),
        ("train-size = 1\ntrain_size = 2", ["twice"]),
        ("[crosscheck]\nwidth = 3", ["unknown key 'crosscheck'"]),
    ],
)
def test_bad_config_is_named(tmp_path, text, words):
    with pytest.raises(CommandError) as error:
        settings({}, config(tmp_path, text))
    for word in words:
        assert word in str(error.value)


def test_config_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(CommandError, match="cannot be read"):
            settings({}, str(path))
    (tmp_path / "latin.toml").write_bytes(b"data = '\xe9'")
    with pytest.raises(CommandError, match="TOML"):
        settings({}, str(tmp_path / "latin.toml"))


def test_solvers_are_those_of_the_library():
    from hjcontrol.solvers import NAMES

    assert settings({"solver": ["newton", "all"]}).solvers == NAMES
    assert settings({"solver": ["newton"]}).solvers == ("newton",)


def test_a_solver_named_twice_runs_once():
    assert settings({"solver": ["newton", "adam", "newton"]}).solver == ("newton", "adam")
