"""What `hj.verify` returns: a row for each place, a verdict for all, and a table that says where.

A *place* is what a user can open: `file:line`, function, named scope, argument or parameter, scan
iteration, worst element. A chain adds the pairs of routes to its costate, stage by stage.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from hjcontrol._ground.record import Record, Told
from hjcontrol._ground.renamed import renamed
from hjcontrol.verification.conditions import Conditions
from hjcontrol.verification.naming import Source
from hjcontrol.verification.table import certificate_record, count, folded, severity, told
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    DELIBERATE,
    DETACHED,
    EXACT,
    NO_RULE,
    ORDER,
    REFUTED,
    UNDEFINED,
    UNTESTED,
    worst_of,
)

__all__ = [
    "CONSISTENT",
    "DELIBERATE",
    "DETACHED",
    "EXACT",
    "NO_RULE",
    "REFUTED",
    "UNDEFINED",
    "UNTESTED",
    "Certificate",
    "Finding",
    "Pair",
    "Row",
    "VerificationError",
]

SHOWN = 12  # rows printed


class VerificationError(AssertionError):
    """A certificate that does not hold; its message is the table."""


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One argument of one place.

    `gap`: relative, the number a threshold sees; `reach`: largest costate of this cost that arrives,
    `None` where none was asked for; `live`: share of elements with a derivative; `arithmetic`: lowest
    dtype inside; `index`: worst element of the argument; `gaps`, `reaches`: one entry an iteration of
    the scans around the place; `inner`: rows of the rules inside it.
    """

    verdict: str
    gap: float
    reach: float | None = None
    live: float | None = None
    rule: str = ""
    kind: str = ""
    source: Source = dataclasses.field(default_factory=Source)
    iteration: tuple[int, ...] | None = None
    argument: int = 0
    parameter: str = ""
    index: tuple[int, ...] | None = None
    shape: tuple[int, ...] = ()
    arithmetic: str = ""
    reason: str = ""
    gaps: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1))
    reaches: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1))
    series: tuple[float, ...] = ()
    kink: bool = False
    inner: tuple["Row", ...] = ()
    place: int = 0
    entered: int | None = None  # argument of the outer place by which a rule inside was reached
    stage: int | None = None  # of a chain
    tensor: str = ""  # "state" or "weights", of a chain
    moved: bool = False  # `index` is of the rule's input, which is `parameter` sliced or transposed

    @property
    def file(self) -> str:
        """Path of the user's file; "" if no line of the user's is known."""
        return self.source.file

    @property
    def line(self) -> int:
        """Line in `file`."""
        return self.source.line

    @property
    def function(self) -> str:
        """Function of that line."""
        return self.source.function

    @property
    def scope(self) -> str:
        """Named scopes around the place."""
        return self.source.scope

    @property
    def sample(self) -> int | None:
        """Worst sample: first entry of `index`, where the argument is no parameter and has two axes."""
        return self.index[0] if self._ensemble and self.index else None

    @property
    def channel(self) -> int | None:
        """Worst channel: last entry of `index`."""
        return self.index[-1] if self.index else None

    @property
    def _ensemble(self) -> bool:
        return len(self.shape) > 1 and not self.parameter

    @property
    def where(self) -> str:
        """`file:line in function [scope]`."""
        return str(self.source)

    @property
    def location(self) -> str:
        """Iteration, argument, element."""
        parts = []
        if self.iteration is not None:
            at = self.iteration[0] if len(self.iteration) == 1 else self.iteration
            parts.append(f"iteration {at}")
        if self.kind != "stop_gradient":
            element = f"[{', '.join(map(str, self.index))}]" if self.index else ""
            if element and self.parameter and self.moved:
                element = f", element {self.index} of the rule's input"
            parts.append((self.parameter or f"argument {self.argument}") + element)
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{self.rule} at {self.where}" + (f", {self.location}" if self.location else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """A stage of a chain and the relative disagreement found there. `where`: "state" (of stage `index`,
    whose rule for the state it tests; `index = K` is the terminal cost) or "weights"."""

    index: int
    where: str
    stage: str
    disagreement: float
    pair: str

    def __str__(self) -> str:
        return f"{self.where} of {self.index} ({self.stage})"


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Two routes compared. `states`: `(K + 1,)`, `weights`: `(K,)`, `None` where not compared;
    NaN where the route does not estimate this stage."""

    name: str
    kind: str
    verdict: str
    states: np.ndarray | None
    weights: np.ndarray | None
    worst: Finding | None
    disagreement: float
    # Of a pair judged by it: measured order (`None`: nothing left to measure), expected, and in what.
    order: tuple[float | None, float, str] | None = None
    remark: str = ""


@renamed(tolerance="tol")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Certificate(Told):
    """What `hj.verify` returns. `print` it for the table; `bool` is true if all was shown.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> certificate = hj.verify(lambda x: jnp.sum(jnp.sin(x)), jnp.array([1.0, 2.0]))
        >>> bool(certificate), len(certificate.rows)  # no rule of the user's: nothing can be wrong
        (True, 0)
    """

    rows: tuple[Row, ...]
    cost: float
    gradient: Any  # shaped like what was differentiated
    tol: float
    problem: dict[str, Any]
    accepted: float = 1e-6  # largest gap of a `consistent` place that `bool` accepts
    notes: tuple[str, ...] = ()
    # Of a chain:
    pairs: tuple[Pair, ...] = ()
    refuted: tuple[Finding, ...] = ()
    kinks: tuple[Finding, ...] = ()
    differenced: tuple[int, ...] = ()  # stages judged by differences, not by a derivative
    stationarity: float | None = None
    feasibility: float | None = None
    curvature: tuple[float, float] | None = None  # smallest Ritz value, residual bound
    minimum: np.ndarray | None = None  # decrease found in each stage's Hamiltonian
    optimality: Conditions | None = None

    @property
    def objective(self) -> float:
        """The cost whose backward pass was verified."""
        return self.cost

    @property
    def verdict(self) -> str:
        """The worst place's, and of a chain the worst pair's."""
        exact = [p.verdict for p in self.pairs if not _looser(p) or p.verdict == REFUTED]
        found = [*(row.verdict for row in self.rows), *exact, *self.problem.get("also", ())]
        if self.pairs and not found:  # only references that no discrete route could equal
            return worst_of(p.verdict for p in self.pairs)
        return worst_of(found)

    def __bool__(self) -> bool:
        return not self.failing(())

    def failing(self, allow: Collection[str]) -> list[Row | Pair | str]:
        """What keeps the certificate from being true, `allow`ed verdicts apart."""
        good = {EXACT, DELIBERATE, NO_RULE, *allow}
        bad: list[Row | Pair | str] = []
        for row in self.rows:
            near = row.verdict == CONSISTENT and row.gap <= self.accepted
            if row.verdict not in good and not near:
                bad.append(row)
        for pair in self.pairs:
            near = pair.verdict == CONSISTENT and (
                pair.order is not None or pair.disagreement <= self.accepted
            )
            if pair.verdict not in good and not near:
                bad.append(pair)
        bad.extend(v for v in self.problem.get("also", ()) if v not in good)
        return bad

    def raise_for_verdict(self, allow: Collection[str] = ()) -> None:
        """Raise if something was not shown.

        **Arguments:** `allow`: verdicts that are accepted besides `exact` and `deliberate`, for
        instance `("consistent", "detached")`.

        **Raises:** `VerificationError`, an `AssertionError`, with the table as its message;
        `ValueError` for a verdict that does not exist.
        """
        check_allowed(allow)
        if self.failing(allow):
            raise VerificationError(str(self))

    @property
    def worst(self) -> Any:
        """The row that speaks for all; of a chain the `Finding` refuted most plainly, else of the
        largest disagreement."""
        if self.pairs:
            if self.refuted:
                return self.refuted[0]
            exact = [p.worst for p in self.pairs if not _looser(p) and p.worst]
            return max(
                exact or [p.worst for p in self.pairs if p.worst],
                key=lambda f: f.disagreement,
                default=None,
            )
        return min(self.rows, key=severity, default=None)

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

    def as_record(self) -> Record:
        """What the certificate says of itself; `str` is its table."""
        return certificate_record(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [f"Certificate: {self.verdict}   ({self._about()})"]
        if self.pairs:
            lines += self._routes()
            shown = [r for r in self.rows if r.verdict not in (EXACT, NO_RULE) or r.kink]
        else:
            shown = list(self.rows)
        if shown:
            lines.append(f"  {'verdict':<11}{'gap':<9}{'reach':<7}{'live':<6}place")
            lines += [line for rows in folded(shown)[:SHOWN] for line in told(rows)]
            if len(folded(shown)) > SHOWN:
                lines.append(f"  and {len(folded(shown)) - SHOWN} more places, in `rows`")
        lines += [f"  {note}" for note in self.notes]
        if self.optimality is not None:
            lines.append(str(self.optimality))
        return lines

    def _about(self) -> str:
        q = self.problem
        if self.pairs:
            return (
                f"{q['samples']} samples, {q['stages']} stages, {q['weights']} weights, "
                f"{q['dtype']}; exact means <= {self.tol:.0e}"
            )
        parts = [f"cost {self.cost:.4g}"] if self.gradient is not None else []  # forward only
        parts.append(count(q["leaves"], "leaf", "leaves", "gradient "))
        parts.append(count(q["places"], "place", "places"))
        parts.append(q["dtype"])
        tail = f"; largest gap accepted {self.accepted:.0e}" if self.verdict == CONSISTENT else ""
        return ", ".join(parts) + tail

    def _routes(self) -> list[str]:
        lines = [f"  {'routes':<28}{'states':>9}{'weights':>9}   {'verdict':<11} worst"]
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
        return lines


def check_allowed(allow: Collection[str]) -> None:
    """Refuse verdicts that do not exist."""
    if isinstance(allow, str) or any(v not in ORDER for v in allow):
        raise ValueError(
            f"allow: verdicts of {', '.join(ORDER)} are needed, in a tuple; found {allow!r}."
        )


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
