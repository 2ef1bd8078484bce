"""`list` names what the other commands take, and its first names stay."""

import json

import pytest

from hjcontrol.cli import main
from hjcontrol.cli.list import KINDS
from hjcontrol.layers import REGISTRY
from hjcontrol.networks import ARCHITECTURES
from hjcontrol.solvers import NAMES

EXPECTED = {
    "layers": list(REGISTRY),
    "architectures": list(ARCHITECTURES),
    "solvers": list(NAMES),
    "costs": ["ridge", "smoothing"],
    "sets": ["box", "l2ball", "ternary"],
    "claims": ["core-identity", "near-shocks"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_list_by_name_as_json_and_as_a_table(kind, capsys):
    assert main(["list", kind, "--names"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert set(EXPECTED[kind]) <= set(names)
    assert main(["list", kind, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told[kind]] == names
    assert main(["list", kind]) == 0
    out = capsys.readouterr().out
    assert KINDS[kind].hint in out
    assert main(["list", kind, "--markdown"]) == 0
    assert "---" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["layers", "architectures"])
def test_the_first_names_of_two_lists_stay(kind, capsys):
    assert main([kind]) == 0
    first = capsys.readouterr()
    assert main(["list", kind]) == 0
    assert capsys.readouterr() == first


def test_an_unknown_list_is_one_line(capsys):
    assert main(["list", "layer"]) == 2
    assert "Did you mean 'layers'?" in capsys.readouterr().err
