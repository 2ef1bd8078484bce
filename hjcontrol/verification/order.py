r"""`consistent`, measured: the gap between a continuous and a discrete costate must shrink at its order.

    gap(h) ~ C h^q          gap(level j) / gap(level j + 1)  ->  s^q

One level halves every flow's step (s = 2), or divides its tolerances by 100 (s = 100). A difference of
conventions, a sign, a factor, a missing term: none of them shrinks. The last two levels decide:

    refuted  <=>  the finest gap is above the tolerance (the solver's own, there, if that is larger) and
                  ten times its error estimate, and the measured order is below SHARE of q

q is the solver's order, in the step or in the tolerance. Where the drift's program may have kinks (max,
abs, comparisons) it is at most 1.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from hjcontrol._ground.jaxprs import equations
from hjcontrol.control import ControlProblem
from hjcontrol.networks import Flow
from hjcontrol.networks.flow_numerics import STEPS, TOLERANCES
from hjcontrol.verification.certificate import CONSISTENT, REFUTED, Finding, Pair

LEVELS = 3
FINEST = {
    8: 1e-13,
    4: 1e-6,
    2: 1e-2,
}  # tolerances that adaptive steps still resolve, by bytes a number
SHARE = {STEPS: 0.6, TOLERANCES: 0.4}  # adaptive steps come in whole numbers: their order is ragged
GROWTH = {STEPS: 4, TOLERANCES: 64}
_KINKS = {"max", "min", "abs", "sign", "clamp", "floor", "ceil", "round", "argmax", "sort"}


class Refinement(NamedTuple):
    """The problem at every level, coarsest first; `s`, and the order expected in it."""

    problems: tuple[ControlProblem, ...]
    factor: float
    order: float
    approximate: bool  # a flow's own backward pass is no discrete costate
    floor: float  # the solvers' tolerance at the finest level: gaps below it need not shrink


def refinement(problem: ControlProblem, graded: bool) -> Refinement | None:
    """How to measure orders; `None` where there is nothing to measure: no flow, or `graded` false and
    every flow's backward pass discrete.

    **Raises:** `ValueError` for a flow whose accuracy has no knob to turn.
    """
    flows = [run.stage for run in problem.chain.runs if isinstance(run.stage, Flow)]
    approximate = any(f.numerics.approximate for f in flows)
    if not flows or not (graded or approximate):
        return None
    rates = []
    for flow, (x, theta) in zip(flows, _arguments(problem), strict=True):
        factor = TOLERANCES if flow.numerics.by_tolerance else STEPS
        order = flow.numerics.order
        order = min(order, 1.0) if _may_have_kinks(flow, x, theta) else order
        rates.append((order * math.log(factor), factor, order))
    _, factor, order = min(rates)
    levels = tuple(_at_level(problem, j) for j in range(LEVELS))
    ends = (r.stage.numerics.tol for r in levels[-1].chain.runs if isinstance(r.stage, Flow))
    return Refinement(levels, factor, order, approximate, max(ends))


def _arguments(problem: ControlProblem) -> list[tuple[Any, Any]]:
    """Shapes of one sample's state and one stage's weights, for every run of flows."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    weights = jax.eval_shape(problem.init, key)
    states = jax.eval_shape(problem.rollout, weights)
    cut = lambda tree, axes: jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape[axes:], a.dtype), tree
    )
    return [
        (cut(xs, 2), cut(theta, 1))
        for run, xs, theta in zip(problem.chain.runs, states.runs, weights, strict=True)
        if isinstance(run.stage, Flow)
    ]


def _at_level(problem: ControlProblem, level: int) -> ControlProblem:
    def finer(run: Any) -> Any:
        if not isinstance(run.stage, Flow):
            return run
        numerics, span = run.stage.numerics, run.stage.t1 - run.stage.t0
        growth = GROWTH[TOLERANCES if numerics.by_tolerance else STEPS]
        finest = FINEST[np.dtype(problem.dtype).itemsize]
        numerics = numerics.refined(level, span, finest).allowing(numerics.max_steps * growth)
        return eqx.tree_at(lambda r: r.stage.numerics, run, numerics)

    runs = tuple(finer(run) for run in problem.chain.runs)
    return eqx.tree_at(lambda p: p.chain.runs, problem, runs)


def _may_have_kinks(flow: Flow, x: Any, theta: Any) -> bool:
    one = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, flow)  # its run's first
    program = jax.make_jaxpr(lambda a, c: one.velocity(one.t0, a, c))(x, theta)
    return any(eqn.primitive.name in _KINKS for eqn in equations(program.jaxpr))


def graded(name: str, found: Refinement | None) -> bool:
    """Whether a pair of routes is judged by its order."""
    if found is None:
        return False
    return "costate_equation" in name or (found.approximate and "backprop" in name)


def judge_order(
    name: str, gaps: list[Any], found: Refinement, tol: float, title: Any
) -> tuple[Pair, list[Finding]]:
    """The pair with its verdict, and what refutes it. `gaps`: at every level, coarsest first."""
    bad, worst, slowest = [], None, math.inf
    for where in ("states", "weights"):
        values = [getattr(g, where) for g in gaps]
        if values[0] is None:
            continue
        error = np.asarray(gaps[-1].state_error if where == "states" else gaps[-1].weight_error)
        allowed = np.broadcast_to(max(tol, found.floor) + 10 * error, np.shape(values[0]))
        place = {"states": "state"}.get(where, where)
        for k in range(len(values[0])):
            coarse, fine = float(values[-2][k]), float(values[-1][k])
            finding = Finding(k, place, title(k), float(values[0][k]), name)
            if worst is None or not finding.disagreement <= worst.disagreement:
                worst = finding
            if fine <= allowed[k]:
                if min(coarse, fine) > 10 * np.finfo(float).eps and coarse > allowed[k]:
                    slowest = min(slowest, math.log(coarse / fine) / math.log(found.factor))
                continue
            order = math.log(coarse / fine) / math.log(found.factor) if fine > 0 else math.nan
            slowest = min(slowest, order) if order == order else -math.inf
            if not order >= SHARE[found.factor] * found.order:
                bad.append(Finding(k, place, title(k), fine, name))
    bad.sort(key=lambda f: (-f.index, f.where != "state"))
    if "pairing" not in name:
        bad = bad[:1]  # below the first, disagreement is inherited
    measured = None if slowest == math.inf else slowest
    value = worst.disagreement if worst else 0.0
    return (
        Pair(
            name,
            CONSISTENT,
            REFUTED if bad else CONSISTENT,
            gaps[0].states,
            gaps[0].weights,
            bad[0] if bad else worst,
            value,
            order=(measured, found.order, "step" if found.factor == STEPS else "tolerance"),
        ),
        bad,
    )
