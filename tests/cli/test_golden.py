"""Every refusal that needs nothing heavy, word by word; that the golden files would notice a change."""

import pytest

from hjcontrol.cli import main
from tests.cli.golden import differences, masked, matches

REFUSED = """
crosscheck --depth 0
crosscheck --width 99999999999
crosscheck --step nan
crosscheck --ridge -1
crosscheck --train-size half
crosscheck --solver newtn
crosscheck --config bad.toml
crosscheck --config absent.toml
crosscheck --widht 3
crosscheck --width
crosscheck digits
solve
solve p.toml --solver newtn
solve p.toml --resume
solve p.toml --every never
verify --samples 1
verify --steps -3
verify --seed x
fit-convex --model logistik
fit-convex --eps 0
fit-convex --model dc --eps -1
fit-convex --eps cold
fit-convex --atoms 0
fit-convex --ridge -1
certify cand.npz
certify cand.npz --layer softmax --eps -1
certify cand.npz --layer softmax --tolerance x
pde one.npz --time 0
pde one.npz --time 1e308
pde one.npz --window inf
doctor --out p.toml
frobnicate
""".strip().splitlines()


def test_refusals_say_what_they_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("widht = 3\n")
    (tmp_path / "p.toml").write_text('data = "iris"\n')
    said = {}
    for line in REFUSED:
        code = main(line.split())
        out, err = capsys.readouterr()
        said[line] = [code, out, err]
    matches("refused", said)


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [
        ({"a": 1.0}, {"a": 1.0 + 1e-12}, 0),
        ({"a": 1.0}, {"a": 1.0 + 1e-7}, 1),
        ({"a": 1.0, "b": 2}, {"b": 2, "a": 1.0}, 1),
        ({"a": [1, "x"]}, {"a": [1, "y"]}, 1),
        ({"a": 1}, {"a": True}, 1),
        ({"a": None}, {"a": 0.0}, 1),
    ],
)
def test_a_change_is_noticed(old, new, count):
    assert len(differences(old, new)) == count


def test_times_are_masked():
    assert masked({"solve_seconds": 3.0, "a": [{"seconds": 1}]}) == {
        "solve_seconds": "<solve_seconds>",
        "a": [{"seconds": "<seconds>"}],
    }
