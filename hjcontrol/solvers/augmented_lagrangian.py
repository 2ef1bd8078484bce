r"""An augmented Lagrangian around a method: constraints for a method that takes none.

    solve   min over theta of  J + sum of prices(nu, rho)          by the inner method, to a tolerance
    then    nu <- nu + rho c  ("<=": its positive part),   rho <- 4 rho unless |nu's move| / rho fell by 4

The whole loop is one method: a step is one step of the inner method, or the update once that one has
ended. Multipliers, strength and the inner tolerance are leaves, so that a solve is one program and a
round compiles nothing. The gradient of the priced problem at nu is that of the Lagrangian at the new nu.

The residual is max |nu_new - nu| / rho: c where it is "==", else max(c, -nu / rho), which is zero only
where the constraint holds and is complementary. The strength has no cap: a constraint on a state that
the weights reach only after several stages needs it to grow. A large strength leaves nu inexact, so that
the last act is Newton on the conditions of Karush, Kuhn and Tucker with the active constraints held.

Sources: Hestenes 1969, Powell 1969; Conn, Gould and Toint 1991 (the rules for rho and the tolerance).
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shapes import of_drawn
from hjcontrol._ground.shown import Shown
from hjcontrol.control import Budget, ControlProblem, Solution
from hjcontrol.control.path_checks import names_of
from hjcontrol.control.pricing import path_shapes, path_values, priced, updated
from hjcontrol.control.units import Units, measured
from hjcontrol.networks import Weights
from hjcontrol.solvers.active_constraints import polished, violations
from hjcontrol.solvers.loop import strong
from hjcontrol.solvers.solver import AbstractSolver, Ending, Info, Outcome

UPDATES = 60  # most updates of the multipliers
STRONGEST = 1e12  # of rho: what still violates a constraint there cannot meet it
GROW, FALL = 4.0, 0.25
LOOSE = 1e-2  # the first inner tolerance
MARGIN = 10.0  # of the tolerance, at roundoff, as `Direct` allows its plugins


class Multipliers(Shown):
    """`nu` of the terminal constraint, or `None`, and of the path constraints by name."""

    terminal: Float[Array, "n m"] | None
    path: dict[str, Array]


class AugmentedState(Shown):
    """The inner method's state, and what the next update needs."""

    inner: Any
    nu: Multipliers
    rho: Float[Array, ""]
    tol: Float[Array, ""]  # of the inner method
    residual: Float[Array, ""]
    violation: Float[Array, ""]
    stationarity: Float[Array, ""]  # of the Lagrangian, at the last update
    updates: Int[Array, ""]
    steps: Int[Array, ""]  # of the inner method since then
    num_evals: Int[Array, ""]
    done: Bool[Array, ""]
    rests: Bool[Array, ""]  # feasible, and no update lowers the slope


@admits(tol="> 0", rho="> 0", steps=">= 1")
class AugmentedLagrangian(AbstractSolver):
    """Path and terminal constraints for a method that takes none, as one program.

    - `inner`: `Newton`, `Riccati` (also as DDP) or `Gradient`, with its own options; its `tol` is the
      stationarity asked at the end.
    - `tol`: largest violation, and largest multiplier of a constraint that is not met, over `rho`.
    - `rho`: the first strength.
    - `steps`: most steps of the inner method between two updates.

    The control sets that it takes are the inner method's. `solution.path_multipliers` holds the
    multipliers by name; a start that is a `Solution` of the same constraints is taken with them, and its
    weights are near: the inner method begins with its last tolerance.

    **Example:**

        >>> import hjcontrol as hj
        >>> solver = hj.solvers.AugmentedLagrangian(hj.solvers.Newton())
        >>> solver.name, solver.path, solver.sets
        ('augmented-newton', True, 'bounds')
    """

    inner: AbstractSolver
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-9)
    rho: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=10.0)
    steps: Int[Array, ""] = eqx.field(converter=jnp.asarray, default=400)
    warm: Multipliers | None = None

    terminal = True
    path = True
    default_max_steps = 20_000

    def __check_init__(self):
        if not self.inner.priced:
            raise ValueError(
                "AugmentedLagrangian: `inner` must be Newton, Riccati (also as DDP) or Gradient; found "
                f"{self.inner.name}."
                + (" It takes the constraints itself." if self.inner.path else "")
            )
        if getattr(self.inner, "batch_size", None) is not None:
            raise ValueError(
                "AugmentedLagrangian: the inner method must use all samples, for every sample has its "
                "multipliers; found a `batch_size`."
            )

    @property
    def name(self) -> str:
        return f"augmented-{self.inner.name}"

    @property
    def asks(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.asks

    @property
    def sets(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.sets

    @property
    def flows(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.flows

    @property
    def couples(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.couples

    def check(self, problem: ControlProblem) -> None:
        if not problem.path and problem.terminal_constraint is None:
            raise ValueError(
                f"AugmentedLagrangian: the problem has no constraint; solve it by {self.inner.name}."
            )
        if any(isinstance(c, Budget) for c in problem.path) and not self.inner.couples:
            raise ValueError(
                f"AugmentedLagrangian: a Budget couples the weights of all stages, and {self.inner.name} "
                "minimises stage by stage. Use Newton or Gradient as the inner method, or Direct."
            )
        self.inner.check(_priced(problem, nothing(problem), self.rho))

    def measuring(self, units: Units) -> "AugmentedLagrangian":
        return dataclasses.replace(self, inner=self.inner.measuring(units))

    def continued(self, start: Solution) -> "AugmentedLagrangian":
        path, end = dict(start.path_multipliers or {}), start.terminal_multiplier
        warm = Multipliers(end, path) if path or end is not None else None
        return dataclasses.replace(self, inner=self.inner.continued(start), warm=warm)

    def at(self, tol: Float[Array, ""]) -> AbstractSolver:
        """The inner method with this tolerance, in the unit of `dJ/dtheta` where the weights stand."""
        own = getattr(self.inner, "unit", 1.0)
        return eqx.tree_at(lambda s: s.tol, self.inner, tol / own)

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> AugmentedState:
        nu, dtype = _begun(problem, self.warm), problem.dtype
        rho, loose = jnp.asarray(self.rho, dtype), LOOSE if self.warm is None else 0.0
        tol = (_unit(problem, weights) * jnp.maximum(self.inner.tol, loose)).astype(dtype)  # pyright: ignore
        first = self if self.warm is None else dataclasses.replace(self, inner=self.inner.nearby())
        inner = strong(first.at(tol).init(_priced(problem, nu, rho), weights, key))
        unknown, zero = jnp.asarray(jnp.inf, dtype), jnp.asarray(0)
        return AugmentedState(
            inner,
            nu,
            rho,
            tol,
            unknown,
            unknown,
            unknown,
            zero,
            zero,
            zero,
            jnp.asarray(False),
            jnp.asarray(False),
        )

    def step(self, problem: ControlProblem, state: AugmentedState) -> AugmentedState:
        method, here = self.at(state.tol), _priced(problem, state.nu, state.rho)
        ended = method.terminate(here, state.inner)[0] | (state.steps >= self.steps)

        def advance(state: AugmentedState) -> AugmentedState:
            inner = strong(method.step(here, state.inner))
            return dataclasses.replace(state, inner=inner, steps=state.steps + 1)

        return jax.lax.cond(ended, lambda s: _updated(self, problem, s), advance, state)

    def info(self, state: AugmentedState) -> Info:
        found = self.inner.info(state.inner)
        stationarity = jnp.where(state.done | state.rests, state.stationarity, found.stationarity)
        return Info(found.objective, stationarity, state.num_evals + found.num_evals)

    def terminate(self, problem: ControlProblem, state: AugmentedState) -> Ending:
        del problem
        feasible = state.violation <= self.tol
        hopeless = (state.rho >= STRONGEST) & ~feasible
        over = (state.updates >= UPDATES) | hopeless
        stuck = RESULTS.where(feasible, RESULTS.stagnated, RESULTS.infeasible)
        return state.done | state.rests | over, RESULTS.where(state.done, RESULTS.successful, stuck)

    def found(self, problem: ControlProblem, state: AugmentedState) -> Weights:
        del problem
        return state.inner.weights

    def postprocess(self, problem: ControlProblem, state: AugmentedState) -> Outcome:
        weights, nu, enough, message = state.inner.weights, state.nu, None, None
        if not bool(state.done):
            worst = violations(problem, weights, most=3, above=float(self.tol))
            words = "; ".join(worst) if worst else f"all are within {float(self.tol):.2g}"
            message = f"Largest violations at rho = {float(state.rho):.1e}: {words}."
        if not bool(state.done | state.rests):
            return Outcome(
                weights, None, nu.terminal, path_multipliers=nu.path or None, message=message
            )
        weights, terminal, path = polished(problem, weights, nu.terminal, nu.path)
        if bool(state.rests) and not violations(problem, weights, most=1, above=float(self.tol)):
            last = _unit(problem, weights) * jnp.asarray(self.inner.tol)  # pyright: ignore
            enough = MARGIN * float(last)
        ends = {"path_multipliers": path or None, "message": message, "enough": enough}
        return Outcome(weights, None, terminal, **ends)


def nothing(problem: ControlProblem) -> Multipliers:
    """Multipliers that are zero."""
    ending, path = problem.terminal_constraint, {}
    if problem.path:
        path = {k: jnp.zeros(s, problem.dtype) for k, s in path_shapes(problem).items()}
    if ending is None:
        return Multipliers(None, path)
    final = of_drawn(lambda key: problem.rollout(problem.init(key)).final)
    shape = jax.eval_shape(lambda x: ending.values(problem, x), final).shape
    return Multipliers(jnp.zeros(shape, problem.dtype), path)


def _begun(problem: ControlProblem, warm: Multipliers | None) -> Multipliers:
    """Multipliers to start from: zero, or those of a solution.

    **Raises:** `ValueError` for multipliers of other constraints.
    """
    zero = nothing(problem)
    if warm is None:
        return zero
    said = [
        {"terminal": jnp.shape(m.terminal) if m.terminal is not None else "none"}
        | {name: jnp.shape(v) for name, v in m.path.items()}
        for m in (zero, warm)
    ]
    if said[0] != said[1]:
        raise ValueError(
            "AugmentedLagrangian: `init` is a solution of other constraints. This problem's multipliers "
            f"have the shapes {said[0]}; found {said[1]}. Start from its weights: `init.weights`."
        )
    return jax.tree.map(lambda a, z: jnp.asarray(a, z.dtype), warm, zero)


def _unit(problem: ControlProblem, weights: Weights) -> Float[Array, ""]:
    """Of `dJ/dtheta`, that of the costs alone: at a solution the multipliers balance their slope."""
    return jnp.asarray(measured(problem, weights).gradient, problem.dtype)


def _priced(problem: ControlProblem, nu: Multipliers, rho: Any) -> ControlProblem:
    return priced(problem, nu.terminal, nu.path, jnp.asarray(rho, problem.dtype))


def _updated(
    method: AugmentedLagrangian, problem: ControlProblem, state: AugmentedState
) -> AugmentedState:
    weights, rho, dtype = state.inner.weights, state.rho, problem.dtype
    states = problem.rollout(weights)
    found = path_values(problem, weights, states) if problem.path else {}
    moved, wrong, new = [jnp.zeros((), dtype)], [jnp.zeros((), dtype)], {}

    def one(kind: str, nu: Array, c: Array) -> Array:
        after = updated(kind, nu, c, rho)
        moved.append(jnp.max(jnp.abs(after - nu), initial=0.0) / rho)
        wrong.append(jnp.max(c if kind == "<=" else jnp.abs(c), initial=0.0))
        return after

    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        new[name] = one(c.kind, state.nu.path[name], found[name])
    ending, terminal = problem.terminal_constraint, state.nu.terminal
    if ending is not None:
        terminal = one(ending.kind, terminal, ending.values(problem, states.final))
    residual, violation = (jnp.max(jnp.stack(v)) for v in (moved, wrong))
    info = method.inner.info(state.inner)
    last = _unit(problem, weights) * jnp.asarray(method.inner.tol, dtype)  # pyright: ignore
    done = (residual <= method.tol) & (info.stationarity <= last)
    # After a long horizon c's own rounding, times rho, may be all that is left of the slope: no update
    # lowers it. The last act has no rho in it, and may go on from there.
    met = (residual <= method.tol) & (state.residual <= method.tol) & (state.tol <= last)
    stands = (info.stationarity >= 0.5 * state.stationarity) & (state.steps < method.steps)
    rests = met & stands & ~done
    # The first residual has nothing to be compared with; one that is met need not fall, and at roundoff
    # it does not: strength that grew then would turn the constraints' rounding into multipliers.
    enough = (residual <= method.tol) | jnp.isinf(state.residual)
    fell = residual <= FALL * state.residual
    strength = jnp.where(enough | fell, rho, GROW * rho)
    tol = jnp.maximum(last, jnp.minimum(0.1 * state.tol, 0.1 * residual))
    nu = Multipliers(terminal, new)
    near = dataclasses.replace(method, inner=method.inner.nearby()).at(tol)
    inner = strong(near.init(_priced(problem, nu, strength), weights, None))
    over = done | rests
    keep = lambda a, b: jax.tree.map(lambda x, y: jnp.where(over, x, y), a, b)
    return AugmentedState(
        keep(state.inner, inner),
        nu,
        strength,
        tol.astype(dtype),
        residual,
        violation,
        info.stationarity.astype(dtype),
        state.updates + 1,
        jnp.zeros_like(state.steps),
        state.num_evals + jnp.where(over, 0, info.num_evals),
        done,
        rests,
    )
