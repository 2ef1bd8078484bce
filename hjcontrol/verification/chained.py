r"""Verification of a chain of stages: its places, the routes to its costate, and what its point is.

p_k = dH_k/dx,   dJ/dtheta_k = dH_k/dtheta        by   backprop, recursion, multipliers,
                                                       finite_difference, costate_equation (flows)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from hjcontrol._ground.precision import exact_tolerance
from hjcontrol._ground.progress import tell
from hjcontrol._ground.quick import quick_jit
from hjcontrol.control import ControlProblem, Solution, Trajectory, backpropagate
from hjcontrol.control.capability import complaint, require
from hjcontrol.networks import Flow, Weights
from hjcontrol.verification.certificate import Certificate, Finding, Pair
from hjcontrol.verification.chain import (
    STAGE,
    by_depth,
    capped,
    chain_program,
    cut_inside,
    gradient_of,
    one_each,
    read_mark,
    stage_name,
    titled,
)
from hjcontrol.verification.conditions import judged as judged_optimality
from hjcontrol.verification.curvature import smallest_curvature
from hjcontrol.verification.declaring import all_declared
from hjcontrol.verification.diagnosis import diagnosed
from hjcontrol.verification.function import used_up
from hjcontrol.verification.judgement import judge_places, judge_routes
from hjcontrol.verification.measuring import check_weights, measure
from hjcontrol.verification.minimum import minimum_gap
from hjcontrol.verification.multipliers import excused, not_converged
from hjcontrol.verification.optimality import examine as examine_optimality
from hjcontrol.verification.order import graded, judge_order, refinement
from hjcontrol.verification.path_conditions import Claimed, critical, path_found
from hjcontrol.verification.verdicts import CONSISTENT, REFUTED, UNDEFINED, UNTESTED
from hjcontrol.verification.whole import told_of_refs
from hjcontrol.verification.witness import examine

ROUTES = (
    "backprop",
    "pairing",
    "recursion",
    "finite_difference",
    "multipliers",
    "costate_equation",
)


def verify_chain(
    problem: Any,
    given: dict[str, Any],
    inputs: Any,
    cost: Any,
    seed: int,
    key: Any,
    tol: float | None,
    deliberate: Sequence[Any],
) -> Certificate:
    """See `hjcontrol.verify`. `given`: its arguments for a chain."""
    weights, multipliers, optimality = (given[k] for k in ("weights", "multipliers", "optimality"))
    _refuse_batches(problem)
    claims, along = _claims(problem, weights), _along(problem, weights)
    unsettled = not_converged(problem) if weights is None and multipliers is None else None
    extra = {k: given[k] for k in ("targets", "running", "forcing", "context")}
    problem, weights, trajectory, multipliers = _statement(
        problem, weights, inputs, cost, extra, multipliers
    )
    routes = _check_routes(given["routes"], multipliers, problem)
    key = jax.random.key(0) if key is None else key
    tol = exact_tolerance(problem.dtype) if tol is None else float(tol)
    require(problem, "reverse", "verify")
    for name in (n for n in ("second_order", "optimality") if given[n] is not False):
        require(problem, "forward-over-reverse", f"verify({name}=True)")
    optimal = _tolerated(optimality, problem)
    finer = refinement(problem, "costate_equation" in routes)
    levels = (problem,) if finer is None else finer.problems
    skip = lambda place: finer is not None and finer.approximate and _of_flow(problem, place)
    ask = lambda p: measure(p, weights, trajectory, multipliers, key, routes)
    calls, found, cuts, measured = _ran(problem, levels, weights, seed, skip, ask, routes)
    objective = float(found[0].measured.cost)
    rows = one_each([titled(problem, calls[0], row) for row in found[0].rows])
    declared = all_declared([*rows, *cuts], calls[0].program, deliberate)
    rows = declared[: len(rows)]
    judged = _judged(problem, finer, calls, found, measured, rows, tol, routes)
    judged = excused(judged, unsettled)
    words = "" if np.isfinite(objective) else "the cost is not finite"
    kept = "" if words else told_of_refs(calls[0], found[0].measured.gradient)
    said = [(UNDEFINED, words), (UNTESTED, used_up(calls[0].program)), (UNTESTED, kept)]
    return Certificate(
        rows=tuple(declared) if "pairing" in routes else (),
        cost=objective,
        gradient=gradient_of(problem, calls[0], found[0].measured.gradient),
        tol=tol,
        accepted=max(1e-6, tol),
        notes=tuple(words for _, words in said if words),
        pairs=tuple(_own_weights(problem, pair) for pair, _ in judged),
        refuted=_rank([f for _, findings in judged for f in findings]),
        kinks=_kinks(rows, lambda k: stage_name(problem, k)),
        differenced=_differenced(rows),
        stationarity=float(measured[0].stationarity),
        feasibility=float(measured[0].feasibility),
        curvature=_second_order(problem, weights, key) if given["second_order"] else None,
        minimum=np.asarray(_minimum(problem, weights, key)) if given["minimum"] else None,
        optimality=_optimality(
            problem, weights, claims, key, optimal, measured[0].feasibility, along, multipliers
        ),
        problem=_facts(problem, weights, [verdict for verdict, words in said if words]),
    )


def _ran(
    problem: Any, levels: Any, weights: Any, seed: int, skip: Any, ask: Any, routes: Sequence[str]
) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """The program of every level, what its places gave, what is cut inside a stage, and the routes'
    numbers. Of finer levels the routes alone are asked."""
    try:
        check_weights(problem, weights)
        calls = [chain_program(p, weights) for p in levels]
        found = [
            examine(c.program, c.leaves, seed=seed, skip=skip if k == 0 else lambda place: True)
            for k, c in enumerate(calls)
        ]
        cuts = cut_inside(problem, weights, calls[0], seed)
        tell(f"comparing {', '.join(routes)}")
        measured = [jax.device_get(ask(p)) for p in levels]
    except Exception as error:  # the user's stages may raise anything; say which, and what to do
        raise diagnosed(problem, stage_name, error) or error from error
    if not all(np.isfinite(float(f.measured.cost)) for f in found):
        words = [complaint(p, weights) for p in levels]
        if any(words):
            raise RuntimeError(f"verify: {next(filter(None, words))}")
    return calls, found, cuts, measured


def _facts(problem: ControlProblem, weights: Weights, also: list[str]) -> dict[str, Any]:
    return {
        "samples": problem.num_samples,
        "stages": len(problem.chain),
        "weights": sum(a.size for a in jax.tree.leaves(weights)),
        "dtype": np.dtype(problem.dtype).name,
        "also": tuple(also),
    }


def _optimality(
    problem: ControlProblem,
    weights: Weights,
    claims: tuple[Any, Any],
    key: Any,
    tol: float | None,
    feasibility: Any,
    along: Claimed | None,
    multipliers: Trajectory | None,
) -> Any:
    if tol is None:
        return None
    tell("judging the conditions of optimality")
    title = lambda k: stage_name(problem, k)
    constrained = ()
    if along is not None:
        own = claims[0][1] if multipliers is None else multipliers
        constrained = path_found(along, weights, own), critical(along, weights, tol)
    found = examine_optimality(problem, weights, *claims, key, tol, *constrained)
    found = jax.device_get(found)
    return judged_optimality(found, problem, title, float(feasibility), tol, along)


def _judged(
    problem: ControlProblem,
    finer: Any,
    calls: Sequence[Any],
    found: Sequence[Any],
    measured: Sequence[Any],
    rows: Sequence[Any],
    tol: float,
    routes: Sequence[str],
) -> list[Any]:
    """Pairs of routes with their findings; the places' own first."""
    title = lambda k: stage_name(problem, k)
    depths = [by_depth(problem, c, f.tables) for c, f in zip(calls, found, strict=True)]
    depths[0] = capped(problem, calls[0], depths[0], rows)
    judged = [
        judge_order(name, [m.gaps[name] for m in measured], finer, tol, title)
        if finer is not None and graded(name, finer)
        else judge_routes(name, measured[0].gaps[name], tol, rows, title)
        for name in measured[0].gaps
    ]
    if "pairing" in routes:
        local = judge_places(problem, rows, depths[0], title)
        if finer is not None and graded("backprop|pairing", finer):
            local = _merged(judge_order("backprop|pairing", depths, finer, tol, title), local)
        judged.insert(0, local)
    return judged


def _of_flow(problem: ControlProblem, place: Any) -> bool:
    mark = read_mark(place)
    if mark is None or mark.kind != STAGE:
        return False
    stage = problem.chain.runs[mark.run].stage
    return isinstance(stage, Flow) and stage.numerics.approximate


def _merged(by_order: Any, local: Any) -> Any:
    """Flows whose adjoint is continuous are judged by their order, the other stages one by one."""
    (pair, findings), (other, more) = by_order, local
    verdict = REFUTED if REFUTED in (pair.verdict, other.verdict) else pair.verdict
    return dataclasses.replace(pair, verdict=verdict), [*findings, *more]


def _kinks(rows: Sequence[Any], title: Callable[[int], str]) -> tuple[Finding, ...]:
    found = {(r.stage, r.tensor): r for r in rows if r.kink and r.stage is not None}
    return tuple(
        Finding(k, where, title(k), float(np.nanmax(r.gaps, initial=0.0)), "backprop|pairing")
        for (k, where), r in found.items()
    )


def _differenced(rows: Sequence[Any]) -> tuple[int, ...]:
    """Stages that were judged by values, not by a derivative of their primal."""
    found = (r for r in rows if r.verdict == CONSISTENT or "by differences" in r.reason)
    return tuple(sorted({r.stage for r in found if r.stage is not None}))


def _tolerated(optimality: bool | float, problem: ControlProblem) -> float | None:
    if optimality is False:
        return None
    if optimality is True:
        return 1e-6 if np.dtype(problem.dtype) == np.float64 else 1e-3
    if not 0 < optimality < np.inf:
        raise ValueError(
            f"verify: `optimality` is True, False or a positive tolerance; found {optimality}."
        )
    return float(optimality)


def _refuse_batches(problem: Any) -> None:
    """Refuse samples that come in batches: every one of a certificate's is held with its states."""
    stated = problem.problem if isinstance(problem, Solution) else problem
    stream = getattr(stated, "stream", None)
    if stream is not None:
        own = "solution.problem" if isinstance(problem, Solution) else "problem"
        what = "memory map" if stream.rows is not None else "stream of batches"
        raise ValueError(
            f"verify: a certificate compares states and costates of samples in memory; found a {what}. "
            f"Take some of its samples: hj.verify({own}.on(inputs, targets), weights)."
        )


def _claims(
    problem: Any, weights: Any
) -> tuple[tuple[Trajectory, Trajectory] | None, Weights | None]:
    """States and costates that came with a solution's own weights, and the control set's multipliers."""
    if not isinstance(problem, Solution) or weights is not None:
        return None, None
    return (problem.trajectory, problem.costate), problem.weight_multipliers


def _along(problem: Any, weights: Any) -> Claimed | None:
    """The problem with its constraints, and the multipliers that a solution claims."""
    own = isinstance(problem, Solution) and weights is None
    end, path = (problem.terminal_multiplier, problem.path_multipliers) if own else (None, None)
    return None if end is path is None else Claimed(problem.problem, end, dict(path or {}))


def _own_weights(problem: ControlProblem, pair: Pair) -> Pair:
    """NaN where a stage has no weights of its own: those of a tied run stand at its first stage."""
    if pair.weights is None:
        return pair
    own = [k < run.sets for run in problem.chain.runs for k in range(run.length)]
    return dataclasses.replace(pair, weights=np.where(own, pair.weights, np.nan))


def _statement(
    problem: Any, weights: Any, inputs: Any, cost: Any, given: dict[str, Any], multipliers: Any
) -> tuple[ControlProblem, Weights, Trajectory | None, Trajectory | None]:
    if isinstance(problem, (Solution, ControlProblem)):
        extra = {"inputs": inputs, "cost": cost, **given}
        found = [k for k, v in extra.items() if v is not None and not (k == "running" and v == ())]
        if found:
            raise TypeError(
                f"verify: `{found[0]}` says nothing of a {type(problem).__name__}, which has its own. "
                "State another problem, or pass a list of stages."
            )
    if isinstance(problem, Solution):
        duals = problem.multipliers if multipliers is None else multipliers
        chosen = problem.weights if weights is None else weights
        claimed = problem.trajectory if weights is None else None
        return problem.stated, chosen, claimed, duals
    if not isinstance(problem, ControlProblem):
        if inputs is None or cost is None:
            raise ValueError(
                "verify: a list of stages needs `inputs=` and `cost=`; found "
                f"inputs {'missing' if inputs is None else 'given'}, "
                f"cost {'missing' if cost is None else 'given'}."
            )
        stages = problem if isinstance(problem, list) else _as_list(problem)
        problem = ControlProblem(stages, inputs, terminal=cost, **given)
        weights = problem.init(jax.random.key(0)) if weights is None else weights
    elif weights is None:
        raise ValueError(
            "verify: a ControlProblem needs `weights`; found none. Pass a solution's, or "
            "`problem.init(key)`."
        )
    if isinstance(weights, list):
        weights = problem.chain.stack(weights)
    return problem, weights, None, multipliers


def _as_list(stages: Any) -> list[Any]:
    """A lone stage, a pair `(f, theta)`, or a tuple of stages."""
    if not isinstance(stages, tuple):
        return [stages]
    pair = len(stages) == 2 and callable(stages[0]) and not callable(stages[1])
    return [stages] if pair else list(stages)


def _check_routes(
    routes: Sequence[str], multipliers: Trajectory | None, problem: ControlProblem
) -> tuple[str, ...]:
    asked = (routes,) if isinstance(routes, str) else tuple(routes)
    unknown = [r for r in asked if r not in ROUTES]
    if unknown:
        raise ValueError(
            f"verify: `routes` are {', '.join(ROUTES)}; found {', '.join(map(str, unknown))}."
        )
    if "multipliers" in asked and multipliers is None:
        raise ValueError("verify: the route `multipliers` needs `multipliers=`; found none.")
    if multipliers is not None:
        asked = (*asked, "multipliers")
    if not {"backprop", "recursion", "multipliers"} & set(asked) and asked:
        asked = ("backprop", *asked)  # pairing and differences test a costate; give them one
    if len(set(asked)) < 2:
        raise ValueError(f"verify: two routes at least are compared; found {asked}.")
    if "costate_equation" in asked and not any(
        isinstance(run.stage, Flow) for run in problem.chain.runs
    ):
        raise ValueError(
            "verify: the route `costate_equation` needs a stage of continuous depth (a `Flow`); found "
            "none. Discrete stages have `pairing` and `recursion`."
        )
    if "finite_difference" in asked and np.dtype(problem.dtype) != np.float64:
        raise ValueError(
            "verify: differences of J resolve nothing useful below float64; found "
            f"{np.dtype(problem.dtype).name}. Pass float64 inputs, or leave `finite_difference` out."
        )
    return tuple(r for r in ROUTES if r in asked)


def _rank(findings: list[Finding]) -> tuple[Finding, ...]:
    """One finding a place; identities of single stages first, largest disagreement first."""
    order = lambda f: (
        "pairing" not in f.pair,
        "finite_difference" in f.pair,
        -np.nan_to_num(f.disagreement, nan=np.inf),
    )
    places: dict[tuple[int, str], Finding] = {}
    for f in sorted(findings, key=order):
        places.setdefault((f.index, f.where), f)
    return tuple(places.values())


_curvature = eqx.filter_jit(smallest_curvature)


def _second_order(
    problem: ControlProblem, weights: Weights, key: Key[Array, ""]
) -> tuple[float, float]:
    tell("finding the smallest curvature")
    value, bound = _curvature(problem, weights, key)
    return float(value), float(bound)


@quick_jit
def _minimum(
    problem: ControlProblem, weights: Weights, key: Key[Array, ""]
) -> Float[Array, " stages"]:
    _, states, costates, _ = backpropagate(problem, weights)
    return minimum_gap(problem, weights, states, costates, key)
