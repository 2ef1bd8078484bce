"""The main job itself, real throughout, on a small data set."""

import json

from hjcontrol.cli import main


def test_direct_and_newton_meet_and_the_witness_agrees(tmp_path, monkeypatch, capsys):  #: 2e-16
    monkeypatch.chdir(tmp_path)
    assert (
        main(["crosscheck", "--data", "wine", "--solver", "direct", "--direct-samples", "12"]) == 0
    )
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "crosscheck/result.json"
    result = json.loads((tmp_path / "crosscheck" / "result.json").read_text())
    assert result["verdict"] == "exact"
    assert result["solvers"]["direct"]["stationarity"] <= 1e-9
    assert result["direct"]["objective_gap"] <= 1e-10
    assert result["direct"]["weight_distance"] <= 1e-5
    assert result["direct"]["multiplier_disagreement"] <= 1e-9
    assert max(result["costate"]["direct"].values()) <= 1e-9
    assert (tmp_path / "crosscheck" / "report.html").stat().st_size > 50_000
