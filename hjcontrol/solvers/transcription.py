r"""Direct transcription: the control problem as a nonlinear program.

    multiple shooting   min f(theta, x)   s.t.   F_k(x_k^i, theta_k) - x_{k+1}^i = 0,   theta in Theta
    single shooting     min J(theta)                                                    theta in Theta
    collocation         multiple shooting, each piece of a flow by `collocation`

    Lagrangian  f + sum lam . (F_k(x_k) - x_{k+1}):   stationarity in x_{k+1} says lam = p_{k+1}

The dynamics are written with the next state subtracted, so a multiplier *is* a costate, its 1/n
included, with no sign to flip. x_0 is data: its costate is completed from p_1 by stationarity of the
Lagrangian in x_0, which is the multiplier that a constraint `x_bar == x_0` would have.
"""

import dataclasses
from typing import Any, Literal

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.control import ControlProblem, Trajectory, given_at
from hjcontrol.networks import Flow, Weights, advance
from hjcontrol.solvers import collocation
from hjcontrol.solvers.casadi_replay import casadi_function
from hjcontrol.solvers.direct_sets import SetRows, set_rows
from hjcontrol.solvers.packing import flat, slices, unflat
from hjcontrol.solvers.transcribable import check_arrays, check_flows

Kind = Literal["multiple", "single", "legendre", "radau"]
KINDS = ("multiple", "single", *collocation.SCHEMES)


@dataclasses.dataclass(frozen=True)
class Programs:
    """The problem's pieces as CasADi functions of columns, one sample each.

    `steps[k](x, theta, u) -> (x_next, l)`, `terminal(x, y) -> Phi`, `costs[k](theta) -> r`. `owner[k]`:
    the first stage that uses the weights of stage `k` (itself, unless it is tied to earlier ones);
    `given[k]`: what stage `k` reads, with no rows if nothing. `couplings[k]`: a cost of the weights of
    the whole run that begins at stage `k`, one after the other.
    `spans[k]`: the length of a flow's piece, whose step gives its velocity in place of `x_next`; `None`
    for a discrete stage. `ending(x, y) -> g`: the terminal constraint.
    """

    steps: list[ca.Function]
    terminal: ca.Function
    ending: ca.Function | None
    costs: list[ca.Function]
    shapes: list[tuple[int, ...]]  # one sample's states x_0 .. x_K
    inputs: np.ndarray  # (d_0, n)
    targets: np.ndarray  # (entries, n)
    given: list[np.ndarray]  # (entries, n) each
    owner: list[int]
    couplings: dict[int, ca.Function]
    spans: list[float | None]

    @property
    def num_samples(self) -> int:
        return self.inputs.shape[1]


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
        return np.concatenate([*own, *(later if self.kind != "single" else []), sizes])

    def _along(self, weights: Weights) -> list[np.ndarray]:
        """States of a rollout, those within a piece of a flow on the straight line."""
        n, parts = self.programs.num_samples, []
        columns = [np.asarray(x, float).reshape(n, -1).T for x in self.problem.rollout(weights)]
        for k, span in enumerate(self.programs.spans):
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
        return self._trajectory([self.programs.inputs.T, *later])

    def costates(self, x: Any, lam_g: Any) -> Trajectory | None:
        """Multipliers as costates `p_0 .. p_K`, shaped like the states; `None` for single shooting."""
        if self.kind == "single":
            return None
        lam = np.asarray(lam_g, float).ravel()
        p = [lam[s] for name, s in self.constraints.items() if name.startswith("F[")]
        n, step = self.programs.num_samples, self.programs.steps[0]
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
            ca.repmat(ca.DM(np.asarray(x, float).ravel()[self.variables["theta[0]"]]), 1, n),
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
    programs = _programs(problem)
    n, steps = programs.num_samples, programs.steps
    owner = programs.owner
    sizes = {f"theta[{k}]": steps[k].size1_in(1) for k in dict.fromkeys(owner)}
    m = sum(sizes.values())
    scheme = (transcription, degree, elements)
    for k, f in enumerate(steps if transcription != "single" else []):  # ordered by stage
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
        if transcription == "single":
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


def _programs(problem: ControlProblem) -> Programs:
    chain = problem.chain
    weights = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    thetas = jax.eval_shape(chain.unstack, weights)
    rollout = jax.eval_shape(problem.rollout, weights)
    one = lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
    states = [
        one(s)
        for xs, run in zip(rollout.runs, chain.runs, strict=True)
        for s in [jax.ShapeDtypeStruct((xs.shape[0], *xs.shape[2:]), xs.dtype)] * run.length
    ]
    states.append(one(rollout.final))
    runs = [run for run in chain.runs for _ in range(run.length)]
    starts = np.cumsum([0, *[run.length for run in chain.runs]])
    read = [given_at(problem, k) for k in range(len(chain))]
    made: dict[Any, tuple[ca.Function, ca.Function]] = {}
    steps, costs, owner, spans = [], [], [], []
    for k in range(len(chain)):
        stage, x, theta = chain[k], states[k], thetas[k]
        spans.append(float(stage.t1 - stage.t0) if isinstance(stage, Flow) else None)
        stage = stage.drift if isinstance(stage, Flow) else stage  # its velocity
        arrays = [a for a in jax.tree.leaves(stage) if isinstance(a, jax.Array | np.ndarray)]
        # Equal stages share their functions: same run (hence same code), same array leaves.
        r = int(np.searchsorted(starts, k, side="right")) - 1
        owner.append(int(starts[r]) if runs[k].tied else k)
        key = (r, *[np.asarray(a).tobytes() for a in arrays])
        if key not in made:
            name = f"stage {k} ({type(stage).__name__})"
            real = lambda v: jnp.asarray(v, problem.dtype)
            step = lambda x, th, u, stage=stage, real=real: (
                advance(stage, x, th, u),
                real(problem.state_cost(x, th)),
            )
            cost = lambda th, real=real: real(problem.weight_cost(th))
            made[key] = (
                casadi_function(
                    step, x, theta, jax.tree.map(one, read[k]), name=f"F{k}", stage=name
                ),
                casadi_function(cost, theta, name=f"r{k}", stage=f"the weight cost of {name}"),
            )
        steps.append(made[key][0])
        costs.append(made[key][1])
    n = problem.num_samples
    columns = lambda tree: np.concatenate(
        [np.zeros((n, 0)), *[np.asarray(a).reshape(n, -1) for a in jax.tree.leaves(tree)]], axis=1
    ).T.astype(float)
    terminal = casadi_function(
        problem.terminal_cost,
        states[-1],
        jax.tree.map(one, problem.targets),
        name="Phi",
        stage="the terminal cost",
    )
    return Programs(
        steps=steps,
        terminal=terminal,
        ending=None
        if problem.terminal_constraint is None
        else casadi_function(
            problem.terminal_constraint,
            states[-1],
            jax.tree.map(one, problem.targets),
            name="g",
            stage="the terminal constraint",
        ),
        costs=costs,
        shapes=[s.shape for s in states],
        inputs=np.asarray(problem.inputs, float).reshape(n, -1).T,
        targets=columns(problem.targets),
        given=[columns(u) for u in read],
        owner=owner,
        couplings=_couplings(problem, thetas),
        spans=spans,
    )


def _couplings(problem: ControlProblem, thetas: list[Any]) -> dict[int, ca.Function]:
    found, k = {}, 0
    for run in problem.chain.runs:
        if problem.couples and not run.tied and run.length > 1:
            together = lambda own: problem.coupling(
                jax.tree.map(lambda *a: jnp.concatenate([b[None] for b in a]), *own)
            )
            own = thetas[k : k + run.length]
            found[k] = casadi_function(
                together, own, name=f"c{k}", stage=f"the coupling of stages from {k}"
            )
        k += run.length
    return found
