"""A faulty tool turns its claim unsound: it returns a constant, the opposite, or a hundredth too much.

Here a few tools; `test_every_tool_of_every_claim` tries all, and is slow.
"""

import pytest

from hjcontrol.reproduction import CLAIMS, by_id
from tests.reproduction.faulty import FAULTS, audit_with_fault, tools

pytestmark = pytest.mark.xdist_group("claims")
EVERY = [(c.id, tool) for c in CLAIMS for tool in tools(c)]
CARRIED = {  # the claim reads their weights, and calls no method of theirs
    ("folds", "hjcontrol.deformation:LSE"),
    ("landscape-counts", "hjcontrol.deformation:LSE"),
}
FEW = [
    ("core-identity", "hjcontrol.hamilton_jacobi:hopf_cole", "hundredth"),
    ("monotone-robustness", "hjcontrol.analysis.robustness:lipschitz", "hundredth"),
    ("monotone-robustness", "hjcontrol.analysis.robustness:layer_curvature", "constant"),
    ("diffusion-radius", "hjcontrol.analysis.extrapolation:gap", "opposite"),
    ("semiring-limit", "hjcontrol.deformation:lse", "hundredth"),
    ("tropical-bound", "hjcontrol.layers:Softplus", "opposite"),
]


def turned(name, tool, fault):
    """Whether the claim's audit is unsound with that tool, or refuses what the tool gives; `None` where
    the claim saw no number of it."""
    assert tool in tools(by_id(name))
    try:
        trial = audit_with_fault(by_id(name), tool, fault)
    except (ValueError, ArithmeticError):  # another tool will not take what it gives
        return True
    return trial.turned if trial.spoilt else None


@pytest.mark.parametrize(("name", "tool", "fault"), FEW)
def test_a_faulty_tool_turns_its_claim_unsound(name, tool, fault):
    before = {k: id(v) for k, v in vars(by_id(name)).items()}
    assert turned(name, tool, fault)
    assert {k: id(v) for k, v in vars(by_id(name)).items()} == before


def test_every_claim_calls_a_tool_that_users_call():
    assert {name for name, _ in EVERY} == {c.id for c in CLAIMS}


@pytest.mark.parametrize(("name", "tool"), EVERY)
def test_every_tool_of_every_claim(name, tool):
    told = {fault: turned(name, tool, fault) for fault in FAULTS}
    if set(told.values()) == {None}:
        assert (name, tool) in CARRIED
    else:
        assert set(told.values()) == {True}, told


def test_a_tool_that_is_not_called_is_refused():
    with pytest.raises(ValueError, match=r"a tool of .*hopf_cole.* found 'hjcontrol:verify'"):
        audit_with_fault(by_id("core-identity"), "hjcontrol:verify", "opposite")
