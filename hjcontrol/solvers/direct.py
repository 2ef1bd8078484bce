r"""The direct method: transcribe, then hand the nonlinear program to CasADi.

    min f(z)   subject to   g(z) = 0,  lower <= z <= upper           z = (theta, x)
    multipliers of  F_k(x_k, theta_k) - x_{k+1} = 0   are the costates p_{k+1}, in sign and in scale

An independent witness: its derivatives are CasADi's, its steps IPOPT's; it shares with the other
methods only the statement of the problem.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.third_party import needs
from hjcontrol.control import ControlProblem, Solution, Trajectory, backpropagate
from hjcontrol.control.units import Units
from hjcontrol.networks import Weights
from hjcontrol.solvers.ends import stationarity
from hjcontrol.solvers.solver import AbstractHostSolver, Ending, Info, Outcome, Report


class DirectState(Shown):
    """The program, and after the solve its end point, multipliers and the plugin's words."""

    transcription: Any
    call: Any
    x: np.ndarray
    lam_x: np.ndarray | None
    lam_g: np.ndarray | None
    info: Info
    result: RESULTS
    message: str | None
    meshes: tuple[dict[str, float], ...] = ()


@renamed(plugin="backend")
@admits(tol=">= 0", degree=">= 1, <= 9", elements=">= 1", max_steps=">= 0", rounds=">= 0")
class Direct(AbstractHostSolver):
    """Direct transcription solved by a CasADi plugin.

    - `transcription`: `"multiple"` shooting (states are variables, multipliers are costates),
      `"single"` (weights only; no multipliers), or for flows collocation on `"legendre"` or `"radau"`
      points, `degree` of them in each of a piece's `elements`; diffrax's solution to its order.
    - `backend`: CasADi nlpsol plugin; `ipopt`, `fatrop` and `qrsqp` are known to work;
      `fatrop` takes one block of variables a stage, so no tied weights, and suits few samples.
      Whatever a plugin says, the optimality conditions decide about success. Where IPOPT meets a number
      that is not finite, or its limit, it tries once more from the same start, the objective scaled by
      0.01; of `max_steps` from 1000 on, the last 200 are kept for that. `stats["message"]` tells of it.
    - `mesh_tol`: of a collocated flow. Its pieces are cut into more elements, at most `rounds` times,
      until the end of each differs from diffrax at 1e-11 by at most `mesh_tol` times the largest state;
      `stats["path"]` tells every mesh. The last one may still be `too_coarse`.
    - `tol`: feasibility asked of the plugin, and stationarity in the `unit` of `dJ/dtheta`.
    - `unit`: `hj.solve` measures it (see `control.units`).
    - `options`: merged into the plugin's options, in CasADi's own form:
      `{"ipopt": {"print_level": 5}}`.

    A start that is a `Solution` is taken with its costates and the constraints' multipliers, as first
    ones; a `Guess` with its states.

    **Example:**

        >>> import hjcontrol as hj
        >>> direct = hj.solvers.Direct()
        >>> direct.duals, direct.terminal  # it returns multipliers, and takes terminal constraints
        (True, True)
    """

    transcription: Literal["multiple", "single", "legendre", "radau"] = eqx.field(
        static=True, default="multiple"
    )
    backend: str = eqx.field(static=True, default="ipopt")
    tol: float = eqx.field(static=True, default=1e-10)
    options: Mapping[str, Any] | None = eqx.field(static=True, default=None)
    degree: int = eqx.field(static=True, default=4)
    elements: int = eqx.field(static=True, default=2)
    warm: tuple[Trajectory, Array | None, Any] | None = None
    states: tuple[Array, ...] | None = None
    report: Report | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=1000)
    mesh_tol: float | None = eqx.field(static=True, default=None)
    rounds: int = eqx.field(static=True, default=6)
    unit: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if self.transcription not in ("multiple", "single", "legendre", "radau"):
            raise ValueError(
                "Direct: `transcription` must be 'multiple' or 'single', or for flows 'legendre' or "
                f"'radau'; found {self.transcription!r}."
            )
        if not (1 <= self.degree <= 9 and self.elements >= 1):
            raise ValueError(
                "Direct: `degree` must be within 1..9 and `elements` positive; found "
                f"{self.degree} and {self.elements}."
            )
        if self.mesh_tol is not None and not (self.flows and self.mesh_tol > 0):
            raise ValueError(
                "Direct: `mesh_tol` must be positive, and is for flows ('legendre', 'radau'); found "
                f"{self.mesh_tol} for {self.transcription!r}."
            )
        if not self.tol > 0:
            raise ValueError(f"Direct: `tol` must be positive; found {self.tol}.")

    @property
    def flows(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.transcription in ("legendre", "radau")

    sets = "smooth"
    couples = True
    terminal = True
    path = True
    duals = True
    ensemble = 500
    package = "casadi"

    @property
    def name(self) -> str:
        return "direct"

    def hosted(self, report: Report, max_steps: int) -> "Direct":
        return dataclasses.replace(self, report=report, max_steps=max_steps)

    def measuring(self, units: Units) -> "Direct":
        return dataclasses.replace(self, unit=float(units.gradient))

    def continued(self, start: Solution) -> "Direct":
        duals = (start.terminal_multiplier, start.path_multipliers)
        return dataclasses.replace(self, warm=(start.costate, *duals))

    def guessed(self, states: tuple[Array, ...]) -> "Direct":
        if self.transcription == "single":
            raise ValueError(
                "Direct: `transcription='single'` has no states to begin at. Use 'multiple', or pass the "
                "weights alone."
            )
        return dataclasses.replace(self, states=states)

    def check(self, problem: ControlProblem) -> None:
        return _check(self, problem)

    def ready(self) -> None:
        return _ready(self)

    def tried(self, problem: ControlProblem) -> None:
        from hjcontrol.solvers.casadi_programs import programs_of

        programs_of(problem)

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> DirectState:
        return _initial(self, problem, weights, key)

    def step(self, problem: ControlProblem, state: DirectState) -> DirectState:
        return _step(self, problem, state)

    def info(self, state: DirectState) -> Info:
        return state.info

    def terminate(self, problem: ControlProblem, state: DirectState) -> Ending:
        del problem
        return jnp.asarray(state.message is not None), state.result

    def postprocess(self, problem: ControlProblem, state: DirectState) -> Outcome:
        del problem
        return _outcome(state)


def _outcome(state: DirectState) -> Outcome:
    t = state.transcription
    if state.lam_g is None:
        return Outcome(t.weights(state.x), message=state.message)
    own = (
        {"objective": state.info.objective}
        if t.kind == "multiple"
        else {"mesh": t.kind != "single"}
    )
    own |= {"states": t.states(state.x)}
    return Outcome(
        **own,
        weights=t.weights(state.x),
        multipliers=t.costates(state.x, state.lam_g),
        terminal_multiplier=t.terminal_multiplier(state.lam_g),
        path_multipliers=t.path_multipliers(state.lam_x, state.lam_g),
        weight_multipliers=t.weight_multipliers(state.x, state.lam_x, state.lam_g),
        message=state.message,
        path=list(state.meshes) or None,
    )


def _step(direct: Direct, problem: ControlProblem, state: DirectState) -> DirectState:
    """One solve; with `mesh_tol` one more on every finer mesh."""
    state = _solved(direct, state)
    if direct.mesh_tol is None:
        return state
    from hjcontrol.solvers import mesh_refinement as refinement

    for left in range(direct.rounds, -1, -1):
        if not bool(state.result == RESULTS.successful):
            return state
        t, evaluations = state.transcription, state.info.num_evals
        weights = t.weights(state.x)
        found, size = refinement.errors(problem, t.states(state.x), weights)
        allowed, worst = direct.mesh_tol * size, int(found.argmax())
        told = {
            "elements": float(np.broadcast_to(np.asarray(t.elements), found.shape).sum()),
            "error": float(found.max()),
            "objective": float(state.info.objective),
        }
        state = dataclasses.replace(state, meshes=(*state.meshes, told))
        if found.max() <= allowed:
            return state
        if left == 0:
            words = f"piece {worst} misses diffrax's end by {found.max():.2g}, {allowed:.2g} is allowed."
            return dataclasses.replace(state, result=RESULTS.too_coarse, message=words)
        elements, states = refinement.split(t, found, allowed), tuple(t.states(state.x))
        finer = _transcribed(direct, problem, weights, elements, states)
        t = refinement.begun(t, state.x, finer)
        state = dataclasses.replace(state, transcription=t, call=_called(direct, t))
        state = _solved(direct, state)
        info = dataclasses.replace(state.info, num_evals=state.info.num_evals + evaluations)
        state = dataclasses.replace(state, info=info)
    return state


def _solved(direct: Direct, state: DirectState) -> DirectState:
    from hjcontrol.solvers.attempts import attempted

    t = state.transcription
    direct = direct if t.tame() else dataclasses.replace(direct, unit=1.0)
    found = attempted(direct, t, state.call, _called)
    end, count = found.end, jnp.asarray(found.evaluations)
    info = Info(jnp.asarray(end["f"].item()), jnp.asarray(found.slope), count)
    own = (end["x"], end["lam_x"], end["lam_g"], info, found.result, found.message)
    return DirectState(t, state.call, *own, state.meshes)


def _check(direct: Direct, problem: ControlProblem) -> None:
    from hjcontrol.solvers.transcribable import check_arrays, check_flows

    check_arrays(problem)
    check_flows(problem, direct.transcription)
    if _staged(direct):
        from hjcontrol.solvers.stage_order import check_stages

        check_stages(problem)


def _ready(direct: Direct) -> None:
    needs("Direct", "casadi")
    from hjcontrol.solvers.casadi_backends import REFUSED, loadable_backends, refusal

    plugins = loadable_backends()
    offered = [name for name, loads in plugins.items() if loads is True and name not in REFUSED]
    loading = ", ".join(offered)
    reason = refusal(direct.backend, direct.options or {})
    if reason is not None:
        raise ValueError(
            f"Direct: {reason}. These are: {loading}; QP solvers: qrqp, qpoases, osqp."
        )
    if plugins.get(direct.backend) is not True:
        raise ValueError(
            f"Direct: the CasADi plugin {direct.backend!r} does not load here; these do: {loading}."
        )


def _initial(direct: Direct, problem: ControlProblem, weights: Weights, key: Any) -> DirectState:
    del key
    t = _transcribed(
        direct, problem, weights, direct.elements, direct.states, whole=_staged(direct)
    )
    if not t.tame():  # neither a start nor a measure of anything
        t, direct = t.held(), dataclasses.replace(direct, unit=1.0)
    t = t.warmed(*direct.warm) if direct.warm is not None else t
    call = _called(direct, t)
    value, _, _, gradient = eqx.filter_jit(backpropagate)(problem, weights)
    info = Info(value, stationarity(problem, weights, gradient), jnp.asarray(1))
    return DirectState(t, call, t.x0, None, None, info, RESULTS.max_steps_reached, None)


def _staged(direct: Direct) -> bool:
    return direct.backend == "fatrop" and direct.transcription == "multiple"


def _transcribed(
    direct: Direct,
    problem: ControlProblem,
    weights: Weights,
    elements: Any,
    states: Any,
    **more: Any,
) -> Any:
    from hjcontrol.solvers import transcription

    how = {"transcription": direct.transcription, "degree": direct.degree, "elements": elements}
    return transcription.as_nlp(problem, init=weights, states=states, **how, **more)


def _called(direct: Direct, t: Any, scale: float | None = None) -> tuple[Any, Any, Any]:
    """The plugin for a program, what watches it, and the order of its variables, if it has its own.
    `scale`: of the objective, in a second try; the unit decides in the first."""
    from hjcontrol.solvers.attempts import first_limit
    from hjcontrol.solvers.casadi_backends import Watch, options_for, plugin, scalars
    from hjcontrol.solvers.lagrangian import derivatives
    from hjcontrol.solvers.stage_order import stage_order

    warm = direct.warm is not None
    watch = Watch(t, direct.report or (lambda step, objective, stationarity: None))
    limits = (direct.tol, first_limit(direct) if scale is None else direct.max_steps)
    bounded = bool(np.isfinite(t.lbx).any() or np.isfinite(t.ubx).any() or (t.lbg < t.ubg).any())
    user = direct.options or {}
    options = options_for(direct.backend, *limits, user, warm, direct.unit, bounded, scale)
    if direct.backend in _WATCHED and "iteration_callback" not in options:
        options["iteration_callback"], watch.attached = watch, True
    plain = t.programs.ending is None and not any(t.programs.spans)
    plain = plain and not any(t.programs.paths.rows) and not t.programs.paths.budgets
    if direct.backend == "ipopt" and t.kind != "single":
        own = derivatives(t) if plain else {}
        options = {**(scalars(t, own) or own), **options}
    order = stage_order(t, direct.unit) if _staged(direct) else None
    options = options if order is None else order.options | options
    nlp = t.nlp if order is None else order.nlp
    return plugin(direct.backend, nlp, options, user), watch, order


_WATCHED = ("ipopt", "sqpmethod", "feasiblesqpmethod", "qrsqp")


@admits(degree=">= 1, <= 9", elements=">= 1")
def as_nlp(
    problem: ControlProblem,
    *,
    init: Weights,
    transcription: Literal["multiple", "single", "legendre", "radau"] = "multiple",
    degree: int = 4,
    elements: int = 2,
    states: tuple[Array, ...] | None = None,
) -> Any:
    """The CasADi nlp itself; see `hjcontrol.solvers.transcription.as_nlp`."""
    needs("as_nlp", "casadi")
    from hjcontrol.solvers import transcription as transcriptions

    return transcriptions.as_nlp(
        problem,
        init=init,
        transcription=transcription,
        degree=degree,
        elements=elements,
        states=states,
    )


def loadable_backends() -> dict[str, bool | str]:
    """CasADi's NLP plugins, each with `True` if it loads here, else the reason. Never raises."""
    try:
        from hjcontrol.solvers import casadi_backends
    except ImportError as error:
        return {"casadi": str(error).splitlines()[0]}
    return casadi_backends.loadable_backends()


def refused_plugins() -> dict[str, str]:
    """CasADi's NLP plugins that load and yet are not offered, each with the reason."""
    from hjcontrol.solvers.casadi_backends import REFUSED

    return {n: why for n, why in REFUSED.items() if loadable_backends().get(n) is True}
