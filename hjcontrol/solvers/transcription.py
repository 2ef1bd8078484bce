r"""Direct transcription: the control problem as a nonlinear program.

    multiple shooting   min f(theta, x)   s.t.   F_k(x_k^i, theta_k) - x_{k+1}^i = 0,   theta in Theta
    single shooting     min J(theta)                                                    theta in Theta
    collocation         multiple shooting, each piece of a flow by `collocation`

    Lagrangian  f + sum lam . (F_k(x_k) - x_{k+1}):   stationarity in x_{k+1} says lam = p_{k+1}

The dynamics are written with the next state subtracted, so a multiplier *is* a costate, its 1/n
included, with no sign to flip. x_0 is data: its costate is completed from p_1 by stationarity of the
Lagrangian in x_0, which is the multiplier that a constraint `x_bar == x_0` would have. A last discrete
stage that does not widen, and whose end nothing constrains, is written into the terminal cost,
Phi(F_K-1(x_K-1, theta_K-1), y): its states are no variables, and p_K = grad Phi / n.
"""

import dataclasses
from typing import Any, Literal

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.shapes import of_drawn
from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.control.trajectory import by_runs
from hjcontrol.networks import Weights
from hjcontrol.solvers import collocation
from hjcontrol.solvers.casadi_programs import Programs, columns, programs_of
from hjcontrol.solvers.direct_missed import missed
from hjcontrol.solvers.direct_sets import SetRows, set_rows
from hjcontrol.solvers.packing import flat, rows_as, slices, unflat
from hjcontrol.solvers.transcribable import check_arrays, check_flows

Kind = Literal["multiple", "single", "legendre", "radau"]
KINDS = ("multiple", "single", *collocation.SCHEMES)


@dataclasses.dataclass(frozen=True)
class Transcription:
    """A CasADi nlp with its start, its bounds, and the way back to weights and states.

    `nlp` is what `casadi.nlpsol` takes: `{"x", "f", "g"}`, MX expressions. `variables` and `constraints`
    name the slices of `x` and of `g`. States lie sample after sample.
    """

    nlp: dict[str, ca.MX]
    x0: np.ndarray
    lbx: np.ndarray
    ubx: np.ndarray
    lbg: np.ndarray
    ubg: np.ndarray
    variables: dict[str, slice]
    constraints: dict[str, slice]
    kind: Kind
    programs: Programs
    problem: ControlProblem
    degree: int
    elements: int | tuple[int, ...]  # of every piece, or of each stage its own
    sets: SetRows
    lam_g0: np.ndarray | float = 0.0
    rolled: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # states at x0

    def weights(self, x: Any) -> Weights:
        """The weights within the NLP's variables, in the problem's dtype."""
        x = np.asarray(x, float).ravel()
        one = of_drawn(self.problem.init)
        like = jax.eval_shape(self.problem.chain.unstack, one)
        owned = zip(self.programs.owner, like, strict=True)
        thetas = [unflat(x[self.variables[f"theta[{k}]"]], theta) for k, theta in owned]
        return self.problem.chain.stack(thetas)

    def weight_multipliers(self, x: Any, lam_x: Any, lam_g: Any) -> Weights:
        """The control set's multipliers, shaped like the weights: an element of the normal cone."""
        x, lam_x, lam_g = (np.asarray(a, float).ravel() for a in (x, lam_x, lam_g))
        m, heights = self.sets.lower.size, self.sets.heights
        rows = [lam_g[self.constraints[name]] for name in heights]
        normal = self.sets.normal(x[:m], lam_x[:m], np.concatenate([np.zeros(0), *rows]))
        return self.weights(np.concatenate([normal, x[m:]]))

    def states(self, x: Any) -> Trajectory | None:
        """The states within the NLP's variables; `None` for single shooting, which has none."""
        if self.kind == "single":
            return None
        x = np.asarray(x, float).ravel()
        later = [x[s] for name, s in self.variables.items() if name.startswith("x[")]
        if self.programs.folded:
            later.append(np.array(_end(self, x)).T)
        return _trajectory(self, [self.programs.inputs.T, *later])

    def tame(self) -> bool:
        """Whether the rollout that a solve starts at stays within a million times its inputs."""
        scale = 1e6 * max(1.0, float(np.abs(self.programs.inputs).max(initial=0.0)))
        return bool(np.abs(self.rolled).max(initial=0.0) <= scale)

    def held(self) -> "Transcription":
        """The same program, its states started at the inputs, where these fit, else at zero."""
        x0, first = self.x0.copy(), self.programs.inputs.T.ravel()
        for name, place in self.variables.items():
            if name.startswith("x["):
                x0[place] = first if place.stop - place.start == first.size else 0.0
        return dataclasses.replace(self, x0=x0)

    def costates(self, x: Any, lam_g: Any) -> Trajectory | None:
        """Multipliers as costates `p_0 .. p_K`, shaped like the states; `None` for single shooting."""
        return _costates(self, x, lam_g)

    def violations(self, x: Any, most: int = 5, above: float = 0.0) -> list[str]:
        """What `x` misses by most and by more than `above`: name, sample, coordinate, size."""
        return missed(self, x, most, above)

    def terminal_multiplier(self, lam_g: Any) -> jnp.ndarray | None:
        """`nu` of the terminal constraint, beside the mean of Phi, one row a sample; `None` without."""
        if "terminal" not in self.constraints:
            return None
        n = self.programs.num_samples
        found = np.asarray(lam_g, float).ravel()[self.constraints["terminal"]]
        return jnp.asarray(n * found.reshape(n, -1), self.problem.dtype)

    def path_multipliers(self, lam_x: Any, lam_g: Any) -> dict[str, jnp.ndarray] | None:
        """`nu` of the constraints along depth, by name; `None` without."""
        if not self.problem.path:
            return None
        duals = (np.asarray(a, float).ravel() for a in (lam_x, lam_g))
        found = self.programs.paths.multipliers((self.variables, self.constraints), *duals)
        return {name: jnp.asarray(nu, self.problem.dtype) for name, nu in found.items()}

    def warmed(self, costates: Trajectory, nu: Any = None, path: Any = None) -> "Transcription":
        """The same program with these costates, a terminal constraint's `nu` and those of the constraints
        along depth by name, as first multipliers."""
        return _warmed(self, costates, nu, path)


def _pack(transcription: Transcription, weights: Weights, states: Any = None) -> np.ndarray:
    thetas = [flat(theta) for theta in transcription.problem.chain.unstack(weights)]
    n, state, later = transcription.programs.num_samples, ca.DM(transcription.programs.inputs), []
    own = [thetas[k] for k in dict.fromkeys(transcription.programs.owner)]
    sizes = np.abs(np.concatenate(own))[transcription.sets.of]
    if states is not None or any(transcription.programs.spans):
        states = transcription.problem.rollout(weights) if states is None else states
        return np.concatenate([*own, *_along(transcription, states), sizes])
    for step, theta, u in zip(
        transcription.programs.steps, thetas, transcription.programs.given, strict=True
    ):
        state, _ = step.map(n)(state, ca.repmat(ca.DM(theta), 1, n), u)
        later.append(np.array(state).T.ravel())
    kept = 0 if transcription.kind == "single" else transcription.programs.joints
    return np.concatenate([*own, *later[:kept], sizes])


def _warmed(
    transcription: Transcription, costates: Trajectory, nu: Any = None, path: Any = None
) -> "Transcription":
    first = np.zeros(transcription.lbg.size)
    for k in range(1, len(costates)):
        place = transcription.constraints.get(f"F[{k - 1}] - x[{k}]")
        if place is not None:
            n = transcription.programs.num_samples
            first[place] = columns(n, costates[k]).T.ravel()
    if nu is not None and "terminal" in transcription.constraints:
        first[transcription.constraints["terminal"]] = np.asarray(nu, float).ravel() / len(nu)
    if path is not None and transcription.problem.path:
        for row, mu in transcription.programs.paths.rows_of(path).items():
            first[transcription.constraints[row]] = mu
    return dataclasses.replace(transcription, lam_g0=first)


def _trajectory(transcription: Transcription, rows: list[np.ndarray]) -> Trajectory:
    n = transcription.programs.num_samples
    each = [
        rows_as(np.reshape(c, (n, -1)), like)
        for c, like in zip(rows, transcription.programs.states, strict=True)
    ]
    return Trajectory(by_runs(transcription.problem.chain, each), each[-1])


def _end(transcription: Transcription, x: np.ndarray) -> ca.DM:
    """States at the end of a folded last stage, one column a sample."""
    step, n = transcription.programs.steps[-1], transcription.programs.num_samples
    before = x[transcription.variables[f"x[{transcription.programs.joints}]"]].reshape(n, -1).T
    theta = x[transcription.variables[f"theta[{transcription.programs.owner[-1]}]"]]
    return step.map(n)(before, ca.repmat(ca.DM(theta), 1, n), transcription.programs.given[-1])[0]


def _along(transcription: Transcription, states: Any) -> list[np.ndarray]:
    """States at each depth as columns, those within a piece of a flow on the straight line."""
    n, parts = transcription.programs.num_samples, []
    states = [columns(n, x) for x in states]
    for k, span in enumerate(transcription.programs.spans[: transcription.programs.joints]):
        if span is not None:
            scheme = (transcription.kind, transcription.degree, transcription.elements)
            own = collocation.of_piece(scheme, k)
            parts.append(collocation.between(states[k], states[k + 1], own))
        parts.append(states[k + 1].T.ravel())
    return parts


def _costates(transcription: Transcription, x: Any, lam_g: Any) -> Trajectory | None:
    if transcription.kind == "single":
        return None
    lam = np.asarray(lam_g, float).ravel()
    x = np.asarray(x, float).ravel()
    p = [lam[s] for name, s in transcription.constraints.items() if name.startswith("F[")]
    n, step = transcription.programs.num_samples, transcription.programs.steps[0]
    if transcription.programs.folded:
        end, y = transcription.programs.terminal.sx_in()
        rise = ca.gradient(transcription.programs.terminal(end, y) / n, end)
        rise = ca.Function("p_K", [end, y], [rise]).map(n)
        p.append(np.array(rise(_end(transcription, x), transcription.programs.targets)).T.ravel())
    a, q = ca.SX.sym("x", step.size1_in(0)), ca.SX.sym("p", step.size1_out(0))
    theta, u = ca.SX.sym("theta", step.size1_in(1)), ca.SX.sym("u", step.size1_in(2))
    after, cost = step(a, theta, u)
    flow, first = transcription.programs.spans[0] is not None, p[0]
    if flow:  # x_0 stands in every equation of the first element, with factor one
        rows = np.concatenate([lam[transcription.constraints["collocation[0]"]], p[0]])
        first = rows.reshape(-1, p[0].size)[: transcription.degree + 1].sum(axis=0)
    paid, duals = cost / n + ca.dot(q, a if flow else after), []
    for name, c in transcription.programs.paths.rows[0]:  # p_0 = dH_0/dx + mu_0 dc/dx
        mu = ca.SX.sym("mu", c.size1_out(0))
        paid += ca.dot(mu, c(a, theta, u))
        own = lam[transcription.constraints[f"path: {name}[0]"]].reshape(n, -1).T
        duals.append((mu, own))
    symbols = [a, theta, u, q, *(mu for mu, _ in duals)]
    slope = ca.Function("p0", symbols, [ca.gradient(paid, a)])
    start = slope.map(n)(
        transcription.programs.inputs,
        ca.repmat(ca.DM(x[transcription.variables["theta[0]"]]), 1, n),
        transcription.programs.given[0],
        first.reshape(n, -1).T,
        *(own for _, own in duals),
    )
    return _trajectory(transcription, [np.array(start).T, *p])


def as_nlp(
    problem: ControlProblem,
    *,
    init: Weights,
    transcription: Kind = "multiple",
    degree: int = 4,
    elements: int | tuple[int, ...] = 2,
    whole: bool = False,
    states: Any = None,
) -> Transcription:
    """The CasADi nlp of a control problem.

    **Arguments:** `init`: weights to start from; the states start at their rollout, or at `states`,
    `(n, ...)` at each depth. `whole`: whether the last states are variables even where they could be
    written into the terminal cost.

    **Raises:** `ValueError` for states or weights that are not floating, or an unknown transcription;
    `UnsupportedPrimitiveError` for a program that CasADi cannot express.
    """
    if transcription not in KINDS:
        raise ValueError(
            f"as_nlp: `transcription` must be one of {', '.join(KINDS)}; found {transcription!r}."
        )
    check_arrays(problem)
    check_flows(problem, transcription)
    programs = programs_of(problem, bounded=transcription != "single")
    programs = dataclasses.replace(programs, whole=whole)
    scheme = (transcription, degree, elements)
    joints = 0 if transcription == "single" else programs.joints
    sets = set_rows(problem)
    sizes = _sizes(programs, joints, scheme) | {"t": sets.of.size}
    ends = np.cumsum([0, *sizes.values()])
    x = ca.MX.sym("x", int(ends[-1]))
    parts = dict(zip(sizes, ca.vertsplit(x, [int(e) for e in ends]), strict=True))

    cost, gaps = _cost_and_gaps(programs, sizes, parts, joints, scheme, x)
    own = ca.vertcat(x[: sets.lower.size], parts["t"])
    g = ca.vertcat(*gaps.values(), ca.DM(sets.A) @ own + ca.DM(sets.Q) @ own**2)
    heights = {name: gap.numel() for name, gap in gaps.items()}
    variables = slices(sizes)
    lower, upper = _bounds(programs, sets, variables, joints)
    built = Transcription(
        nlp={"x": x, "f": cost, "g": g},
        x0=np.empty(0),
        lbx=lower,
        ubx=upper,
        lbg=np.concatenate([_floor(problem, heights, programs), sets.low]),
        ubg=np.concatenate([np.zeros(sum(heights.values())), sets.high]),
        variables=variables,
        constraints=slices(heights | sets.heights),
        kind=transcription,
        programs=programs,
        problem=problem,
        degree=degree,
        elements=elements,
        sets=sets,
    )
    x0 = _pack(built, init, states)
    rolled = [np.zeros(0), *(x0[s] for v, s in built.variables.items() if v.startswith("x["))]
    return dataclasses.replace(built, x0=x0, rolled=np.concatenate(rolled))


def _sizes(programs: Programs, joints: int, scheme: tuple[Kind, int, Any]) -> dict[str, int]:
    """How many numbers each of the variables has: the weights, then the states in order of depth, those
    within a piece of a flow before those at its end."""
    n, steps = programs.num_samples, programs.steps
    sizes = {f"theta[{k}]": steps[k].size1_in(1) for k in dict.fromkeys(programs.owner)}
    for k, f in enumerate(steps[:joints]):
        if programs.spans[k] is not None:
            own = collocation.of_piece(scheme, k)[1:]
            sizes[f"z[{k}]"] = collocation.size(f.size1_out(0), n, *own)
        sizes[f"x[{k + 1}]"] = f.size1_out(0) * n
    return sizes


def _bounds(
    programs: Programs, sets: SetRows, variables: dict[str, slice], joints: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the weights, and of the states at the joints where a constraint along depth is a box."""
    m, n = sets.lower.size, programs.num_samples
    lower, upper = (np.full(variables["t"].stop, b) for b in (-np.inf, np.inf))
    lower[:m], upper[:m] = sets.lower, sets.upper
    for k in range(1, joints + 1) if programs.paths.boxes else ():
        place = variables[f"x[{k}]"]
        ends_of = programs.paths.bounds(k, (place.stop - place.start) // n)
        lower[place], upper[place] = (np.tile(b, n) for b in ends_of)
    return lower, upper


def _cost_and_gaps(
    programs: Programs,
    sizes: dict[str, int],
    parts: dict[str, ca.MX],
    joints: int,
    scheme: tuple[Kind, int, Any],
    x: ca.MX,
) -> tuple[ca.MX, dict[str, ca.MX]]:
    """The objective along the stages, and what must vanish, by name."""
    n, steps, owner = programs.num_samples, programs.steps, programs.owner
    state, cost, gaps = ca.DM(programs.inputs), ca.MX(0.0), {}
    for k, (step, u) in enumerate(zip(steps, programs.given, strict=True)):
        theta = parts[f"theta[{owner[k]}]"]
        after, paid = step.map(n)(state, ca.repmat(theta, 1, n), u)
        cost += ca.sum2(paid) / n
        if owner[k] == k:  # tied stages pay for their weights once
            cost += programs.costs[k](theta)
        if k >= joints:
            gaps |= dict(programs.paths.at(k, state, theta, u))
            state = after
            continue
        before, state = state, ca.reshape(parts[f"x[{k + 1}]"], step.size1_out(0), n)
        gap, span = ca.vec(after - state), programs.spans[k]
        if span is not None:
            both, z = (before, state), parts[f"z[{k}]"]
            own = collocation.of_piece(scheme, k)
            inside, gap = collocation.gaps(step, both, z, theta, span, own)
            gaps[f"collocation[{k}]"] = inside
        gaps[f"F[{k}] - x[{k + 1}]"] = gap
        gaps |= dict(programs.paths.at(k, before, theta, u))
    if programs.paths.rows[-1]:
        gaps |= dict(programs.paths.at(len(steps), state, ca.DM(0, 1), programs.paths.end))
    gaps |= dict(programs.paths.spending({k: parts[f"theta[{k}]"] for k in set(owner)}))
    for k, coupling in programs.couplings.items():
        start = sum(sizes[f"theta[{j}]"] for j in dict.fromkeys(owner) if j < k)
        cost += coupling(x[start : start + coupling.size1_in(0)])
    cost += ca.sum2(programs.terminal.map(n)(state, programs.targets)) / n
    if programs.ending is not None:
        gaps["terminal"] = ca.vec(programs.ending.map(n)(state, programs.targets))
    return cost, gaps


def _floor(problem: ControlProblem, heights: dict[str, int], programs: Programs) -> np.ndarray:
    """Lower bounds of the constraints: 0, or none for what must not be positive."""
    rule = problem.terminal_constraint
    free = ["terminal"] if rule is not None and rule.kind == "<=" else []
    along = lambda name: name.startswith(("path: ", "budget: "))
    bound = {
        name: programs.paths.floor(name) if along(name) else -np.inf if name in free else 0.0
        for name in heights
    }
    return np.concatenate([np.zeros(0), *[np.full(h, bound[n]) for n, h in heights.items()]])
