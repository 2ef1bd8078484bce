"""The sweep over the registry: every claim sound, every control turning it, the docs page current."""

import functools
import pathlib
import re

import pytest

from hjcontrol.reproduction import CLAIMS, VERDICTS, audit, by_id

pytestmark = pytest.mark.xdist_group("claims")  # a claim is audited once, whichever law asks
IDS = [c.id for c in CLAIMS]
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "claims.md"


@functools.cache
def entry(name):
    return next(audit([by_id(name)], fast=True))


@functools.cache
def sections():
    """The page by claim: verdict, and rows of its findings by their name."""
    found = {}
    for part in PAGE.read_text(encoding="utf-8").split('<h2 id="')[1:]:
        name = part[: part.index('"')]
        verdict = re.search(r"^\*\*(.+?)\*\*", part, re.M).group(1)
        rows = {}
        for line in part.split("*Control*")[0].splitlines():
            cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) == 7:
                rows[cells[0].replace("\\|", "|")] = cells
        found[name] = verdict, rows
    return found


@pytest.mark.parametrize("name", IDS)
def test_the_claim_comes_out_as_recorded_and_its_control_turns(name):
    found = entry(name)
    assert found.faults == ()
    assert found.verdict == found.claim.recorded
    assert found.control.findings
    held = {f.name: f.holds for f in found.evidence.findings}
    assert all(f.holds != held[f.name] for f in found.control.findings)
    tried = {f.name for f in found.control.findings}
    assert {f.name for f in found.evidence.findings if f.role == "stated"} <= tried
    if found.verdict == "fails as stated":
        assert "found" in found.counterexample


@pytest.mark.parametrize("name", IDS)
def test_the_docs_page_is_current(name):
    verdict, rows = sections()[name]
    found = entry(name)
    assert verdict == found.verdict
    for f in found.evidence.findings:
        row = rows[f.name]
        assert row[6] == ("yes" if f.holds else "no")
        printed = [float(v) for v in row[4].split(" and ")[0].split(", ")]
        if f.relation == "=" and f.holds:
            for ours, expected in zip(printed, f.expected, strict=False):
                assert abs(ours - expected) <= f.tol + 1e-4 * abs(expected)


def test_the_page_has_every_claim_in_the_registry_s_order():
    assert list(sections()) == IDS


def test_the_registry_is_whole():
    assert len(set(IDS)) == len(IDS)
    folder = pathlib.Path(__file__).parents[2] / "hjcontrol" / "reproduction" / "claims"
    files = [p for p in folder.glob("*.py") if "\nCLAIM = Claim(" in p.read_text(encoding="utf-8")]
    assert len(files) == len(CLAIMS), "a claim's file is missing in registry.FILES"
    assert {c.recorded for c in CLAIMS} == set(VERDICTS)
    for c in CLAIMS:
        assert all((c.title, c.source, c.published, c.precise, c.fault))
