r"""How a flow is integrated: diffrax's solver, step size controller and adjoint, as the user gives them.

    x(t1) = x0 + int_{t0}^{t1} f(x, theta(t)) dt        by `diffrax.diffeqsolve`

diffrax is imported when a flow is made, here and nowhere else. The accuracy has one knob: the tolerances,
or under constant steps `dt0`; both are array leaves.

Which derivatives of a flow an adjoint supports, checked before a solve starts:

| adjoint | reverse | forward | forward-over-reverse | agrees with the discrete costate |
|---|---|---|---|---|
| RecursiveCheckpointAdjoint | yes | no | no; yes for a solver of one stage, Euler | exactly |
| the same, named `"twice"` | yes | no | yes | exactly |
| DirectAdjoint | yes | yes | yes | exactly |
| BacksolveAdjoint | yes | no | no | to solver tolerance |
| ForwardMode | no | yes | no | exactly |
| ImplicitAdjoint | yes | yes | yes | never: it differentiates a steady state |

The second derivative through the default adjoint fails in the inner loop over Runge-Kutta stages
(diffrax #332). `"twice"` writes out that inner loop (diffrax's `scan_kind="bounded"`) and evaluates dense
output where states are asked for at times, so forward mode goes over the checkpointed backward pass: the
derivatives of `DirectAdjoint` without its cost. A test asks diffrax itself whether the table is true;
for an adjoint outside the table a small solve is lowered.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.third_party import needs
from hjcontrol.networks.flow_twice import TWICE, goes_twice, written_out

ADJOINTS = {  # "twice": see `Numerics`
    "checkpoint": "RecursiveCheckpointAdjoint",
    "twice": "RecursiveCheckpointAdjoint",
    "direct": "DirectAdjoint",
    "backsolve": "BacksolveAdjoint",
    "forward": "ForwardMode",
}
DERIVATIVES = ("reverse", "forward", "forward-over-reverse")
CAPABILITIES = {
    "RecursiveCheckpointAdjoint": ("reverse",),
    "DirectAdjoint": DERIVATIVES,
    "BacksolveAdjoint": ("reverse",),
    "ForwardMode": ("forward",),
    "ImplicitAdjoint": DERIVATIVES,
}
TOLERANCE = 1e-6
STEPS, TOLERANCES = 2.0, 100.0  # one refinement halves a step, or divides a tolerance


class Numerics(Shown):
    """A solver, a controller, an adjoint, a first step and a limit. `dt0` and the controller's
    tolerances are array leaves, so a sweep over them does not recompile."""

    solver: Any
    controller: Any
    adjoint: Any
    dt0: Float[Array, ""] | None
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        solver: Any = None,
        controller: Any = None,
        adjoint: Any = None,
        dt0: Any = None,
        max_steps: int = 1024,
    ):
        """**Arguments:**

        - `solver`: any diffrax solver of one `ODETerm`; default `Tsit5()`.
        - `controller`: any diffrax step size controller; default `PIDController` at 1e-6, or
          `ConstantStepSize()` when `dt0` is given or the solver estimates no error.
        - `adjoint`: any diffrax adjoint, or `"checkpoint"` (default), `"twice"`, `"direct"`,
          `"backsolve"`, `"forward"`.
        - `dt0`: first step, positive. Without it, the controller's own choice; under constant steps
          the whole piece.
        - `max_steps`: limit of one piece; reverse mode needs one.

        **Raises:** `ValueError` for a wrong type, a solver that cannot integrate an `ODETerm`, an
        adaptive controller for a solver without an error estimate, or numbers that are not positive.
        """
        needs("A Flow", "diffrax")
        import diffrax

        solver = diffrax.Tsit5() if solver is None else solver
        if not isinstance(solver, diffrax.AbstractSolver):
            raise ValueError(_wanted("solver", "a diffrax solver such as diffrax.Tsit5()", solver))
        controller = _controller(controller, solver, dt0)
        twice = isinstance(adjoint, str) and adjoint == "twice"
        solver = written_out(solver) if twice else solver
        adjoint = adjoint_named("checkpoint" if adjoint is None else adjoint)
        self.solver, self.adjoint, self.max_steps = solver, adjoint, int(max_steps)
        self.controller = _replaced(controller, jnp.asarray)
        self.dt0 = None if dt0 is None else jnp.asarray(dt0, float)
        if self.dt0 is not None and known_to_fail((self.dt0 > 0) & jnp.isfinite(self.dt0)):
            raise ValueError(f"Flow: `dt0` must be positive and finite; found {dt0}.")
        for name, value in _tolerances(self.controller).items():
            if known_to_fail((value >= 0) & jnp.isfinite(value)):
                raise ValueError(f"Flow: `{name}` must be >= 0 and finite; found {float(value):g}.")

    def solve(
        self,
        velocity: Callable[[Any, PyTree, PyTree], PyTree],
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        x: PyTree[Array],
        args: PyTree,
        times: Float[Array, " times"] | None = None,
        **saving: Any,
    ) -> Any:
        """diffrax's own `Solution` of one sample, in the dtype of `x`; it never raises on values.

        `times`: where states are asked for, by `at_times`."""
        import diffrax

        if times is not None:
            saveat = diffrax.SaveAt(dense=True) if self.twice else diffrax.SaveAt(ts=times)
            saving = {"saveat": saveat, **saving}

        dtype = jnp.result_type(*jax.tree.leaves(x))
        cast = lambda a: jnp.asarray(a).astype(dtype)
        t0, t1 = cast(t0), cast(t1)
        dt0 = None if self.dt0 is None else jnp.minimum(cast(self.dt0), t1 - t0)
        if dt0 is None and isinstance(self.controller, diffrax.ConstantStepSize):
            dt0 = t1 - t0
        return diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            self.solver,
            t0,
            t1,
            dt0,
            x,
            args,
            stepsize_controller=_replaced(self.controller, cast),
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=False,
            **saving,
        )

    def trace(self, *statement: Any) -> dict[str, Any]:
        """Of one sample's solve: whether it `succeeded`, the times of its `steps` (unused slots
        infinite), how many there were, and diffrax's word for the failure by number."""
        import diffrax

        through = adjoint_named("checkpoint")
        quiet = eqx.tree_at(lambda n: n.adjoint, self, through, is_leaf=lambda a: a is self.adjoint)
        solution = quiet.solve(*statement, saveat=diffrax.SaveAt(t0=True, steps=True))
        return {
            "succeeded": succeeded(solution),
            "ts": solution.ts,
            "steps": solution.stats["num_steps"],
            "out of steps": jnp.asarray(solution.result == diffrax.RESULTS.max_steps_reached),
        }

    @property
    def twice(self) -> bool:
        """Whether forward mode goes over the backward pass, by a solver whose stages are written out."""
        return goes_twice(self.solver)

    @property
    def by_tolerance(self) -> bool:
        """Whether accuracy is set by tolerances; else by the step."""
        return bool(_tolerances(self.controller))

    @property
    def tol(self) -> float:
        """The largest of its tolerances; 0 where a step sets the accuracy."""
        found = _tolerances(self.controller).values()
        return max((float(jnp.max(a)) for a in found), default=0.0)

    @property
    def continuous(self) -> bool:
        """Whether the adjoint is a discretised costate equation, not the discrete costate."""
        import diffrax

        return isinstance(self.adjoint, diffrax.BacksolveAdjoint)

    @property
    def approximate(self) -> bool:
        """Whether the backward pass is the discrete costate only as far as a tolerance goes: a
        continuous adjoint, or implicit steps, whose equations are solved by an iteration."""
        import diffrax

        return self.continuous or isinstance(self.solver, diffrax.AbstractImplicitSolver)

    @property
    def order(self) -> float:
        """Order of the global error in the step; in the tolerance, if that sets the accuracy."""
        import diffrax

        term = diffrax.ODETerm(lambda t, x, args: x)
        order = float(self.solver.order(term))
        return order / float(self.solver.error_order(term)) if self.by_tolerance else order

    def refined(self, level: int, span: Float[Array, "*pieces"], finest: float) -> "Numerics":
        """The same with the step, at most the `span` of a piece, halved, or the tolerances divided by
        100 but not under `finest`, `level` times.

        **Raises:** `ValueError` for a controller that has neither a constant step nor tolerances.
        """
        import diffrax

        if isinstance(self.solver, diffrax.AbstractImplicitSolver):
            self = eqx.tree_at(lambda n: n.solver, self, _finer_root(self.solver, level))
        if self.by_tolerance:
            lower = lambda a: jnp.maximum(a * TOLERANCES**-level, jnp.minimum(a, finest))
            finer = _replaced(self.controller, lower)
            return eqx.tree_at(lambda n: n.controller, self, finer)
        if not isinstance(self.controller, diffrax.ConstantStepSize):
            raise ValueError(
                "a flow's order is measured by halving a constant step or by lowering `rtol` and "
                f"`atol`; {type(self.controller).__name__} has neither. Use "
                "diffrax.ConstantStepSize() or diffrax.PIDController(...)."
            )
        whole = span if self.dt0 is None else jnp.minimum(self.dt0, span)
        return eqx.tree_at(
            lambda n: n.dt0, self, whole * STEPS**-level, is_leaf=lambda a: a is None
        )

    def at(self, accuracy: Float[Array, ""]) -> "Numerics":
        """The same with `rtol = atol = accuracy`; with `dt0 = accuracy` where a step sets it."""
        if self.by_tolerance:
            finer = _replaced(self.controller, lambda a: jnp.asarray(accuracy, a.dtype))
            return eqx.tree_at(lambda n: n.controller, self, finer)
        return eqx.tree_at(
            lambda n: n.dt0, self, jnp.asarray(accuracy), is_leaf=lambda a: a is None
        )

    def allowing(self, max_steps: int) -> "Numerics":
        """The same with another limit."""
        return Numerics(self.solver, self.controller, self.adjoint, self.dt0, max_steps)

    def through(self, adjoint: Any) -> "Numerics":
        """The same with another adjoint."""
        return Numerics(self.solver, self.controller, adjoint, self.dt0, self.max_steps)


def capable(numerics: Any, derivative: str) -> bool:
    """Whether the adjoint offers a derivative of the kind, one of `DERIVATIVES`."""
    import diffrax

    known = CAPABILITIES.get(type(numerics.adjoint).__name__)
    if isinstance(numerics.adjoint, diffrax.RecursiveCheckpointAdjoint) and numerics.twice:
        return derivative in TWICE
    stages = isinstance(numerics.solver, (diffrax.AbstractRungeKutta, diffrax.AbstractSRK))
    if isinstance(numerics.adjoint, diffrax.RecursiveCheckpointAdjoint) and not stages:
        return derivative == "reverse" or probe(numerics, derivative)
    return probe(numerics, derivative) if known is None else derivative in known


def probe(numerics: Any, derivative: str) -> bool:
    """The same, asked of diffrax: x' = -theta x, lowered and not run."""
    velocity = lambda t, x, theta: -theta * x
    zero, one = jnp.zeros(()), jnp.ones(())
    solve = lambda theta: numerics.solve(velocity, zero, one, one, theta).ys[-1]
    ask = {
        "reverse": jax.grad(solve),
        "forward": lambda a: jax.jvp(solve, (a,), (a,)),
        "forward-over-reverse": lambda a: jax.jvp(jax.grad(solve), (a,), (a,)),
    }[derivative]
    try:
        jax.jit(ask).lower(one)  # tracing is not enough: forward mode of a custom_vjp fails here
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        return False
    return True


def succeeded(solution: Any) -> Bool[Array, ""]:
    """Whether a diffrax solve reached `t1`."""
    import diffrax

    return jnp.asarray(solution.result == diffrax.RESULTS.successful)


def interpolated(kind: str, ts: Float[Array, " knots"], theta: PyTree[Array]) -> Any:
    """diffrax's linear or cubic path through `theta`, every leaf `(knots, ...)`."""
    needs("A Flow", "diffrax")
    import diffrax

    if kind == "linear":
        return diffrax.LinearInterpolation(ts=ts, ys=theta)
    return diffrax.CubicInterpolation(ts, diffrax.backward_hermite_coefficients(ts, theta))


def adjoint_named(adjoint: Any) -> Any:
    """A diffrax adjoint, or the one of that name.

    A `BacksolveAdjoint` whose backward solve fails raises: its unfinished costate would look like one.

    **Raises:** `ValueError` for anything else.
    """
    needs("A Flow", "diffrax")
    import diffrax

    if isinstance(adjoint, str) and adjoint in ADJOINTS:
        adjoint = getattr(diffrax, ADJOINTS[adjoint])()
    if not isinstance(adjoint, diffrax.AbstractAdjoint):
        raise ValueError(_wanted("adjoint", f"a diffrax adjoint or {', '.join(ADJOINTS)}", adjoint))
    if isinstance(adjoint, diffrax.BacksolveAdjoint) and "throw" not in adjoint.kwargs:
        return diffrax.BacksolveAdjoint(**adjoint.kwargs, throw=True)
    return adjoint


def _controller(controller: Any, solver: Any, dt0: Any) -> Any:
    """The step size controller, or the default of this solver and first step."""
    import diffrax

    adaptive = isinstance(solver, diffrax.AbstractAdaptiveSolver)
    if controller is None:
        controller = (
            diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
            if adaptive and dt0 is None
            else diffrax.ConstantStepSize()
        )
    if not isinstance(controller, diffrax.AbstractStepSizeController):
        kind = "a diffrax step size controller"
        raise ValueError(_wanted("stepsize_controller", kind, controller))
    _compatible(solver)
    if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController) and not adaptive:
        raise ValueError(
            f"Flow: {type(controller).__name__} adapts to an error estimate, and "
            f"{type(solver).__name__} makes none. Take `diffrax.ConstantStepSize()` with `dt0=`, "
            "or a solver such as diffrax.Heun() or diffrax.Tsit5()."
        )
    return controller


def _finer_root(solver: Any, level: int) -> Any:
    """An implicit solver whose equations are solved to tolerances divided by 100 `level` times."""
    root = solver.root_finder
    known = [n for n in ("rtol", "atol") if isinstance(getattr(root, n, None), float)]
    values = lambda s: [getattr(s.root_finder, k) for k in known]
    return eqx.tree_at(values, solver, [v * TOLERANCES**-level for v in values(solver)])


def _wanted(name: str, kind: str, found: Any) -> str:
    shown = repr(found) if isinstance(found, (str, int, float)) else type(found).__name__
    return f"Flow: `{name}` must be {kind}; found {shown}."


def _compatible(solver: Any) -> None:
    """Whether the solver takes one ODE term: symplectic ones take pairs, stochastic ones two."""
    import diffrax

    structure = solver.term_structure
    if structure is not diffrax.AbstractTerm and structure is not diffrax.ODETerm:
        raise ValueError(
            f"Flow: {type(solver).__name__} does not integrate x' = f(x, theta): it asks for terms "
            f"{structure}. Take a solver of ordinary differential equations, such as diffrax.Tsit5()."
        )


def _tolerances(controller: Any) -> dict[str, Array]:
    """`rtol` and `atol` of an adaptive controller, however it is wrapped."""
    inner = getattr(controller, "controller", None)
    found = {n: getattr(controller, n) for n in ("rtol", "atol") if hasattr(controller, n)}
    return found or ({} if inner is None else _tolerances(inner))


def _replaced(controller: Any, change: Callable[[Any], Array]) -> Any:
    """The controller with `change` applied to its tolerances."""
    names = [n for n in ("rtol", "atol") if hasattr(controller, n)]
    if names:
        values = lambda c: [getattr(c, n) for n in names]
        return eqx.tree_at(values, controller, [change(v) for v in values(controller)])
    if getattr(controller, "controller", None) is not None:
        inner = _replaced(controller.controller, change)
        return eqx.tree_at(lambda c: c.controller, controller, inner)
    return controller


def tight(numerics: Numerics, tolerance: float) -> Numerics:
    """Numerics of high order at this tolerance, implicit if these are, to measure an error by."""
    import diffrax

    stiff = isinstance(numerics.solver, diffrax.AbstractImplicitSolver)
    solver = diffrax.Kvaerno5() if stiff else diffrax.Dopri8()
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    return Numerics(solver, controller, max_steps=4096)
