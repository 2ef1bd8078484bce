r"""The nonlinear program in order of stages, as FATROP wants it.

    variables   x_0 theta_0 | x_1 theta_1 | .. | x_K            nx, nu: how many of each a stage has
    rows        x_1 - F_0, x_0 fixed | x_2 - F_1 | .. | the terminal constraint

The gap is written x_{k+1} - F_k: with the house's sign, F_k - x_{k+1}, FATROP's factorisation fails. Its
multipliers are therefore minus the costates, and `back` turns them. A stage's block is as wide as the
states of all samples, and dense: for one sample, or few. With the weights first, as in `transcription`,
FATROP finds no structure, and its time grows faster than the square of the number of stages.
"""

import dataclasses
from typing import Any

import casadi as ca
import numpy as np

from hjcontrol.control import ControlProblem, StateBox
from hjcontrol.control.path_checks import names_of
from hjcontrol.networks import Flow
from hjcontrol.solvers.transcription import Transcription

RELAXED = 1e-8  # by how much of a bound's size FATROP lets it be passed, measured


def check_stages(problem: ControlProblem) -> None:
    """Raise `ValueError` for a problem whose stages are no blocks."""
    who, instead = "Direct: fatrop takes one block of variables a stage", "Use ipopt"
    if any(run.tied and run.length > 1 for run in problem.chain.runs):
        raise ValueError(f"{who}; found stages with tied weights. {instead}.")
    if problem.couples:
        raise ValueError(f"{who}; found a cost that couples stages (Smoothing). {instead}.")
    rows = [c for c in problem.path if not isinstance(c, StateBox)]
    if rows or len(problem.path) > 1:
        raise ValueError(
            "Direct: fatrop takes one StateBox along depth, as bounds of its variables, and no rows of "
            f"path constraints; found {', '.join(map(repr, names_of(problem.path)))}. {instead}."
        )
    if any(isinstance(run.stage, Flow) for run in problem.chain.runs):
        raise ValueError(f"{who}; found a Flow. {instead}, or state it as Residual stages.")
    if not problem.control_set.elementwise:
        name = type(problem.control_set).__name__
        raise ValueError(f"{who} with bounds of their own; found a {name}. {instead}.")


@dataclasses.dataclass(frozen=True)
class StageOrder:
    """The program of a multiple-shooting transcription in order of stages.

    `options`: the structure, as CasADi's FATROP interface takes it. `at`, `rows`: where in the new order
    the transcription's variables and rows stand; `signs`: minus one for a gap.
    """

    nlp: dict[str, ca.MX]
    options: dict[str, Any]
    at: np.ndarray
    rows: np.ndarray
    signs: np.ndarray
    first: np.ndarray  # x_0
    bounds: dict[str, np.ndarray]
    unit: float = 1.0  # what the objective is divided by

    def call(self, t: Transcription) -> dict[str, np.ndarray]:
        """Start and bounds for the solver."""
        x0 = np.concatenate([self.first, np.zeros(len(self.at))])
        x0[self.at] = t.x0
        lam = np.zeros(len(self.rows) + len(self.first))
        lam[self.rows] = self.signs * t.lam_g0 / self.unit
        return {"x0": x0, "lam_g0": lam, **self.bounds}

    def back(self, end: dict[str, Any]) -> dict[str, Any]:
        """A solver's end point in the transcription's order and signs."""
        x, lam_x, lam_g = (np.array(end[k]).ravel() for k in ("x", "lam_x", "lam_g"))
        return {
            "f": np.array(end["f"]) * self.unit,
            "x": x[self.at],
            "lam_x": lam_x[self.at] * self.unit,
            "lam_g": self.signs * lam_g[self.rows] * self.unit,
        }


def stage_order(t: Transcription, unit: float = 1.0) -> StageOrder:
    """The order of a transcription whose last stage is not written into the terminal cost. The
    objective is divided by `unit`, of its gradient: FATROP has one tolerance for everything."""
    K, first = len(t.programs.steps), t.programs.inputs.T.ravel()
    at, rows = np.empty(t.nlp["x"].numel(), int), np.empty(t.nlp["g"].numel(), int)
    nx, nu, ng = [len(first)], [], [len(first)]
    place, row, fixed = len(first), 0, np.zeros(0, int)
    for k in range(K):
        for name in (f"theta[{k}]", f"x[{k + 1}]"):
            own = t.variables[name]
            at[own] = place + np.arange(own.stop - own.start)
            place += own.stop - own.start
            (nu if name.startswith("theta") else nx).append(own.stop - own.start)
        own = t.constraints[f"F[{k}] - x[{k + 1}]"]
        rows[own] = row + np.arange(own.stop - own.start)
        row += own.stop - own.start
        if k == 0:
            fixed = row + np.arange(len(first))
            row += len(first)
            continue
        ng.append(0)
    ends = t.constraints.get("terminal", slice(0, 0))
    rows[ends] = row + np.arange(ends.stop - ends.start)
    signs = np.ones(len(rows))
    signs[: ends.start if "terminal" in t.constraints else None] = -1.0
    x = ca.MX.sym("x", place)
    f, g = ca.graph_substitute([t.nlp["f"], t.nlp["g"]], [t.nlp["x"]], [x[at.tolist()]])
    parts = ca.vertcat(ca.DM(signs) * g, x[: len(first)] - ca.DM(first))
    places = np.concatenate([rows, fixed])
    order = np.argsort(places)
    low = np.where(signs < 0, -t.ubg, t.lbg), np.zeros(len(first))
    high = np.where(signs < 0, -t.lbg, t.ubg), np.zeros(len(first))
    lbg, ubg = np.concatenate(low)[order], np.concatenate(high)[order]
    lbx, ubx = (np.full(place, b) for b in (-np.inf, np.inf))
    lbx[at], ubx[at] = t.lbx, t.ubx
    equality = lbg == ubg
    (lbx, ubx), (lbg, ubg) = _tightened(lbx, ubx), _tightened(lbg, ubg)
    options = {
        "structure_detection": "manual",
        "N": K,
        "nx": nx,
        "nu": [*nu, 0],
        "ng": [*ng, ends.stop - ends.start],
        "equality": equality.tolist(),
        "expand": True,  # one graph of scalars: a stage's derivatives are found by its own columns
    }
    bounds = {"lbx": lbx, "ubx": ubx, "lbg": lbg, "ubg": ubg}
    nlp = {"x": x, "f": f / unit, "g": parts[order.tolist()]}
    return StageOrder(nlp, options, at, rows, signs, first, bounds, unit)


def _tightened(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds that FATROP's own relaxation, which no option turns off, brings back to `low` and `high`."""
    by = lambda b: RELAXED * np.maximum(1.0, np.abs(np.where(np.isfinite(b), b, 1.0)))
    wide = high - low > 4 * (by(low) + by(high))
    return np.where(wide, low + by(low), low), np.where(wide, high - by(high), high)
