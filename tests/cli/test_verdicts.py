"""Exit codes of certificates: 1 is a refutation, 0 needs every certificate to hold, the rest is 3."""

import pytest

import hjcontrol as hj
from hjcontrol.cli import main
from hjcontrol.cli.command import exit_code, told, verdict
from hjcontrol.verification.verdicts import ORDER
from tests.cli import fakes
from tests.reporting.pieces import certificate


def test_one_verdict_and_one_code_for_all():
    good = {"good": certificate()}
    for word in ORDER:
        found = good | {"other": certificate(verdict=word)}
        worse = word not in ("exact", "no custom rule")
        assert verdict(found) == (word if worse else "exact")
        expected = {"refuted": 1, "exact": 0}.get(word, 3)  # the stand-in accepts `exact` alone
        assert exit_code(found) == expected
        assert len(told(found)) == (2 if expected == 3 else 1)
    assert (verdict({}), exit_code({})) == (None, 3)
    assert told({}) == ["verdict: none, nothing was verified"]


@pytest.mark.parametrize("word", ["untested", "undefined", "detached", "consistent"])
def test_crosscheck_says_three_where_not_all_was_shown(word, monkeypatch, tmp_path, capsys):
    fakes.install(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hj, "verify", lambda s, **k: fakes.verify(s, verdict=word))
    line = ["crosscheck", "--data", "iris", "--width", "3", "--depth", "2", "--solver", "newton"]
    assert main(line) == 3
    assert f"verdict: {word}\nnot shown, newton: {word}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "code"), [("untested", 3), ("refuted", 1), (None, 3)])
def test_solve_says_three_where_not_all_was_shown(word, code, monkeypatch, tmp_path, capsys):
    def verify(solution, **asked):
        if word is None:
            raise ValueError("no backward pass")
        return fakes.verify(solution, verdict=word)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hj, "verify", verify)
    monkeypatch.setattr("hjcontrol.reporting.html.write_page", lambda path, *a: path.write_text(""))
    (tmp_path / "p.toml").write_text(
        'data = "iris"\nsolver = "adam"\nmax-steps = 2\nsamples = 10\n[network]\nwidth = 2\ndepth = 1\n'
    )
    assert main(["solve", "p.toml"]) == code
    out = capsys.readouterr().out
    assert f"verdict: {word or 'none, nothing was verified'}" in out
