r"""Is the backward pass the costate of Pontryagin? Independent routes, one table.

p_k = dH_k/dx,   dJ/dtheta_k = dH_k/dtheta        by   backprop, pairing, recursion,
                                                       finite_difference, multipliers,
                                                       costate_equation (flows)
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from hjcontrol._ground.precision import exact_tolerance
from hjcontrol.control import ControlProblem, Solution, Trajectory, backpropagate
from hjcontrol.control.capability import complaint, require
from hjcontrol.networks import Flow, Weights
from hjcontrol.verification.certificate import Certificate, Finding, Pair
from hjcontrol.verification.conditions import judged as judged_optimality
from hjcontrol.verification.curvature import smallest_curvature
from hjcontrol.verification.diagnosis import diagnosed
from hjcontrol.verification.judgement import Excuses, judge, over_limit
from hjcontrol.verification.measure import arbitrate, measure
from hjcontrol.verification.minimum import minimum_gap
from hjcontrol.verification.multipliers import excused, not_converged
from hjcontrol.verification.optimality import examine
from hjcontrol.verification.order import graded, judge_order, refinement

ROUTES = (
    "backprop",
    "pairing",
    "recursion",
    "finite_difference",
    "multipliers",
    "costate_equation",
)


def verify(
    problem: ControlProblem | Solution | Sequence[Any],
    weights: Weights | list[PyTree[Array]] | None = None,
    *,
    inputs: PyTree[ArrayLike] = None,
    targets: PyTree[ArrayLike] = None,
    cost: Any = None,
    running: Any = (),
    forcing: PyTree[ArrayLike] = None,
    context: PyTree[ArrayLike] = None,
    routes: Sequence[str] = ("backprop", "pairing"),
    probes: int = 2,
    key: Key[Array, ""] | None = None,
    multipliers: Trajectory | None = None,
    second_order: bool = False,
    minimum: bool = False,
    optimality: bool | float = False,
    tolerance: float | None = None,
) -> Certificate:
    """Compare routes to the costate and the gradient at every stage.

    **Arguments:**

    - `problem`: a `ControlProblem` with `weights`; a `Solution`, whose weights, trajectory and
      multipliers are used; or a list of stages (functions, `eqx.Module`s, pairs `(f, theta)`) with
      `inputs` of shape `(n, ...)` and a scalar `cost(x_K)` or `cost(x_K, y)` of one sample; `forcing`
      and `context` for stages that read them, as in `ControlProblem`.
    - `weights`: as `problem.init` gives them, or a list with one entry a stage. A list of stages has
      its own.
    - `routes`: two or more of `backprop`, `pairing`, `recursion`, `finite_difference`, `multipliers`,
      `costate_equation`. The last needs a flow: it integrates `p' = -dH/dx` on its own, and the gap
      must shrink at the expected order as the flow is refined.
      `recursion` costs a forward pass a coordinate; `finite_difference` needs float64.
    - `probes`: random directions a stage, for `pairing`.
    - `key`: of the directions. Without one they are drawn from a fixed seed: a verdict must be
      reproducible, and no estimate depends on it.
    - `multipliers`: costates from elsewhere, to be compared; NaN where there is none.
    - `second_order`: the smallest curvature of J, by Lanczos.
    - `minimum`: how far each stage's Hamiltonian can be lowered, a diagnostic.
    - `optimality`: every condition of optimality in one table: KKT with multipliers, transversality,
      curvature, Legendre-Clebsch, Hamiltonian minimum, constancy of H. A number is the largest
      violation that still holds, in units measured on the problem (`control.units`); `True` means 1e-6
      (float32: 1e-3).
    - `tolerance`: largest relative disagreement that counts as exact; by default the dtype's.

    **Returns:** a `Certificate`; print it.

    **Raises:** `ValueError` for unknown routes, fewer than two of them, arguments that are missing, or a
    stage that cannot be batched or differentiated, with its name; `RuntimeError` if a flow does not
    reach its end.
    """
    given = {"targets": targets, "running": running, "forcing": forcing, "context": context}
    claims = _claims(problem, weights)
    unsettled = not_converged(problem) if weights is None and multipliers is None else None
    problem, weights, trajectory, multipliers = _statement(
        problem, weights, inputs, cost, given, multipliers
    )
    routes = _check_routes(routes, multipliers, problem)
    if int(probes) != probes or probes < 1:
        raise ValueError(f"verify: `probes` must be a positive integer; found {probes}.")
    key = jax.random.key(0) if key is None else key
    tolerance = exact_tolerance(problem.dtype) if tolerance is None else float(tolerance)

    require(problem, "reverse", "verify")
    for asked, name in ((second_order, "second_order"), (optimality, "optimality")):
        if asked is not False:
            require(problem, "forward-over-reverse", f"verify({name}=True)")
    optimal = _tolerated(optimality, problem)
    finer = refinement(problem, "costate_equation" in routes)
    ask = lambda p: measure(p, weights, trajectory, multipliers, key, routes, int(probes))
    try:
        levels = [jax.device_get(ask(p)) for p in ((problem,) if finer is None else finer.problems)]
    except Exception as error:  # the user's stages may raise anything; say which, and what to do
        raise diagnosed(problem, stage_name) or error from error
    found = levels[0]
    if not all(np.isfinite(level.objective) for level in levels):
        words = [complaint(p, weights) for p in (problem, *(finer.problems if finer else ()))]
        if any(words):
            raise RuntimeError(f"verify: {next(filter(None, words))}")
    forward = bool(found.forward.all())
    disputed = any(
        over_limit(name, gaps, tolerance, forward)
        for name, gaps in found.gaps.items()
        if "backprop" in name and not graded(name, finer)
    )
    excuses, innocent, pointwise = Excuses(tolerance), False, found.forward
    if disputed:
        here, pointwise, again = jax.device_get(arbitrate(problem, weights, key, int(probes)))
        excuses = Excuses(tolerance, here, again)
        guilty = over_limit("backprop|pairing", here, tolerance, forward)
        innocent = all(g[:2] in excuses for g in guilty)

    title = lambda k: stage_name(problem, k)
    judged = [
        judge_order(name, [level.gaps[name] for level in levels], finer, tolerance, title)
        if finer is not None and graded(name, finer)
        else judge(name, gaps, tolerance, forward, excuses, title, innocent)
        for name, gaps in found.gaps.items()
    ]
    judged = excused(judged, unsettled)
    size = sum(a.size for a in jax.tree.leaves(weights))
    explained = {k for k, _ in excuses.values}
    return Certificate(
        pairs=tuple(_own_weights(problem, pair) for pair, _ in judged),
        refuted=_rank([f for _, findings in judged for f in findings]),
        kinks=tuple(
            Finding(k, where, title(k), gap, "backprop|pairing")
            for (k, where), gap in excuses.kinks.items()
        ),
        differenced=tuple(sorted(explained | set(np.flatnonzero(~pointwise).tolist()))),
        objective=float(found.objective),
        stationarity=float(found.stationarity),
        feasibility=float(found.feasibility),
        curvature=_second_order(problem, weights, key) if second_order else None,
        minimum=np.asarray(_minimum(problem, weights, key)) if minimum else None,
        optimality=None
        if optimal is None
        else judged_optimality(
            jax.device_get(examine(problem, weights, *claims, key, optimal)),
            problem,
            title,
            float(found.feasibility),
            optimal,
        ),
        tolerance=tolerance,
        problem={
            "samples": problem.num_samples,
            "stages": len(problem.chain),
            "weights": size,
            "dtype": np.dtype(problem.dtype).name,
        },
    )


def stage_name(problem: ControlProblem, k: int) -> str:
    """What a person calls stage `k`: the user's own class or function."""
    if k == len(problem.chain):
        return "terminal cost"
    for run in problem.chain.runs:
        if k < run.length:
            inner = getattr(run.stage, "function", getattr(run.stage, "rest", run.stage))
            return getattr(inner, "__name__", type(inner).__name__)
        k -= run.length
    raise IndexError("stage index out of range")


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


def _claims(
    problem: Any, weights: Any
) -> tuple[tuple[Trajectory, Trajectory] | None, Weights | None]:
    """States and costates that came with a solution's own weights, and the control set's multipliers."""
    if not isinstance(problem, Solution) or weights is not None:
        return None, None
    return (problem.trajectory, problem.costate), problem.weight_multipliers


def _own_weights(problem: ControlProblem, pair: Pair) -> Pair:
    """NaN where a stage has no weights of its own: those of a tied run stand at its first stage."""
    if pair.weights is None:
        return pair
    own = [k < run.sets for run in problem.chain.runs for k in range(run.length)]
    return eqx.tree_at(lambda p: p.weights, pair, np.where(own, pair.weights, np.nan))


def _statement(
    problem: Any, weights: Any, inputs: Any, cost: Any, given: dict[str, Any], multipliers: Any
) -> tuple[ControlProblem, Weights, Trajectory | None, Trajectory | None]:
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
        problem = ControlProblem(problem, inputs, terminal=cost, **given)
        weights = problem.init(jax.random.key(0)) if weights is None else weights
    elif weights is None:
        raise ValueError(
            "verify: a ControlProblem needs `weights`; found none. Pass a solution's, or "
            "`problem.init(key)`."
        )
    if isinstance(weights, list):
        weights = problem.chain.stack(weights)
    return problem, weights, None, multipliers


def _check_routes(
    routes: Sequence[str], multipliers: Trajectory | None, problem: ControlProblem
) -> tuple[str, ...]:
    asked = (routes,) if isinstance(routes, str) else tuple(routes)
    unknown = [r for r in asked if r not in ROUTES]
    if unknown:
        raise ValueError(f"verify: `routes` are {', '.join(ROUTES)}; found {', '.join(unknown)}.")
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


@eqx.filter_jit
def _curvature(problem: ControlProblem, weights: Weights, key: Key[Array, ""]) -> Any:
    return smallest_curvature(problem, weights, key)


def _second_order(
    problem: ControlProblem, weights: Weights, key: Key[Array, ""]
) -> tuple[float, float]:
    value, bound = _curvature(problem, weights, key)
    return float(value), float(bound)


@eqx.filter_jit
def _minimum(
    problem: ControlProblem, weights: Weights, key: Key[Array, ""]
) -> Float[Array, " stages"]:
    _, states, costates, _ = backpropagate(problem, weights)
    return minimum_gap(problem, weights, states, costates, key)
