"""What follows from findings: each verdict, and every way in which an entry is unsound."""

import dataclasses

import numpy as np
import pytest

from hjcontrol.reproduction import Claim, at_least, at_most, audit, by_id, equal, evidence, zero
from hjcontrol.reproduction.claim import counterexample, verdict

GOOD = zero("residual", 0.0, 1e-12)
BAD = zero("stated residual", 0.5, 1e-12)
BOUND = at_most("error", 0.5, 1.0)
AMENDED = zero("amended", 1e-14, 1e-12, role="amended")
INSTEAD = zero("instead", 0.0, 1e-12, role="instead")


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("findings", "rule", "expected"),
    [
        ((GOOD, INSTEAD), False, "holds exactly"),
        ((GOOD, BOUND), False, "holds within its bound"),
        ((BAD, AMENDED), False, "holds once amended"),
        ((BAD, INSTEAD), False, "fails as stated"),
        ((BAD, dataclasses.replace(BAD, role="amended")), False, "fails as stated"),
        ((GOOD, BAD), True, "heuristic"),
        ((BAD,), True, "fails as stated"),
        ((GOOD,), True, "holds within its bound"),
    ],
)
def test_each_verdict_follows_from_its_findings(findings, rule, expected):
    assert verdict(findings, rule) == expected


def test_without_a_stated_finding_there_is_no_verdict():
    with pytest.raises(ValueError, match="role 'stated'; found 1 others"):
        verdict((INSTEAD,))


@pytest.mark.smoke
def test_relations_and_their_tolerance():
    assert equal("a", [1.0, 2.0], [1.0, 2.0], 0.0).holds
    assert equal("a", [1.0, 2.0 + 1e-9], [1.0, 2.0], 1e-8).holds
    assert not equal("a", [1.0, 2.1], [1.0, 2.0], 1e-8).holds
    assert at_most("a", 1.0 + 1e-15, 1.0, slack=1e-14).holds
    assert not at_most("a", 1.1, 1.0).holds
    assert at_least("a", 1.0, 1.0).holds
    assert not at_least("a", 0.9, 1.0).holds
    assert not equal("a", np.nan, 0.0, 1e3).holds  # a NaN is never as expected
    assert not at_most("a", np.nan, 1e3).holds
    with pytest.raises(ValueError, match="3 numbers were measured and 2 expected"):
        equal("a", [1.0, 2.0, 3.0], [1.0, 2.0], 0.0)


def test_the_counterexample_is_the_worst_number_of_the_first_that_fails():
    failing = equal("slopes", [1.0, 7.0, 2.0], 1.0, 0.1)
    assert counterexample((GOOD, failing, BAD)) == "slopes: stated 1, found 7"
    assert counterexample((at_most("x", 3.0, 2.0),)) == "x: stated at most 2, found 3"
    one_sided = at_most("x", [0.0, 1.05], 1.0)  # 0 is farther from 1, and holds
    assert counterexample((one_sided,)) == "x: stated at most 1, found 1.05"
    assert at_least("x", [5.0, 0.9], 1.0).worst == 1
    assert at_most("x", [0.0, np.nan, 9.0], 1.0).worst == 1
    assert counterexample((GOOD, INSTEAD)) is None


def claim(check, control, recorded):
    return Claim(
        id="toy", title="Toy", source="here", published="0 = 0", precise="0 = 0",
        check=lambda fast: evidence(*check), fault="it is broken",
        control=lambda fast: evidence(*control), recorded=recorded,
    )  # fmt: skip


BROKEN = zero("residual", 1.0, 1e-12)


@pytest.mark.parametrize(
    ("check", "control", "recorded", "fault"),
    [
        ((GOOD,), (BROKEN,), "holds exactly", None),
        (
            (GOOD,),
            (BROKEN,),
            "heuristic",
            "the verdict is 'holds exactly', on record is 'heuristic'",
        ),
        (
            (GOOD,),
            (GOOD,),
            "holds exactly",
            "control, residual: holds all the same although it is broken",
        ),
        (
            (GOOD, BOUND),
            (BROKEN,),
            "holds within its bound",
            "error: stated, and no control tries it",
        ),
        ((BAD, AMENDED), (zero("stated residual", 0.0, 1e-12),), "holds once amended", None),
        (
            (BAD, AMENDED),
            (BAD,),
            "holds once amended",
            "control, stated residual: fails all the same although it is broken",
        ),
        ((GOOD,), (BROKEN, BAD), "holds exactly", "no finding of the check has this name"),
        (
            (GOOD, equal("number", 2.0, 3.0, 0.1, role="number")),
            (BROKEN,),
            "holds exactly",
            "number: 2, not = 3 to 1.0e-01",
        ),
    ],
)
def test_what_makes_an_entry_unsound(check, control, recorded, fault):
    (entry,) = audit([claim(check, control, recorded)])
    assert entry.sound == (fault is None)
    assert entry.summary()["sound"] == entry.sound
    if fault is not None:
        (said,) = entry.faults
        assert fault in said


def test_an_unknown_claim_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'core-identify' is unknown"):
        by_id("core-identify")
