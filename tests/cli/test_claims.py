"""`claims` as a person meets it: exit codes, lines, files."""

import json

import pytest

import hjcontrol.reproduction as reproduction
from hjcontrol.cli import main
from hjcontrol.reproduction import record
from tests.cli.golden import matches

CHEAP = ["claims", "--fast", "--only", "effective-dimension", "--only", "near-shocks"]
pytestmark = pytest.mark.xdist_group("claims")


def strict(path):
    refuse = lambda name: pytest.fail(f"{name} in JSON")
    return json.loads(path.read_text(), parse_constant=refuse)


def test_two_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    times, curves = [], record.claim_curves
    monkeypatch.setattr(record, "claim_curves", lambda picture: times.append(1) or curves(picture))
    assert main(CHEAP) == 0
    assert len(times) == 1  # one picture, drawn once for the page and the page of the docs
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[-3:] == ["claims/claims.html", "claims/claims.md", "claims/claims.json"]
    assert "2 of 2 sound; 4 of 4 controls turned, as they must" in lines
    assert any(line.startswith("effective-dimension: 1/α") for line in lines)  # its counterexample
    result = strict(tmp_path / "claims" / "claims.json")
    assert result["sound"] is True
    assert [c["verdict"] for c in result["claims"]] == ["fails as stated", "heuristic"]
    matches("claims", result)
    for claim in result["claims"]:
        held = {f["name"]: f["holds"] for f in claim["findings"]}
        assert all(f["holds"] is not held[f["name"]] for f in claim["control"]["findings"])
    page = (tmp_path / "claims" / "claims.html").read_text()
    lead, rest = page.split("</header>")
    assert "Of 2 claims, 1 is heuristic and 1 fails as stated. Every claim came out" in lead
    assert 'aria-label="Claims by verdict: 1 heuristic, 1 fails as stated"' in lead
    assert (lead.count("<figure>"), rest.count("<figure>")) == (1, 1)
    assert "<details open" not in rest
    assert "<script" not in page
    assert "hjcontrol claims --fast" in page
    assert (tmp_path / "claims" / "claims" / "near-shocks.svg").exists()
    assert "![Curvature" in (tmp_path / "claims" / "claims.md").read_text()


def test_an_unsound_claim_is_said_and_is_exit_code_1(tmp_path, monkeypatch, capsys):
    import dataclasses

    wrong = dataclasses.replace(reproduction.by_id("effective-dimension"), recorded="holds exactly")
    monkeypatch.setattr(reproduction, "by_id", lambda name: wrong)
    assert main([*CHEAP[:4], "--out", str(tmp_path)]) == 1
    assert (
        "UNSOUND effective-dimension: the verdict is 'fails as stated'" in capsys.readouterr().out
    )
    assert strict(tmp_path / "claims.json")["sound"] is False
    lead, rest = (tmp_path / "claims.html").read_text().split("</header>")
    assert "Of 1 claim, 1 fails as stated. 0 of the 1 came out as recorded" in lead
    assert rest.count("<details open") == 1


def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch, capsys):
    real = reproduction.audit

    def interrupted(claims, *, fast):
        if claims[0].id == "near-shocks":
            raise KeyboardInterrupt
        return real(claims, fast=fast)

    monkeypatch.setattr(reproduction, "audit", interrupted)
    assert main([*CHEAP, "--out", str(tmp_path)]) == 130
    assert "interrupted; 1 of 2 claims finished and kept" in capsys.readouterr().err
    result = strict(tmp_path / "claims.json")
    assert result["interrupted"] is True
    assert [c["id"] for c in result["claims"]] == ["effective-dimension"]
    assert main([*CHEAP[:2], "--only", "near-shocks", "--out", str(tmp_path / "new")]) == 130
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["core-identify", ""])
def test_an_unknown_claim_is_bad_usage(tmp_path, capsys, name):
    assert main(["claims", "--only", name, "--out", str(tmp_path / "new")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "--only: claim" in err
    assert not (tmp_path / "new").exists()
