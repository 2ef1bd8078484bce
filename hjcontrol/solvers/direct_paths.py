r"""Constraints along depth as rows of a nonlinear program, beside the rows of their stage.

    c(x_k^i, theta_k, r_k^i) <= 0 or = 0        lower <= x_k^i <= upper        sum_k f(theta_k) <= limit

A `StateBox` is bounds of the state's variables where states are variables, rows elsewhere. The row's
multiplier is mu = nu / n, and that of a bound is lambda_x: positive at the upper one.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.shapes import of_one
from hjcontrol.control import Budget, ControlProblem, StateBox
from hjcontrol.control.path_checks import names_of
from hjcontrol.control.pricing import path_shapes
from hjcontrol.control.references import References
from hjcontrol.networks.given import reference_of
from hjcontrol.solvers.casadi_replay import casadi_function


@dataclasses.dataclass(frozen=True)
class PathRows:
    """`rows[k]`: name and function `(x, theta, u) -> c` of what is imposed at depth k; `end`: what is
    read at x_K, a column a sample; `boxes`: bounds `(lower, upper)` of the states' variables by name;
    `budgets`: name and functions of the stages that own weights; `kinds` and `shapes` by name."""

    rows: list[list[tuple[str, ca.Function]]]
    end: np.ndarray
    boxes: dict[str, Any]
    budgets: dict[str, tuple[dict[int, ca.Function], float]]
    kinds: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    places: dict[str, tuple[bool, ...]]

    @property
    def at_end(self) -> bool:
        """Whether something is imposed on the final states."""
        return bool(self.rows[-1]) or any(self.places[name][-1] for name in self.boxes)

    def at(self, k: int, state: Any, theta: Any, u: Any) -> Iterator[tuple[str, ca.MX]]:
        """The rows of depth k, by name."""
        n = state.shape[1]
        for name, f in self.rows[k]:
            repeated = ca.repmat(theta, 1, n) if f.size1_in(1) else ca.DM(0, n)
            yield f"path: {name}[{k}]", ca.vec(f.map(n)(state, repeated, u))

    def spending(self, weights: dict[int, Any]) -> Iterator[tuple[str, ca.MX]]:
        """The rows of budgets, by name. `weights`: by the stage that owns them."""
        for name, (functions, limit) in self.budgets.items():
            yield f"budget: {name}", sum(f(weights[k]) for k, f in functions.items()) - limit

    def floor(self, row: str) -> float:
        """The lower bound of a row: none for what must not be positive."""
        name = row.split(": ", 1)[1]
        name = name.rsplit("[", 1)[0] if row.startswith("path: ") else name
        return -np.inf if self.kinds[name] == "<=" else 0.0

    def bounds(self, k: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a sample's state at depth k."""
        low, high = np.full(size, -np.inf), np.full(size, np.inf)
        for name, box in self.boxes.items():
            if self.places[name][k]:
                a, b = box.bounds(size)
                low, high = np.maximum(low, a), np.minimum(high, b)
        return low, high

    def multipliers(
        self, slots: tuple[dict[str, slice], dict[str, slice]], lam_x: np.ndarray, lam_g: np.ndarray
    ) -> dict[str, np.ndarray]:
        """`nu` of every constraint, by name. `slots`: of variables and of rows."""
        variables, rows = slots
        found = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        for name in self.budgets:
            found[name] = np.asarray(float(lam_g[rows[f"budget: {name}"]][0]))
        for k, here in enumerate(self.rows):
            for name, _ in here:
                n, _, m = self.shapes[name]
                found[name][:, k] = n * lam_g[rows[f"path: {name}[{k}]"]].reshape(n, m)
        for name, box in self.boxes.items():
            n = self.shapes[name][0]
            for k, imposed in enumerate(self.places[name]):
                if imposed:
                    found[name][:, k] = box.of_bounds(
                        n * lam_x[variables[f"x[{k}]"]].reshape(n, -1)
                    )
        return found

    def rows_of(self, path: Any) -> dict[str, np.ndarray]:
        """`mu` of every row, from `nu` by name; bounds of variables have none."""
        found = {f"budget: {name}": np.asarray(path[name], float).ravel() for name in self.budgets}
        for k, here in enumerate(self.rows):
            for name, _ in here:
                nu = np.asarray(path[name], float)
                found[f"path: {name}[{k}]"] = nu[:, k].ravel() / len(nu)
        return found


def path_rows(
    problem: ControlProblem, shapes: list[Any], reads: list[Any], thetas: list[Any], bounded: bool
) -> PathRows:
    """The rows of a problem. `shapes`: one sample's states x_0 .. x_K; `reads`: what is given at each
    stage, samples in front; `thetas`: each stage's weights; `bounded`: states are variables."""
    depth, n = len(problem.chain), problem.num_samples
    last = (problem.references or References()).final(depth + 1, n) if problem.path else None
    rows: list[list[tuple[str, ca.Function]]] = [[] for _ in range(depth + 1)]
    boxes, budgets, kinds, places = {}, {}, {}, {}
    made = {}
    for j, (name, c) in enumerate(zip(names_of(problem.path), problem.path, strict=True)):
        kinds[name] = c.kind
        stage = f"the constraint {name!r}"
        if isinstance(c, Budget):
            real = lambda th, c=c: jnp.asarray(c.of(th), problem.dtype)
            functions = {
                k: casadi_function(real, thetas[k], name=f"b{j}_{k}", stage=stage)
                for k in dict.fromkeys(owners(problem))
            }
            budgets[name] = (functions, float(c.limit))
            continue
        places[name] = c.imposed(depth)
        if isinstance(c, StateBox) and bounded and not boxes:
            boxes[name] = c
            continue
        for k in np.flatnonzero(places[name]):
            if k == 0 and c.on == "states":
                continue  # checked when the problem was stated: x_0 is data
            u = reads[k] if k < depth else last
            read = of_one(u)
            value = lambda x, th, u, c=c, k=k: c.values(x, th, reference_of(u) if k < depth else u)
            theta = thetas[k] if k < depth and c.on == "stages" else ()
            like = (k == depth, str(jax.tree.map(lambda a: a.shape, (shapes[k], theta, read))), j)
            if like not in made:  # equal stages share their functions
                made[like] = casadi_function(
                    value, shapes[k], theta, read, name=f"c{j}_{k}", stage=stage
                )
            rows[k].append((name, made[like]))
    leaves = [np.asarray(a, float).reshape(n, -1) for a in jax.tree.leaves(last)]
    end = np.concatenate([np.zeros((n, 0)), *leaves], axis=1).T
    return PathRows(rows, end, boxes, budgets, kinds, path_shapes(problem), places)


def owners(problem: ControlProblem) -> list[int]:
    """By stage, the first one that uses its weights: itself, unless it is tied."""
    found: list[int] = []
    for run in problem.chain.runs:
        first = len(found)
        found += [first if run.tied else first + k for k in range(run.length)]
    return found
