"""The page's pictures: for each a caption, words for who cannot see it, and a function that draws it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np

from hjcontrol._ground.record import Picture, figure
from hjcontrol.control import Solution
from hjcontrol.reporting.components import components
from hjcontrol.reporting.places import place_table, places_html
from hjcontrol.reporting.plots import (
    agreement,
    confusion,
    convergence,
    ensemble,
    fitted,
    minimum_gaps,
)
from hjcontrol.reporting.tables import Test, confusion_matrix, groups, testable

MANY = 3  # stages from which on a picture says more than a row
SIDE = 121  # points of a fitted function along each feature


def convergence_pictures(
    solutions: Mapping[str, Solution], convex: Solution | None = None, bounded: bool = True
) -> list[Picture]:
    """Objective and stationarity against seconds, of every problem that was solved. `bounded`: whether
    the convex solution's bound is one on all weights."""
    pictures = []
    for group in groups(solutions):
        problem = next(iter(group.values())).problem
        size = sum(a.size for a in jax.tree.leaves(next(iter(group.values())).weights))
        every = {} if convex is None else {"convex": convex.history}
        every |= {name: s.history for name, s in group.items()}
        styles = [list(solutions).index(name) for name in group] if convex is None else ()
        depth = f"{len(problem.chain)} stage{'s' * (len(problem.chain) != 1)}"
        where = f"{problem.num_samples} samples, {depth}, {size} weights"
        for quantity in ("objective", "stationarity"):
            line = convex if quantity == "objective" and bounded else None
            bound = None if line is None or line.bound is None else float(line.bound)
            histories = {n: h for n, h in every.items() if np.isfinite(getattr(h, quantity)).any()}
            also = "" if bound is None else f"; no weights are below {figure(bound, 6)}"
            pictures.append(
                Picture(
                    f"{quantity.capitalize()} ({where})",
                    f"{quantity} against seconds of solving, logarithmic axes; "
                    + "; ".join(_span(n, getattr(h, quantity)) for n, h in histories.items())
                    + also,
                    partial(convergence, histories, quantity, styles=styles, bound=bound),
                )
            )
    return pictures


def _span(name: str, values: np.ndarray) -> str:
    if not len(values):
        return f"{name}: no steps"
    return f"{name}: from {figure(float(values[0]))} to {figure(float(values[-1]))}"


def fit_picture(solutions: Mapping[str, Solution], convex: Any) -> list[Picture]:
    """The fitted functions over the samples, where the inputs have one or two features and the output
    is one number."""
    native = getattr(convex, "native", None)
    problem = getattr(native, "problem", None)
    inputs, targets = (getattr(problem, name, None) for name in ("inputs", "targets"))
    if (
        native is None
        or problem is None
        or inputs is None
        or targets is None
        or inputs.ndim != 2
        or inputs.shape[1] > 2
    ):
        return []
    x, y = np.asarray(inputs), np.asarray(targets)
    nets = {"convex": (native.chain, native.weights)}
    for name, solution in solutions.items():
        candidate = problem.from_weights(solution.weights)
        nets[name] = problem.network(candidate)
    sides = [np.linspace(column.min(), column.max(), SIDE) for column in x.T]
    mesh = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)

    def draw() -> Any:
        flat = mesh.reshape(-1, x.shape[1]).astype(x.dtype)
        read = eqx.filter_jit(lambda chain, w: jax.vmap(lambda a: chain(w, a))(flat))
        values = {
            name: np.asarray(read(*net)).reshape(mesh.shape[:-1]) for name, net in nets.items()
        }
        return fitted(x, y, sides, values)

    return [
        Picture(
            "Fitted functions over the samples.",
            f"{len(x)} samples of {x.shape[1]} features, and {' and '.join(nets)} fits",
            draw,
        )
    ]


def heat_map(name: str, certificate: Any, caption: str) -> list[Picture]:
    """Disagreement of every pair of routes at every stage; nothing for a function without stages."""
    rows = {
        f"{pair}, {where}": np.asarray(values, float)
        for where in ("states", "weights")
        for pair, both in certificate.per_stage.items()
        if (values := both[where]) is not None and np.isfinite(np.asarray(values, float)).any()
    }
    if not rows:
        return []
    worst = max(np.nanmax(row) for row in rows.values())
    return [
        Picture(
            f"{caption.format(name)}: powers of ten by stage; darker is better, and 0 means equal to "
            "the last bit.",
            f"relative disagreement of {len(rows)} pairs of routes by stage; the largest is "
            f"{figure(worst, 2)}",
            partial(agreement, rows),
        )
    ]


def places_picture(name: str, certificate: Any) -> list[Picture]:
    """The table of places and the lines that are wrong, if the routes do not say it all."""
    table = place_table(certificate)
    if table is None:
        return []
    words = f"each rule that somebody wrote, where it runs in {name}, the worst first"
    return [Picture("Places", words, lambda: places_html(table))]


def gaps_picture(conditions: Any) -> list[Picture]:
    """How far each stage's own weights can lower its Hamiltonian."""
    gaps = (conditions.exact_gap, conditions.sampled_gap)
    if len(gaps[0]) < MANY:
        return []
    worst = np.nanmax(np.concatenate(gaps), initial=0.0)
    return [
        Picture(
            "How far each stage's own weights can lower its Hamiltonian, states and costates held. "
            "A diagnostic: in discrete time an optimum may have a gap.",
            f"gap of the Hamiltonian's minimum at {len(gaps[0])} stages; the largest is "
            f"{figure(float(worst), 2)}",
            partial(minimum_gaps, *gaps, conditions.tol),
        )
    ]


def ensemble_picture(
    solutions: Mapping[str, Solution], classes: Sequence[str] | None
) -> list[Picture]:
    """The ensemble in two principal components, at several depths."""
    if not solutions:
        return []
    name, solution = list(groups(solutions)[0].items())[-1]
    shown = components(solution.trajectory)
    if shown is None:
        return []
    labels = solution.problem.targets
    discrete = hasattr(labels, "dtype") and labels.ndim == 1 and labels.dtype.kind in "iu"
    labels = np.asarray(labels) if discrete else None
    if labels is not None and not classes:
        classes = [str(c) for c in range(int(labels.max()) + 1)]
    depth = len(solution.problem.chain)
    return [
        Picture(
            f"The ensemble along its depth, weights of {name}. One pair of axes for all depths, from "
            "the states of every depth of the same width; together they hold "
            f"{100 * sum(shown.explained):.0f} % of the variance.",
            "scatter plots of the training ensemble in two principal components at depths "
            + ", ".join(map(str, shown.depths)),
            lambda: ensemble(shown, labels, classes or (), depth).flat[0],
        )
    ]


def confusion_picture(
    solutions: Mapping[str, Solution], test: Test | None, classes: Sequence[str] | None
) -> list[Picture]:
    """True class by predicted class, of the first problem's last solution."""
    if test is None or not solutions:
        return []
    name, solution = list(groups(solutions)[0].items())[-1]
    if not testable(solution, test):
        return []
    size = solution.trajectory.final.shape[1]
    names = list(classes) if classes else [str(c) for c in range(size)]
    matrix = confusion_matrix(solution, test, size)
    right, total = int(np.trace(matrix)), int(matrix.sum())
    return [
        Picture(
            f"Confusion matrix, weights of {name}: {right} of {total} test samples right.",
            f"confusion matrix of {size} classes on {total} test samples, {right} on the diagonal",
            lambda: confusion(matrix, names),
        )
    ]
