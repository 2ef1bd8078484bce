"""The report: one HTML file that needs nothing beside itself. The only file that knows jinja2.

Style sheet and pictures are inside the page; there is no script. Everything that a user named is
escaped. Whatever was not computed (an interrupted run, a regression) is left out, and said so.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.files import write_atomically
from hjcontrol._ground.third_party import needs
from hjcontrol.control import Solution
from hjcontrol.reporting.components import components
from hjcontrol.reporting.places import kind, place_table
from hjcontrol.reporting.plots import (
    agreement,
    confusion,
    convergence,
    ensemble,
    minimum_gaps,
    png,
)
from hjcontrol.reporting.tables import (
    Test,
    certificate_rows,
    confusion_matrix,
    figure,
    optimality_table,
    outcome,
    same_problem,
    solver_rows,
    testable,
)

Solutions = Solution | Sequence[Solution] | Mapping[str, Solution]


@admits()
def report(
    path: str | Path,
    solutions: Solutions,
    *,
    certificates: Mapping[str, Any] | None = None,
    comparisons: Mapping[str, Any] | None = None,
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
    - `test`: inputs `(n, ...)` and integer labels `(n,)` for accuracy and the confusion matrix.
    - `classes`: names of the classes.
    - `tables`: further tables, caption to rows `name: value`.
    - `command`, `verdict`, `notice`: shown as they are; `notice` stands out (an interruption).
    - `heat_caption`: under a heat map, `{}` standing for the certificate's name.

    **Returns:** `path`.

    **Raises:** `OSError` if the file cannot be written.
    """
    solutions = _named(solutions)
    certificates = dict(certificates or {})
    page = _environment().from_string(_text("report.html.j2"))
    html = page.render(
        style=_text("report.css"),
        title=title,
        command=command,
        verdict=verdict,
        verdict_kind=kind(verdict or ""),
        notice=notice,
        tables={caption: _cells(rows) for caption, rows in (tables or {}).items()},
        solver_rows=solver_rows(solutions, test),
        remedies=_remedies(solutions),
        places=_places(certificates),
        certificate_rows=certificate_rows(certificates),
        certificates={name: _without_optimality(c) for name, c in certificates.items()},
        optimality=_optimality(certificates),
        comparisons=dict(comparisons or {}),
        convergence=_section("Convergence", _convergence, solutions),
        heat_maps=_section("Routes", _heat_maps, certificates, heat_caption),
        ensemble=_section("Ensemble", _ensemble, solutions, classes),
        confusion=_section("Confusion", _confusion, solutions, test, classes),
    )
    return write_atomically(path, html)


def _environment() -> Any:
    needs("The report", "jinja2")
    import jinja2

    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _text(name: str, package: str = "hjcontrol.reporting") -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


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


def _cells(rows: Mapping[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): figure(value) for name, value in rows.items()}


def _remedies(solutions: Mapping[str, Solution]) -> dict[str, str]:
    return {name: outcome(s)[1] for name, s in solutions.items() if outcome(s)[0] != "successful"}


def _groups(solutions: Mapping[str, Solution]) -> list[dict[str, Solution]]:
    groups: list[dict[str, Solution]] = []
    for name, solution in solutions.items():
        for group in groups:
            if same_problem(next(iter(group.values())).problem, solution.problem):
                group[name] = solution
                break
        else:
            groups.append({name: solution})
    return groups


def _picture(axes: Any, caption: str, alt: str) -> dict[str, Any]:
    """A figure of the page, from axes or from a function that draws them. One that cannot be drawn leaves
    its place, with the reason."""
    try:
        image, width = png(axes() if callable(axes) else axes)
    except Exception as error:
        return _missing(caption, error)
    return {"image": image, "width": width, "caption": caption, "alt": alt}


def _missing(caption: str, error: Exception) -> dict[str, Any]:
    reason = f"{type(error).__name__}: {error}"
    return {"image": None, "caption": caption, "reason": reason[:300]}


def _section(caption: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """What `make` gives, or one missing picture in its place."""
    try:
        return make(*arguments)
    except Exception as error:
        missing = _missing(caption, error)
        return [missing] if make in (_convergence, _heat_maps) else missing


def _convergence(solutions: Mapping[str, Solution]) -> list[dict[str, Any]]:
    pictures = []
    for group in _groups(solutions):
        problem = next(iter(group.values())).problem
        size = sum(a.size for a in jax.tree.leaves(next(iter(group.values())).weights))
        histories = {name: s.history for name, s in group.items()}
        styles = [list(solutions).index(name) for name in group]
        depth = f"{len(problem.chain)} stage{'s' * (len(problem.chain) != 1)}"
        where = f"{problem.num_samples} samples, {depth}, {size} weights"
        for quantity in ("objective", "stationarity"):
            pictures.append(
                _picture(
                    partial(convergence, histories, quantity, styles=styles),
                    f"{quantity.capitalize()} ({where})",
                    f"{quantity} against seconds of solving, logarithmic axes; "
                    + "; ".join(_span(name, getattr(h, quantity)) for name, h in histories.items()),
                )
            )
    return pictures


def _span(name: str, values: np.ndarray) -> str:
    if not len(values):
        return f"{name}: no steps"
    return f"{name}: from {figure(float(values[0]))} to {figure(float(values[-1]))}"


def _heat_maps(certificates: Mapping[str, Any], caption: str) -> list[dict[str, Any]]:
    pictures = []
    for name, certificate in certificates.items():
        rows = {
            f"{pair}, {where}": np.asarray(values, float)
            for where in ("states", "weights")
            for pair, both in certificate.per_stage.items()
            if (values := both[where]) is not None and np.isfinite(values).any()
        }
        if rows:
            worst = max(np.nanmax(row) for row in rows.values())
            pictures.append(
                _picture(
                    agreement(rows),
                    caption.format(name),
                    f"relative disagreement of {len(rows)} pairs of routes by stage; the largest "
                    f"is {figure(worst, 2)}",
                )
            )
    return pictures


def _places(certificates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The table of places of every certificate that has one."""
    tables = {name: place_table(certificate) for name, certificate in certificates.items()}
    return {name: table for name, table in tables.items() if table is not None}


MANY = 3  # stages from which on a picture says more than a row


def _optimality(certificates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The table of every certificate that has one, with the stages' gaps as a picture."""
    found = {}
    for name, certificate in certificates.items():
        conditions = getattr(certificate, "optimality", None)
        if conditions is None:
            continue
        table = optimality_table(conditions)
        gaps = (conditions.exact_gap, conditions.sampled_gap)
        worst = np.nanmax(np.concatenate(gaps), initial=0.0)
        table["picture"] = None
        if len(gaps[0]) >= MANY:
            table["picture"] = _picture(
                partial(minimum_gaps, *gaps, conditions.tolerance),
                "How far each stage's own weights can lower its Hamiltonian, states and costates held. "
                "A diagnostic: in discrete time an optimum may have a gap.",
                f"gap of the Hamiltonian's minimum at {len(gaps[0])} stages; the largest is "
                f"{figure(float(worst), 2)}",
            )
        found[name] = table
    return found


def _without_optimality(certificate: Any) -> Any:
    """The certificate's own text, without the table that the page shows as one."""
    if getattr(certificate, "optimality", None) is None:
        return certificate
    return dataclasses.replace(certificate, optimality=None)


def _ensemble(
    solutions: Mapping[str, Solution], classes: Sequence[str] | None
) -> dict[str, Any] | None:
    if not solutions:
        return None
    name, solution = list(_groups(solutions)[0].items())[-1]
    shown = components(solution.trajectory)
    if shown is None:
        return None
    labels = solution.problem.targets
    discrete = hasattr(labels, "dtype") and labels.ndim == 1 and labels.dtype.kind in "iu"
    labels = np.asarray(labels) if discrete else None
    if labels is not None and not classes:
        classes = [str(c) for c in range(int(labels.max()) + 1)]
    depth = len(solution.problem.chain)
    return _picture(
        lambda: ensemble(shown, labels, classes or (), depth).flat[0],
        f"Weights of {name}. One pair of axes for all depths, from the states of every depth of "
        f"the same width; together they hold {100 * sum(shown.explained):.0f} % of the variance.",
        "scatter plots of the training ensemble in two principal components at depths "
        + ", ".join(map(str, shown.depths)),
    )


def _confusion(
    solutions: Mapping[str, Solution], test: Test | None, classes: Sequence[str] | None
) -> dict[str, Any] | None:
    if test is None or not solutions:
        return None
    name, solution = list(_groups(solutions)[0].items())[-1]
    if not testable(solution, test):
        return None
    count = solution.trajectory.final.shape[1]
    names = list(classes) if classes else [str(c) for c in range(count)]
    matrix = confusion_matrix(solution, test, count)
    right, total = int(np.trace(matrix)), int(matrix.sum())
    return _picture(
        lambda: confusion(matrix, names),
        f"Weights of {name}: {right} of {total} test samples right.",
        f"confusion matrix of {count} classes on {total} test samples, {right} on the diagonal",
    )
