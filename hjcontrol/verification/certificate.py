"""The verdict on a backward pass, stage by stage, and how it was reached.

    exact        two discrete routes agree to roundoff
    consistent   they agree as far as the less accurate one can tell; where one of them is continuous,
                 their gap shrinks at the expected order
    refuted      they do not; the stage is named

`kinks` are stages where the routes chose different subgradients, both legitimate: not refuted.
"""

from typing import Any

import equinox as eqx
import numpy as np

from hjcontrol.verification.conditions import Optimality

EXACT, CONSISTENT, REFUTED = "exact", "consistent", "refuted"


class Finding(eqx.Module):
    """A place and the relative disagreement found there. `where`: "state" (of stage `index`, whose
    rule for the state it tests; `index = K` is the terminal cost) or "weights"."""

    index: int
    where: str
    stage: str
    disagreement: float
    pair: str

    def __str__(self) -> str:
        return f"{self.where} of {self.index} ({self.stage})"


class Pair(eqx.Module):
    """Two routes compared. `states`: `(K + 1,)`, `weights`: `(K,)`, `None` where not compared;
    NaN where a route says nothing."""

    name: str
    kind: str
    verdict: str
    states: np.ndarray | None
    weights: np.ndarray | None
    worst: Finding | None
    disagreement: float
    # Of a pair judged by it: measured order (`None`: nothing left to measure), expected, and in what.
    order: tuple[float | None, float, str] | None = None
    remark: str = ""  # what the verdict rests on, where it needs saying


class Certificate(eqx.Module):
    """What `hj.verify` returns. `print` it for the table."""

    pairs: tuple[Pair, ...]
    refuted: tuple[Finding, ...]
    kinks: tuple[Finding, ...]
    differenced: tuple[int, ...]  # stages judged by differences instead of forward mode
    objective: float
    stationarity: float
    feasibility: float
    curvature: tuple[float, float] | None  # smallest Ritz value, residual bound
    minimum: np.ndarray | None  # decrease found in each stage's Hamiltonian
    tolerance: float
    problem: dict[str, Any]
    optimality: Optimality | None = None

    @property
    def verdict(self) -> str:
        """`refuted` if any pair is; `exact` if every pair of exact kind is; else `consistent`."""
        if any(p.verdict == REFUTED for p in self.pairs):
            return REFUTED
        exact = [p.verdict == EXACT for p in self.pairs if not _looser(p)]
        return EXACT if exact and all(exact) else CONSISTENT

    @property
    def worst(self) -> Finding | None:
        """The stage refuted most plainly, else the place of the largest disagreement."""
        if self.refuted:
            return self.refuted[0]
        exact = [p.worst for p in self.pairs if not _looser(p) and p.worst]
        return max(
            exact or [p.worst for p in self.pairs if p.worst],
            key=lambda f: f.disagreement,
            default=None,
        )

    @property
    def agreement(self) -> dict[str, float]:
        """Worst relative disagreement of each pair of exact routes."""
        return {p.name: p.disagreement for p in self.pairs if not _looser(p)}

    @property
    def finite_difference(self) -> float | None:
        """Worst relative disagreement with differences of J; `None` if not asked."""
        found = [p.disagreement for p in self.pairs if "finite_difference" in p.name]
        return max(found, default=None)

    @property
    def per_stage(self) -> dict[str, dict[str, np.ndarray | None]]:
        """For each pair, `{"states": (K + 1,), "weights": (K,)}`."""
        return {p.name: {"states": p.states, "weights": p.weights} for p in self.pairs}

    def __str__(self) -> str:
        q = self.problem
        lines = [
            f"Certificate: {self.verdict}   ({q['samples']} samples, {q['stages']} stages, "
            f"{q['weights']} weights, {q['dtype']}; exact means <= {self.tolerance:.0e})",
            f"  {'routes':<28}{'states':>9}{'weights':>9}   {'verdict':<11} worst",
        ]
        for p in self.pairs:
            numbers = "".join(f"{_worst(a):>9}" for a in (p.states, p.weights))
            lines.append(f"  {p.name:<28}{numbers}   {p.verdict:<11} {p.worst or ''}")
            if p.order is not None:
                lines.append(f"    {_order(*p.order)}")
            if p.remark:
                lines.append(f"    {p.remark}")
        lines.append(f"  stationarity  {self.stationarity:.2e}   (max |dH/dtheta|)")
        lines.append(f"  feasibility   {self.feasibility:.2e}   (max |F_k(x_k) - x_k+1|)")
        if self.curvature is not None:
            value, bound = self.curvature
            lines.append(f"  curvature     {value:.3e} +- {bound:.0e}   (smallest, Lanczos)")
        if self.minimum is not None:
            k = int(np.argmax(self.minimum))
            lines.append(
                f"  minimum       H lowered by {self.minimum[k]:.2e} at stage {k}   (a diagnostic)"
            )
        if self.differenced:
            lines.append(f"  by differences, not forward mode: stages {_few(self.differenced)}")
        if self.kinks:
            lines.append(f"  kinks, two subgradients: {_few(self.kinks)}")
        if self.refuted:
            lines.append(f"  refuted: {_few(self.refuted)}")
        if self.optimality is not None:
            lines.append(str(self.optimality))
        return "\n".join(lines)


def _looser(pair: Pair) -> bool:
    """Whether the pair compares with a reference that no discrete route could equal."""
    return "finite_difference" in pair.name or "costate_equation" in pair.name


def _order(measured: float | None, expected: float, of: str) -> str:
    if measured is None:
        return f"the gap is roundoff as the {of} is refined (order {expected:g} expected)"
    return f"the gap shrinks with order {measured:.2f} in the {of} ({expected:g} expected)"


def _worst(values: np.ndarray | None) -> str:
    if values is None or np.all(np.isnan(values)):
        return "-"
    return f"{np.nanmax(values):.1e}"


def _few(items: tuple) -> str:
    shown = ", ".join(str(i) for i in items[:4])
    return shown + (f" and {len(items) - 4} more" if len(items) > 4 else "")
