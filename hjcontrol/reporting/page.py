"""`report`: solutions, and what witnesses say of them, as one record with its pictures, and its page.

Whatever was not computed (an interrupted run, a regression) is left out, and said so.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Picture, Quantity, Record, Tone, figure
from hjcontrol.control import Solution
from hjcontrol.reporting.html import shown_below, write_page
from hjcontrol.reporting.pictures import (
    confusion_picture,
    convergence_pictures,
    ensemble_picture,
    fit_picture,
    gaps_picture,
    heat_map,
    places_picture,
)
from hjcontrol.reporting.tables import (
    Test,
    certificate_rows,
    groups,
    optimality_rows,
    outcome,
    solver_rows,
)
from hjcontrol.verification.verdicts import EXACT, REFUTED

STATIONARY = "stationary"  # of a training that is not convex: its bound is not one on all weights
Solutions = Solution | Sequence[Solution] | Mapping[str, Solution]


@admits()
def report(
    path: str | Path,
    solutions: Solutions,
    *,
    certificates: Mapping[str, Any] | None = None,
    comparisons: Mapping[str, Any] | None = None,
    convex: Any = None,
    test: Test | None = None,
    classes: Sequence[str] | None = None,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    title: str = "Training as optimal control",
    command: str | None = None,
    verdict: str | None = None,
    notice: str | None = None,
    heat_caption: str = "At the solution of {}",
) -> Path:
    """Write solutions, and what witnesses say of them, to one self-contained HTML file.

    **Arguments:**

    - `path`: the file; its directory must exist. It appears whole or not at all.
    - `solutions`: one, several, or by name. Those of one problem share their pictures.
    - `certificates`: what `hj.verify` returned, under the names of the solutions.
    - `comparisons`: what `hj.crosscheck` returned, under headings.
    - `convex`: a convex solution of the same training. The page then leads with it: its bound is a line
      in the picture of convergence, and its fit is drawn where the inputs have one or two features.
    - `test`: inputs `(n, ...)` and integer labels `(n,)` for accuracy and the confusion matrix.
    - `classes`: names of the classes. `tables`: further tables, caption to rows `name: value`.
    - `command`, `verdict`: shown as they are; `notice` replaces the page's sentence (an interruption).
    - `heat_caption`: under a heat map, `{}` standing for the certificate's name.

    **Returns:** `path`. **Raises:** `OSError` if the file cannot be written.

    **Example:**

        >>> import pathlib, tempfile, jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> stages = [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3
        >>> problem = hj.ControlProblem(
        ...     stages, x, jnp.sin(x), terminal=hj.least_squares, running=hj.Ridge(0.1)
        ... )
        >>> solution = hj.solve(problem, "newton", key=jax.random.key(0))
        >>> page = hj.report(pathlib.Path(tempfile.mkdtemp(), "report.html"), solution)
        >>> page.name, page.stat().st_size > 10_000
        ('report.html', True)
    """
    record = report_record(
        solutions,
        certificates=certificates,
        comparisons=comparisons,
        convex=convex,
        test=test,
        classes=classes,
        tables=tables,
        title=title,
        command=command,
        verdict=verdict,
        heat_caption=heat_caption,
    )
    return write_page(path, record, notice)


def report_record(
    solutions: Solutions,
    *,
    certificates: Mapping[str, Any] | None = None,
    comparisons: Mapping[str, Any] | None = None,
    convex: Any = None,
    test: Test | None = None,
    classes: Sequence[str] | None = None,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    title: str = "Training as optimal control",
    command: str | None = None,
    verdict: str | None = None,
    heat_caption: str = "At the solution of {}",
) -> Record:
    """What `report` writes, as a record: the same arguments."""
    solutions = _named(solutions)
    certificates, comparisons = dict(certificates or {}), dict(comparisons or {})
    first = _lead(solutions, certificates, convex, verdict)
    bounded = verdict != STATIONARY
    curves = _section(convergence_pictures, "Convergence", solutions, convex, bounded)
    pictures = [*curves, *_section(fit_picture, "Fitted functions", solutions, convex)]
    pictures += _section(ensemble_picture, "The ensemble", solutions, classes)
    pictures += _section(confusion_picture, "Confusion matrix", solutions, test, classes)
    head = next(iter(curves), None)
    detail = [_solvers(solutions, test)] if solutions else []
    if convex is not None:
        detail.append(convex.as_record())
    detail += [_compared(name, found) for name, found in comparisons.items()]
    if solutions and (rows := certificate_rows(certificates)):
        words = "the largest relative disagreement over all stages and samples, at each solution"
        detail.append(Record("Do the routes to the costate agree?", words, rows={"": rows}))
    detail += [_certified(name, found, heat_caption) for name, found in certificates.items()]
    detail += [shown_below(p) for p in pictures if p is not head]
    detail += [Record(name, "", facts=rows) for name, rows in _spelt(tables or {}).items()]
    detail.sort(key=lambda part: part.tone != "bad")  # what is wrong comes first
    return first._replace(
        title=title,
        pictures=() if head is None else (head,),
        detail=detail,
        provenance=provenance(command, *(s.problem.dtype for s in solutions.values())),
    )


def provenance(command: str | None = None, *dtypes: Any) -> dict[str, str]:
    """Where a page comes from: versions, device, dtypes, the day, and the command with its seed."""
    from hjcontrol import __version__

    names = sorted({np.dtype(d).name for d in dtypes})
    found = {"hjcontrol": __version__, "jax": jax.__version__, "on": jax.devices()[0].device_kind}
    found |= {"in": ", ".join(names)} if names else {}
    found["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    return found | ({"command": command} if command else {})


def _named(solutions: Solutions) -> dict[str, Solution]:
    if isinstance(solutions, Mapping):
        return dict(solutions)
    named: dict[str, Solution] = {}
    for solution in [solutions] if isinstance(solutions, Solution) else solutions:
        name, number = solution.solver, 2
        while name in named:
            name, number = f"{solution.solver} {number}", number + 1
        named[name] = solution
    return named


def _spelt(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        caption: {name.replace("_", " "): value for name, value in rows.items()}
        for caption, rows in tables.items()
    }


def _lead(
    solutions: Mapping[str, Solution],
    certificates: Mapping[str, Any],
    convex: Any,
    verdict: str | None,
) -> Record:
    """The page's sentence, verdict and numbers: the convex solution's, else the best solver's, else the
    worst certificate's."""
    if convex is not None:
        return _convex_lead(convex, verdict)
    worst = _worst_certificate(certificates)
    if not solutions:
        told = Record("", "") if worst is None else worst.as_record()
        lead = {name: told.facts[name] for name in told.lead}
        return Record("", told.headline, verdict or told.verdict, told.tone, lead, told.lead)
    name, best = min(groups(solutions)[0].items(), key=lambda item: item[1].stats["stationarity"])
    facts: dict[str, Any] = {
        "objective": Quantity(best.stats["objective"], 7),
        "stationarity": Quantity(best.stats["stationarity"], 2),
    }
    gaps = [gap for c in certificates.values() for gap in c.agreement.values()]
    if gaps:
        facts["worst disagreement of the routes"] = Quantity(max(gaps), 2)
    who, left = name[:1].upper() + name[1:], figure(best.stats["stationarity"], 2)
    sentence = f"{who} reached a point of stationarity {left}"
    if verdict == REFUTED or (worst is not None and worst.verdict == REFUTED):
        sentence = f"A costate is refuted: the backward pass at {_where(certificates)} is wrong"
    elif verdict == EXACT and gaps:
        sentence += f", and all routes to its costate agree to {figure(max(gaps), 2)}"
    elif verdict is not None:
        sentence += f"; its costate is not refuted, and not all of it was shown ({verdict})"
    return Record("", f"{sentence}.", verdict, _tone(verdict), facts, tuple(facts))


def _convex_lead(convex: Any, verdict: str | None) -> Record:
    gap = Quantity(float(convex.gap), 2)
    facts: dict[str, Any] = {"objective": Quantity(float(convex.objective), 8)}
    if verdict != STATIONARY:
        facts["no weights are below"] = Quantity(float(convex.bound), 8)
    facts["gap"] = gap
    sentence = f"Convex training is within {gap} of the best possible"
    if _tone(verdict) == "bad":
        sentence = f"The gap between objective and bound is not closed: {gap} is left"
    elif verdict == STATIONARY:
        sentence = f"Training reached a stationary point, to {gap}; it may not be the best possible"
    return Record("", f"{sentence}.", verdict, _tone(verdict), facts, tuple(facts))


def _tone(verdict: str | None) -> Tone:
    if verdict is None:
        return "plain"
    if verdict in (EXACT, "deliberate", "no custom rule", "certified"):
        return "good"
    return "bad" if verdict == REFUTED else "partial"


def _worst_certificate(certificates: Mapping[str, Any]) -> Any:
    order = {"bad": 0, "partial": 1, "plain": 1, "good": 2}
    return min(certificates.values(), key=lambda c: order[_tone(c.verdict)], default=None)


def _where(certificates: Mapping[str, Any]) -> str:
    bad = (c.worst for c in certificates.values() if c.verdict == REFUTED)
    return str(next(bad, "an unknown place"))


def _solvers(solutions: Mapping[str, Solution], test: Test | None) -> Record:
    rows = solver_rows(solutions, test)
    remedies = {name: outcome(s)[1] for name, s in solutions.items() if outcome(s)[1]}
    said = [f"{name}: {words}" for name, words in remedies.items()]
    said.append("Stationarity is the largest coordinate of ∂J/∂θ. Compilation is counted apart.")
    count = "" if len(rows) == 1 else f"{len(rows)} solutions"
    return Record("Solvers", count, rows={"": rows}, notes=said)


def _section(make: Callable[..., list[Picture]], caption: str, *arguments: Any) -> list[Picture]:
    """What `make` gives, or one picture in its place that says why there is none."""
    try:
        return make(*arguments)
    except Exception as error:
        found = error

    def absent() -> Any:
        raise found

    return [Picture(caption, "", absent)]


def _compared(name: str, found: Any) -> Record:
    if hasattr(found, "as_record"):
        return found.as_record()._replace(title=name)
    return Record(name, str(found))


def _certified(name: str, found: Any, caption: str) -> Record:
    """A certificate with its heat map of stages, its places, and its conditions of optimality."""
    record = found.as_record()._replace(title=name, detail=())
    pictures = _section(heat_map, "Routes", name, found, caption)
    pictures += _section(places_picture, "Places", name, found)
    conditions = getattr(found, "optimality", None)
    if conditions is None:
        return record._replace(pictures=pictures)
    below = conditions.as_record()._replace(
        title="Conditions of optimality",
        headline=conditions.verdict,
        rows=optimality_rows(conditions),
        pictures=gaps_picture(conditions),
        notes=(
            f"Necessary conditions to {conditions.tol:.0e}. First-order rows together say that a "
            "point is stationary. A positive smallest curvature on the free face adds that no nearby "
            "point of the control set is lower.",
        ),
    )
    return record._replace(pictures=pictures, detail=(below,))
