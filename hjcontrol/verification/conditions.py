"""From numbers to a verdict on optimality, and the table that shows it.

holds      a necessary condition, within what is allowed
violated   it is not; where, and by how much
undecided  Lanczos has not converged: the smallest curvature may be lower than what it found
yes, no    a diagnostic: true of continuous optima, not required of a discrete one

What may be left of a gradient, a multiplier or a Hamiltonian is the tolerance times the unit of
dJ/dtheta, of a curvature the tolerance times the unit of the largest one (`control.units`): J and 1e-8 J
have the same verdicts, and where dJ/dtheta is of order one the tolerance is the number it looks like.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.record import Quantity, Record, Told
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem
from hjcontrol.control.path_checks import names_of
from hjcontrol.control.units import unit
from hjcontrol.networks import Flow, Run
from hjcontrol.verification.curvature import settled
from hjcontrol.verification.faces import faces_known
from hjcontrol.verification.optimality import Found
from hjcontrol.verification.path_conditions import Claimed, PathFound

Title = Callable[[int], str]

CLAIMED = 1e-5  # claimed costates are as good as their solver's tolerance
HOLDS, VIOLATED, UNDECIDED, YES, NO = "holds", "violated", "undecided", "yes", "no"
FLAT = 1e-3  # of the tolerance: a curvature that is zero
NOISE = 1e3  # of the roundoff of dJ/dtheta


class Condition(Shown):
    """One row: `value`, what is `allowed` (`None`: nothing to compare with), verdict, place, remark."""

    name: str
    value: float
    allowed: float | None
    verdict: str
    where: str = ""
    remark: str = ""
    necessary: bool = True
    least: bool = False  # whether `allowed` bounds the value from below

    @property
    def should(self) -> str:
        """What the value should be, in ASCII; a dash where nothing is asked."""
        if self.allowed is None:
            return "-"
        return f"{'>=' if self.least else '<='} {self.allowed:.1e}"


@renamed(tolerance="tol")
class Conditions(Told, Shown):
    """Every condition of optimality at a point. `print` it for the table."""

    conditions: tuple[Condition, ...]
    legendre: np.ndarray  # (K,) smallest eigenvalue of d2H_k/dtheta2; inf where nothing is free
    exact_gap: np.ndarray  # (K,) NaN where there is no closed form
    sampled_gap: np.ndarray  # (K,)
    curvature: tuple[float, float]
    tol: float
    unit: float = 1.0  # of dJ/dtheta
    flat: float = 0.0  # a curvature that is zero

    @property
    def violated(self) -> tuple[Condition, ...]:
        """Necessary conditions that do not hold."""
        return tuple(c for c in self.conditions if c.verdict == VIOLATED)

    @property
    def verdict(self) -> str:
        """`not optimal` if a necessary condition is violated; `undecided` if Lanczos has not converged;
        `strict minimum` if the smallest curvature on the free face is positive beyond its bound; else
        `stationary`."""
        if self.violated:
            return "not optimal"
        if self["curvature of J"].verdict == UNDECIDED:
            return UNDECIDED
        value, bound = self.curvature
        return "strict minimum" if value > max(bound, self.flat) else "stationary"

    def __getitem__(self, name: str) -> Condition:
        for c in self.conditions:
            if c.name == name:
                return c
        raise KeyError(
            f"no condition {name!r}; there are {', '.join(c.name for c in self.conditions)}"
        )

    def as_record(self) -> Record:
        """What this result says of itself."""
        of = "" if self.unit == 1 else f" in units of dJ/dtheta, {self.unit:.0e}"
        tone = {"strict minimum": "good", "not optimal": "bad"}.get(self.verdict, "partial")
        row = lambda c: {
            "condition": c.name,
            "value": Quantity(c.value, 3),
            "should be": c.should,
            "verdict": "   ".join(w for w in (c.verdict, c.where, c.remark) if w),
        }
        return Record(
            "Optimality",
            f"{self.verdict}   (necessary conditions to {self.tol:.0e}{of})",
            verdict=self.verdict,
            tone=tone,
            rows={"": [row(c) for c in self.conditions]},
        )


def judged(
    found: Found,
    problem: ControlProblem,
    title: Title,
    feasibility: float,
    tol: float,
    along: Claimed | None = None,
) -> Conditions:
    """The table. `title(k)`: name of stage k; `feasibility`: of the states that a solver claims."""
    value, bound, largest = map(float, found.curvature)
    of = float(found.units.gradient)
    small = tol * of
    rows = _first_order(found, title, feasibility, tol)
    if found.path is not None and along is not None:
        rows += _path(found.path, along, tol, small)
    rows.append(_curvature(found, faces_known(problem), tol))
    rows.append(_legendre(found, title, tol))
    rows += _minima(found, title, small)
    start = 0
    for run, level, same in zip(problem.chain.runs, found.levels, found.autonomous, strict=True):
        if level is not None and bool(same):
            rows += _constancy(run, level, start, small)
        start += run.length
    if found.horizon is not None:
        rows.append(_plain("dJ/dT", float(found.horizon), "", "0 if the horizon is free: H(T) = 0"))
    return Conditions(
        tuple(rows),
        np.asarray(found.legendre.smallest),
        np.asarray(found.exact),
        np.asarray(found.sampled),
        (value, bound),
        tol,
        of,
        FLAT * tol * _unit(found, largest),
    )


def _curvature(found: Found, known: bool, tol: float) -> Condition:
    """Necessary on the face of a set whose faces are known. Elsewhere the curvature is that of the whole
    space, which a minimum may have negative."""
    value, bound, largest = map(float, found.curvature)
    least = -tol * _unit(found, largest)
    row = lambda value, verdict, remark, necessary=True: Condition(
        "curvature of J", value, least, verdict, "", remark, necessary, least=True
    )
    verdict = lambda yes, no: (
        no if not value >= least else yes if settled(value, bound, -least) else UNDECIDED
    )
    if not known:
        remark = f"smallest of the whole space, +- {bound:.0e}: this set's faces are not known"
        return row(value, verdict(YES, NO), remark, necessary=False)
    if value >= least:
        doubt = "" if settled(value, bound, -least) else ": Lanczos has not converged"
        return row(value, verdict(HOLDS, NO), f"smallest on the free face, +- {bound:.0e}{doubt}")
    inner, bound, largest = map(float, found.tight)
    if not inner >= -tol * _unit(found, largest):
        return row(inner, VIOLATED, f"smallest on the free face, +- {bound:.0e}")
    remark = "constraints met without a multiplier: of one sign only, where it may not hold"
    return row(value, NO, remark, necessary=False)


def _unit(found: Found, largest: float) -> float:
    """Of a curvature, by the largest one; below the roundoff of dJ/dtheta there is none to measure by."""
    of = found.units.gradient
    return max(float(unit(jnp.asarray(largest))), NOISE * float(jnp.finfo(of.dtype).eps * of))


def _steps(steps: Any, title: Title, tol: float, small: float) -> Condition:
    """`dJ/dh = 0` at a free step, `>= 0` where it is zero."""
    slopes, lengths = np.asarray(steps.slope), np.asarray(steps.length)
    free = np.flatnonzero(~np.isnan(lengths))
    k = int(free[np.argmax(_order(np.asarray(steps.violation)[free]))])
    idle = int(np.sum(lengths[free] <= tol))
    remark = f"dJ/dh = {slopes[k]:.1e} there, at h = {lengths[k]:.3g}; {idle} of {free.size} idle"
    value = float(steps.violation[k])
    verdict = HOLDS if value <= small else VIOLATED
    return Condition("free steps", value, small, verdict, _at(k, title), remark)


def _first_order(found: Found, title: Title, feasibility: float, tol: float) -> list[Condition]:
    kkt, small = found.kkt, tol * float(found.units.gradient)
    rows = [_necessary("dynamics", feasibility, "", tol * float(found.units.state))]
    for name, values, allowed in (
        ("weights in their set", kkt.primal, tol),
        ("stationarity", kkt.stationarity, small),
        ("multipliers in the cone", kkt.dual, tol),
        ("complementarity", kkt.complementarity, small),
    ):
        if values is not None:
            rows.append(_necessary(name, *_worst(values, title), allowed))
    rows.append(_necessary("transversality", float(found.transversality), "terminal cost", tol))
    if found.steps is not None:
        rows.append(_steps(found.steps, title, tol, small))
    if found.costates is not None:
        k = int(np.argmax(_order(found.costates)))
        value = float(found.costates[k])
        rows.append(_necessary("claimed costates", value, f"state {k}", max(tol, CLAIMED)))
    return rows


def _path(found: PathFound, along: Claimed, tol: float, small: float) -> list[Condition]:
    """Feasibility, sign and complementarity of every constraint; where the costate jumps."""
    rows, problem = [], along.problem
    if found.end is not None and problem.terminal_constraint is not None:
        value, mu = (np.asarray(a)[:, None] for a in found.end)
        kind = problem.terminal_constraint.kind
        rows += _met("terminal constraint", kind, value, mu, (tol, small))
    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        value, mu = np.asarray(found.values[name]), np.asarray(found.mu[name])
        rows += _met(name, c.kind, value, mu, (tol, small))
        active = np.argwhere(np.abs(mu) > small)
        total = float(np.sum(mu))
        depths = sorted({int(at[1]) for at in active}) if mu.ndim else []
        at = f"depths {', '.join(map(str, depths[:6]))}{', ...' if len(depths) > 6 else ''}"
        remark = f"{len(active)} of {mu.size} active" + (f": {at}" if depths else "")
        rows.append(_plain(f"{name}: sum of mu", total, "", remark))
    k = int(np.argmax(_order(found.jump)))
    value = float(np.asarray(found.jump)[k])
    rows.append(_necessary("jump of p", value, f"depth {k}", max(tol, CLAIMED)))
    return rows


def _met(
    name: str, kind: str, value: np.ndarray, mu: np.ndarray, allowed: tuple[float, float]
) -> list[Condition]:
    """It holds; an inequality's multiplier is not negative, and zero where the constraint is slack."""
    met, (tol, small) = value if kind == "<=" else np.abs(value), allowed
    where = lambda a: _depth(int(np.argmax(_order(a))), a.shape)
    worst = max(0.0, float(np.max(_order(met))))
    rows = [_necessary(f"{name}: feasible", worst, where(met), tol)]
    if kind == "<=":
        both = np.minimum(mu, -value)
        low, left = (max(0.0, float(np.max(_order(a)))) for a in (-mu, both))
        rows.append(_necessary(f"{name}: sign", low, where(-mu), small))
        rows.append(_necessary(f"{name}: complementary", left, where(both), small))
    return rows


def _depth(at: int, shape: tuple[int, ...]) -> str:
    """A place in `(n, K + 1, m)`."""
    if not shape:
        return ""
    i, k, _ = np.unravel_index(at, shape)
    return f"depth {k}, sample {i}" if shape[1] > 1 else f"sample {i}"


def _legendre(found: Found, title: Title, tol: float) -> Condition:
    k = int(np.argmin(found.legendre.smallest))
    value, bound, largest = (float(c[k]) for c in found.legendre)
    least = -tol * _unit(found, largest)
    ok = NO if not value >= least else YES if settled(value, bound, -least) else UNDECIDED
    remark = "smallest of d2H/dtheta2 on the face"
    return Condition(
        "Legendre-Clebsch", value, least, ok, _at(k, title), remark, necessary=False, least=True
    )


def _minima(found: Found, title: Title, tol: float) -> list[Condition]:
    rows, exact = [], np.asarray(found.exact)
    known = int(np.sum(~np.isnan(exact)))
    if known:
        value, where = _worst(np.nan_to_num(exact, nan=0.0, posinf=np.inf), title)
        remark = f"closed form at {known} of {exact.size} stages"
        rows.append(_asked("H minimum, exact", value, tol, value <= tol, where, remark))
    value, where = _worst(found.sampled, title)
    rows.append(_asked("H minimum, sampled", value, tol, value <= tol, where, "a search"))
    return rows


def _constancy(run: Run, level: Any, start: int, tol: float) -> list[Condition]:
    first, second, h = (np.asarray(a) for a in (level.first, level.second, level.length))
    stages = f"stages {start}-{start + run.length - 1}"
    if isinstance(run.stage, Flow):
        inside = float(np.max(np.abs(second - first)))
        rows = [_plain("H along a piece", inside, stages, "to the integrator, optimal or not")]
        if run.length > 1 and not run.tied:
            jump = float(np.max(np.abs(first[1:] - second[:-1])))
            rows.append(_plain("H from piece to piece", jump, stages, "falls with their length"))
        return rows
    if run.length < 2 or not np.allclose(h, h[0], rtol=1e-6, atol=0):
        return []  # the form that is conserved depends on h: it has to be one
    drift, known = float(np.ptp(second)), float(np.ptp(first - second))
    remark = f"H itself drifts by {np.ptp(first):.1e}, O(h)"
    if run.tied:
        remark += "; tied: optimal or not"
    ok = drift <= max(known, tol)
    return [_asked("H constant to O(h)", drift, max(known, tol), ok, stages, remark)]


def _necessary(name: str, value: float, where: str, allowed: float) -> Condition:
    ok = value <= allowed
    return Condition(name, value, allowed, HOLDS if ok else VIOLATED, where)


def _asked(name: str, value: float, allowed: float, ok: Any, where: str, remark: str) -> Condition:
    return Condition(name, value, allowed, YES if ok else NO, where, remark, necessary=False)


def _plain(name: str, value: float, where: str, remark: str) -> Condition:
    return Condition(name, value, None, "", where, remark, necessary=False)


def _worst(values: Any, title: Title) -> tuple[float, str]:
    k = int(np.argmax(_order(values)))
    return float(values[k]), _at(k, title)


def _order(values: Any) -> np.ndarray:
    """Sort NaN last, as the largest violation."""
    return np.nan_to_num(np.asarray(values), nan=np.inf, posinf=np.inf)


def _at(k: int, title: Title) -> str:
    return f"{k} ({title(k)})"
