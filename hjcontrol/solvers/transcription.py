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

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import Weights
from hjcontrol.solvers import collocation
from hjcontrol.solvers.casadi_programs import Programs, programs_of
from hjcontrol.solvers.direct_sets import SetRows, set_rows
from hjcontrol.solvers.packing import flat, slices, unflat
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
    elements: int
    sets: SetRows
    lam_g0: np.ndarray | float = 0.0

    def pack(self, weights: Weights) -> np.ndarray:
        """The NLP's variables at `weights`, states by rollout."""
        thetas = [flat(theta) for theta in self.problem.chain.unstack(weights)]
        n, state, later = self.programs.num_samples, ca.DM(self.programs.inputs), []
        own = [thetas[k] for k in dict.fromkeys(self.programs.owner)]
        sizes = np.abs(np.concatenate(own))[self.sets.of]
        if any(self.programs.spans):
            return np.concatenate([*own, *self._along(weights), sizes])
        for step, theta, u in zip(self.programs.steps, thetas, self.programs.given, strict=True):
            state, _ = step.map(n)(state, ca.repmat(ca.DM(theta), 1, n), u)
            later.append(np.array(state).T.ravel())
        kept = 0 if self.kind == "single" else self.programs.joints
        return np.concatenate([*own, *later[:kept], sizes])

    def _along(self, weights: Weights) -> list[np.ndarray]:
        """States of a rollout, those within a piece of a flow on the straight line."""
        n, parts = self.programs.num_samples, []
        columns = [np.asarray(x, float).reshape(n, -1).T for x in self.problem.rollout(weights)]
        for k, span in enumerate(self.programs.spans[: self.programs.joints]):
            if span is not None:
                scheme = (self.kind, self.degree, self.elements)
                parts.append(collocation.between(columns[k], columns[k + 1], scheme))
            parts.append(columns[k + 1].T.ravel())
        return parts

    def weights(self, x: Any) -> Weights:
        """The weights within the NLP's variables, in the problem's dtype."""
        x = np.asarray(x, float).ravel()
        one = jax.eval_shape(self.problem.init, jax.eval_shape(lambda: jax.random.key(0)))
        like = jax.eval_shape(self.problem.chain.unstack, one)
        owned = zip(self.programs.owner, like, strict=True)
        thetas = [unflat(x[self.variables[f"theta[{k}]"]], theta) for k, theta in owned]
        return self.problem.chain.stack(thetas)

    def weight_multipliers(self, x: Any, lam_x: Any, lam_g: Any) -> Weights:
        """The control set's multipliers, shaped like the weights: an element of the normal cone."""
        x, lam_x, lam_g = (np.asarray(a, float).ravel() for a in (x, lam_x, lam_g))
        m, rows = (
            self.sets.lower.size,
            [lam_g[self.constraints[name]] for name in self.sets.heights],
        )
        normal = self.sets.normal(x[:m], lam_x[:m], np.concatenate([np.zeros(0), *rows]))
        return self.weights(np.concatenate([normal, x[m:]]))

    def states(self, x: Any) -> Trajectory | None:
        """The states within the NLP's variables; `None` for single shooting, which has none."""
        if self.kind == "single":
            return None
        x = np.asarray(x, float).ravel()
        later = [x[s] for name, s in self.variables.items() if name.startswith("x[")]
        if self.programs.folded:
            later.append(np.array(self._end(x)).T)
        return self._trajectory([self.programs.inputs.T, *later])

    def _end(self, x: np.ndarray) -> ca.DM:
        """States at the end of a folded last stage, one column a sample."""
        step, n = self.programs.steps[-1], self.programs.num_samples
        before = x[self.variables[f"x[{self.programs.joints}]"]].reshape(n, -1).T
        theta = x[self.variables[f"theta[{self.programs.owner[-1]}]"]]
        return step.map(n)(before, ca.repmat(ca.DM(theta), 1, n), self.programs.given[-1])[0]

    def costates(self, x: Any, lam_g: Any) -> Trajectory | None:
        """Multipliers as costates `p_0 .. p_K`, shaped like the states; `None` for single shooting."""
        if self.kind == "single":
            return None
        lam = np.asarray(lam_g, float).ravel()
        x = np.asarray(x, float).ravel()
        p = [lam[s] for name, s in self.constraints.items() if name.startswith("F[")]
        n, step = self.programs.num_samples, self.programs.steps[0]
        if self.programs.folded:
            end, y = self.programs.terminal.sx_in()
            rise = ca.gradient(self.programs.terminal(end, y) / n, end)
            rise = ca.Function("p_K", [end, y], [rise]).map(n)
            p.append(np.array(rise(self._end(x), self.programs.targets)).T.ravel())
        a, q = ca.SX.sym("x", step.size1_in(0)), ca.SX.sym("p", step.size1_out(0))
        theta, u = ca.SX.sym("theta", step.size1_in(1)), ca.SX.sym("u", step.size1_in(2))
        after, cost = step(a, theta, u)
        flow, first = self.programs.spans[0] is not None, p[0]
        if flow:  # x_0 stands in every equation of the first element, with factor one
            rows = np.concatenate([lam[self.constraints["collocation[0]"]], p[0]])
            first = rows.reshape(-1, p[0].size)[: self.degree + 1].sum(axis=0)
        paid = cost / n + ca.dot(q, a if flow else after)
        slope = ca.Function("p0", [a, theta, u, q], [ca.gradient(paid, a)])
        start = slope.map(n)(
            self.programs.inputs,
            ca.repmat(ca.DM(x[self.variables["theta[0]"]]), 1, n),
            self.programs.given[0],
            first.reshape(n, -1).T,
        )
        return self._trajectory([np.array(start).T, *p])

    def violations(self, x: Any, most: int = 5) -> list[str]:
        """The constraints that `x` misses by most, largest first: name, sample, coordinate, size."""
        g = ca.Function("g", [self.nlp["x"]], [self.nlp["g"]])(np.asarray(x, float).ravel())
        g = np.array(g).ravel()
        size = np.maximum(np.maximum(self.lbg - g, g - self.ubg), 0.0)
        size[~np.isfinite(g)] = np.inf
        worst, lines = np.argsort(-size, kind="stable")[:most], []
        for i in worst[size[worst] > 0]:
            name, place = next((m, s) for m, s in self.constraints.items() if s.start <= i < s.stop)
            n = self.programs.num_samples
            if name in self.sets.heights:
                lines.append(f"{name}, row {int(i) - place.start}: {size[i]:.3g}")
                continue
            if name == "terminal":
                d = (place.stop - place.start) // n
            else:
                d = self.programs.steps[int(name.split("[")[1].split("]")[0])].size1_out(0)
            sample, coordinate = divmod((int(i) - place.start) % (n * d), d)
            lines.append(f"{name}, sample {sample}, coordinate {coordinate}: {size[i]:.3g}")
        return lines

    def terminal_multiplier(self, lam_g: Any) -> jnp.ndarray | None:
        """`nu` of the terminal constraint, beside the mean of Phi, one row a sample; `None` without."""
        if "terminal" not in self.constraints:
            return None
        n = self.programs.num_samples
        found = np.asarray(lam_g, float).ravel()[self.constraints["terminal"]]
        return jnp.asarray(n * found.reshape(n, -1), self.problem.dtype)

    def warmed(self, costates: Trajectory, nu: Any = None) -> "Transcription":
        """The same program with these costates, a terminal constraint's `nu`, as first multipliers."""
        first = np.zeros(self.lbg.size)
        for k in range(1, len(costates)):
            place = self.constraints.get(f"F[{k - 1}] - x[{k}]")
            if place is not None:
                first[place] = np.asarray(costates[k], float).ravel()
        if nu is not None and "terminal" in self.constraints:
            first[self.constraints["terminal"]] = np.asarray(nu, float).ravel() / len(nu)
        return dataclasses.replace(self, lam_g0=first)

    def _trajectory(self, columns: list[np.ndarray]) -> Trajectory:
        n, dtype = self.programs.num_samples, self.problem.dtype
        each = [
            jnp.asarray(np.reshape(c, (n, *shape)), dtype)
            for c, shape in zip(columns, self.programs.shapes, strict=True)
        ]
        runs, k = [], 0
        for run in self.problem.chain.runs:
            runs.append(jnp.stack(each[k : k + run.length], axis=1))
            k += run.length
        return Trajectory(tuple(runs), each[-1])


def as_nlp(
    problem: ControlProblem,
    *,
    init: Weights,
    transcription: Kind = "multiple",
    degree: int = 4,
    elements: int = 2,
) -> Transcription:
    """The CasADi nlp of a control problem.

    **Arguments:** `init`: weights to start from; the states start at their rollout.

    **Raises:** `ValueError` for states that are not single arrays, weights that are not floating, or an
    unknown transcription; `UnsupportedPrimitiveError` for a program that CasADi cannot express.
    """
    if transcription not in KINDS:
        raise ValueError(
            f"as_nlp: `transcription` must be one of {', '.join(KINDS)}; found {transcription!r}."
        )
    check_arrays(problem)
    check_flows(problem, transcription)
    programs = programs_of(problem)
    n, steps = programs.num_samples, programs.steps
    owner = programs.owner
    sizes = {f"theta[{k}]": steps[k].size1_in(1) for k in dict.fromkeys(owner)}
    m = sum(sizes.values())
    scheme = (transcription, degree, elements)
    joints = 0 if transcription == "single" else programs.joints
    for k, f in enumerate(steps[:joints]):  # ordered by stage
        if programs.spans[k] is not None:
            sizes[f"z[{k}]"] = collocation.size(f.size1_out(0), n, degree, elements)
        sizes[f"x[{k + 1}]"] = f.size1_out(0) * n
    sets = set_rows(problem)
    sizes["t"] = sets.of.size
    ends = np.cumsum([0, *sizes.values()])
    x = ca.MX.sym("x", int(ends[-1]))
    parts = dict(zip(sizes, ca.vertsplit(x, [int(e) for e in ends]), strict=True))

    state, cost, gaps = ca.DM(programs.inputs), ca.MX(0.0), {}
    for k, (step, u) in enumerate(zip(steps, programs.given, strict=True)):
        theta = parts[f"theta[{owner[k]}]"]
        after, paid = step.map(n)(state, ca.repmat(theta, 1, n), u)
        cost += ca.sum2(paid) / n
        if owner[k] == k:  # tied stages pay for their weights once
            cost += programs.costs[k](theta)
        if k >= joints:
            state = after
            continue
        before, state = state, ca.reshape(parts[f"x[{k + 1}]"], step.size1_out(0), n)
        gap, span = ca.vec(after - state), programs.spans[k]
        if span is not None:
            both, z = (before, state), parts[f"z[{k}]"]
            inside, gap = collocation.gaps(step, both, z, theta, span, scheme)
            gaps[f"collocation[{k}]"] = inside
        gaps[f"F[{k}] - x[{k + 1}]"] = gap
    for k, coupling in programs.couplings.items():
        start = sum(sizes[f"theta[{j}]"] for j in dict.fromkeys(owner) if j < k)
        cost += coupling(x[start : start + coupling.size1_in(0)])
    cost += ca.sum2(programs.terminal.map(n)(state, programs.targets)) / n
    if programs.ending is not None:
        gaps["terminal"] = ca.vec(programs.ending.map(n)(state, programs.targets))
    own = ca.vertcat(x[:m], parts["t"])
    g = ca.vertcat(*gaps.values(), ca.DM(sets.A) @ own + ca.DM(sets.Q) @ own**2)
    heights = {name: gap.numel() for name, gap in gaps.items()}
    lower, upper = (np.full(int(ends[-1]), b) for b in (-np.inf, np.inf))
    lower[:m], upper[:m] = sets.lower, sets.upper
    built = Transcription(
        nlp={"x": x, "f": cost, "g": g},
        x0=np.empty(0),
        lbx=lower,
        ubx=upper,
        lbg=np.concatenate([_floor(problem, heights), sets.low]),
        ubg=np.concatenate([np.zeros(sum(heights.values())), sets.high]),
        variables=slices(sizes),
        constraints=slices(heights | sets.heights),
        kind=transcription,
        programs=programs,
        problem=problem,
        degree=degree,
        elements=elements,
        sets=sets,
    )
    return dataclasses.replace(built, x0=built.pack(init))


def _floor(problem: ControlProblem, heights: dict[str, int]) -> np.ndarray:
    """Lower bounds of the constraints: 0, or none for what must not be positive."""
    rule = problem.terminal_constraint
    free = ["terminal"] if rule is not None and rule.kind == "<=" else []
    bound = {name: -np.inf if name in free else 0.0 for name in heights}
    return np.concatenate([np.zeros(0), *[np.full(h, bound[n]) for n, h in heights.items()]])
