"""`doctor` says what is here and what to do about the rest, whatever is broken."""

import importlib.metadata
import json

import pytest

from hjcontrol.cli import main
from tests.cli.golden import matches


def run(tmp_path, capsys):
    assert main(["doctor", "--out", str(tmp_path / "d")]) == 0
    out, err = capsys.readouterr()
    assert "hjcontrol" not in err  # CasADi may warn of plugins that other tests have loaded
    path = tmp_path / "d" / "result.json"
    assert out.splitlines()[-1] == str(path)
    return out, json.loads(path.read_text())


def test_this_machine(tmp_path, capsys):
    out, result = run(tmp_path, capsys)
    matches("doctor", {"checks": result["checks"][:2], "missing": result["missing"]})
    state = {c["item"]: c["state"] for c in result["checks"]}
    for item in ("python", "devices", "float64", "casadi nlpsol", "cvxpy solvers"):
        assert state[item] == "ok"
        assert item in out


def test_a_missing_requirement_has_a_remedy(tmp_path, capsys, monkeypatch):
    def version(name):
        if name == "optax":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda n: ["optax>=0.2", "ruff; extra == 'x'"]
    )
    out, result = run(tmp_path, capsys)
    assert result["missing"] == ["optax"]
    assert "pip install 'optax>=0.2'" in out


@pytest.mark.parametrize("error", [ImportError("no such library"), OSError("libfoo.so")])
def test_a_broken_library_is_a_line_not_a_crash(tmp_path, capsys, monkeypatch, error):
    def broken():
        raise error

    monkeypatch.setattr("hjcontrol.solvers.direct.loadable_backends", broken)
    out, _ = run(tmp_path, capsys)
    assert str(error) in out


def test_unwritable_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["doctor", "--out", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
