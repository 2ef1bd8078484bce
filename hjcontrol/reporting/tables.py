"""Rows of the report's tables, and how numbers are written in them."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.results import GOOD, RESULTS, name_of
from hjcontrol.control import ControlProblem, Solution
from hjcontrol.networks import Chain, Weights

Test = tuple[Any, Any]  # inputs (n, ...), integer labels (n,)


def figure(value: Any, digits: int = 4) -> str:
    """A value for a reader: numbers to `digits` significant digits, an absent one as a dash."""
    if value is None:
        return "–"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return f"{value:d}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(figure(v, digits) for v in value[:12])
        return shown + (f" and {len(value) - 12} more" if len(value) > 12 else "")
    if isinstance(value, (float, np.floating)):
        size = abs(float(value))
        if size != 0 and not 1e-3 <= size < 1e6:
            return f"{value:.{min(digits, 3) - 1}e}"
        return f"{value:.{digits}g}"
    return str(value)


def outcome(solution: Solution) -> tuple[str, str]:
    """Name of a solution's result, and its remedy, `""` where none is needed."""
    name = name_of(solution.result)
    return name, "" if name in GOOD else RESULTS[solution.result]


def predictions(solution: Solution, inputs: Any) -> np.ndarray:
    """Class of largest output for every input."""
    inputs = jnp.asarray(inputs, solution.problem.dtype)
    return np.asarray(_largest(solution.problem.chain, solution.weights, inputs))


@eqx.filter_jit  # one compilation serves every table and picture
def _largest(chain: Chain, weights: Weights, inputs: jax.Array) -> jax.Array:
    return jnp.argmax(jax.vmap(chain, in_axes=(None, 0))(weights, inputs), axis=-1)


def testable(solution: Solution, test: Test | None) -> bool:
    """Whether the solution's network reads the test inputs and gives one output a class."""
    if test is None or not hasattr(solution.problem.inputs, "shape"):
        return False
    final = solution.trajectory.final
    same = solution.problem.inputs.shape[1:] == np.shape(test[0])[1:]
    driven = any(
        jax.tree.leaves(u) for u in solution.problem.given
    )  # the test pair gives no sequences
    return same and not driven and getattr(final, "ndim", 0) == 2


def accuracy(solution: Solution, test: Test | None) -> float | None:
    """Share of test samples whose class is predicted, or `None` if that has no meaning here."""
    if test is None or not testable(solution, test):
        return None
    return float(np.mean(predictions(solution, test[0]) == np.asarray(test[1])))


def confusion_matrix(solution: Solution, test: Test, count: int) -> np.ndarray:
    """Number of test samples by true class (rows) and predicted class (columns)."""
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (np.asarray(test[1]), predictions(solution, test[0])), 1)
    return matrix


def solver_rows(solutions: Mapping[str, Solution], test: Test | None) -> list[dict[str, str]]:
    """One row a solution, every cell a string. Without a test no column of accuracy."""
    rows = []
    for name, solution in solutions.items():
        s, share = solution.stats, accuracy(solution, test)
        right = "–" if share is None else f"{100 * share:.1f} %"
        rows.append(
            {
                "solver": name,
                "objective": f"{s['objective']:.10g}",
                "stationarity": f"{s['stationarity']:.2e}",
                "steps": str(s["num_steps"]),
                "evaluations": str(s["num_evals"]),
                "solving": f"{s['solve_seconds']:.2f} s",
                "compiling": f"{s['compile_seconds']:.2f} s",
                **({} if test is None else {"test accuracy": right}),
                "result": outcome(solution)[0].replace("_", " "),
            }
        )
    return rows


def certificate_rows(certificates: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row a pair of routes, one column a solution. A function without stages has no routes."""
    certificates = {name: c for name, c in certificates.items() if c.pairs}
    pairs = dict.fromkeys(pair for c in certificates.values() for pair in c.agreement)
    rows = [
        {"routes": pair.replace("|", " | ")}
        | {name: figure(c.agreement.get(pair), 2) for name, c in certificates.items()}
        for pair in pairs
    ]
    differences = {name: c.finite_difference for name, c in certificates.items()}
    if any(value is not None for value in differences.values()):
        rows.append(
            {"routes": "finite difference of J"}
            | {name: figure(value, 2) for name, value in differences.items()}
        )
    return rows


MARKS = {"holds": "✓", "violated": "✗"}
JUDGED = {
    "strict minimum": "exact",
    "stationary": "consistent",
    "undecided": "consistent",
    "not optimal": "refuted",
}


def optimality_table(optimality: Any) -> dict[str, Any]:
    """A certificate's conditions of optimality for the page: the verdict with its colour, and the rows in
    two groups, what must hold and what only informs."""
    groups: dict[str, list[dict[str, str]]] = {"Necessary": [], "Diagnostics, not required": []}
    for c in optimality.conditions:
        group = groups["Necessary" if c.necessary else "Diagnostics, not required"]
        should = c.should.replace(">=", "≥").replace("<=", "≤").replace("-", "−")
        group.append(
            {
                "condition": c.name,
                "value": "0" if c.value == 0 else f"{c.value:.2e}".replace("-", "−"),
                "should": "–" if c.allowed is None else should,
                "verdict": f"{MARKS.get(c.verdict, '')} {c.verdict}".strip() or "–",
                "kind": c.verdict if c.verdict in MARKS else "plain",
                "stage": f"stage {c.where}" if c.where[:1].isdigit() else c.where,
                "remark": c.remark,
            }
        )
    return {
        "verdict": optimality.verdict,
        "colour": JUDGED[optimality.verdict],
        "tolerance": f"{optimality.tolerance:.0e}",
        "groups": {name: rows for name, rows in groups.items() if rows},
    }


def same_problem(a: ControlProblem, b: ControlProblem) -> bool:
    """Whether two solutions' curves belong in one picture."""
    if a is b:
        return True
    shape = lambda p: [np.shape(leaf) for leaf in jax.tree.leaves((p.inputs, p.targets))]
    return shape(a) == shape(b) and len(a.chain) == len(b.chain)
