"""Rows of the tables that the terminal and the page show. Numbers stay numbers."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.record import Mark, Quantity, Value
from hjcontrol._ground.record import figure as figure  # the commands write lines with it
from hjcontrol._ground.results import GOOD, RESULTS, name_of
from hjcontrol.control import ControlProblem, Solution
from hjcontrol.networks import Chain, Weights

Test = tuple[Any, Any]  # inputs (n, ...), integer labels (n,)


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
    given = (solution.problem.forcing, solution.problem.context)
    driven = any(jax.tree.leaves(u) for u in given)  # the test pair gives no sequences
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


def solver_rows(solutions: Mapping[str, Solution], test: Test | None) -> list[dict[str, Value]]:
    """One row a solution. Without a test no column of accuracy."""
    rows: list[dict[str, Value]] = []
    for name, solution in solutions.items():
        s, share, result = solution.stats, accuracy(solution, test), name_of(solution.result)
        right = Quantity(None if share is None else 100 * share, 3, "%")
        rows.append(
            {
                "solver": name,
                "objective": Quantity(s["objective"], 10),
                "stationarity": Quantity(known(s["stationarity"]), 3),
                "steps": s["num_steps"],
                "evaluations": s["num_evals"],
                "solving": Quantity(s["solve_seconds"], 3, "s"),
                "compiling": Quantity(s["compile_seconds"], 3, "s"),
                **({} if test is None else {"test accuracy": right}),
                "result": Mark(result.replace("_", " "), "good" if result in GOOD else "partial"),
            }
        )
    return rows


def known(value: float) -> float | None:
    """A number, or `None` where a solver does not measure it (NaN)."""
    return None if np.isnan(value) else value


def certificate_rows(certificates: Mapping[str, Any]) -> list[dict[str, Value]]:
    """One row a pair of routes, one column a solution. A function without stages has no routes."""
    certificates = {name: c for name, c in certificates.items() if c.pairs}
    pairs = dict.fromkeys(pair for c in certificates.values() for pair in c.agreement)
    rows: list[dict[str, Value]] = [
        {"routes": pair.replace("|", " | ")}
        | {name: Quantity(c.agreement.get(pair), 2) for name, c in certificates.items()}
        for pair in pairs
    ]
    differences = {name: c.finite_difference for name, c in certificates.items()}
    if any(value is not None for value in differences.values()):
        rows.append(
            {"routes": "finite difference of J"}
            | {name: Quantity(value, 2) for name, value in differences.items()}
        )
    return rows


MARKS = {"holds": Mark("✓ holds", "good"), "violated": Mark("✗ violated", "bad")}


def optimality_rows(optimality: Any) -> dict[str, list[dict[str, Value]]]:
    """Conditions of optimality in two tables: what must hold, and what only informs."""
    tables: dict[str, list[dict[str, Value]]] = {"Necessary": [], "Diagnostics, not required": []}
    for c in optimality.conditions:
        stage = f"stage {c.where}" if c.where[:1].isdigit() else c.where
        asked = c.should.replace(">=", "≥").replace("<=", "≤").replace("-", "−")
        tables["Necessary" if c.necessary else "Diagnostics, not required"].append(
            {
                "condition": c.name,
                "value": Quantity(c.value, 3),
                "should be": None if c.allowed is None else asked,
                "verdict": MARKS.get(c.verdict, Mark(c.verdict or "–")),
                "where, and what is meant": "; ".join(w for w in (stage, c.remark) if w),
            }
        )
    return {name: rows for name, rows in tables.items() if rows}


def groups(solutions: Mapping[str, Solution]) -> list[dict[str, Solution]]:
    """Solutions by the problem that they solve."""
    found: list[dict[str, Solution]] = []
    for name, solution in solutions.items():
        for group in found:
            if same_problem(next(iter(group.values())).problem, solution.problem):
                group[name] = solution
                break
        else:
            found.append({name: solution})
    return found


def same_problem(a: ControlProblem, b: ControlProblem) -> bool:
    """Whether two solutions' curves belong in one picture."""
    if a is b:
        return True
    shape = lambda p: [np.shape(leaf) for leaf in jax.tree.leaves((p.inputs, p.targets))]
    return shape(a) == shape(b) and len(a.chain) == len(b.chain)
