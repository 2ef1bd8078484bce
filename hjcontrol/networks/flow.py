r"""Continuous depth: a piece of a flow is one stage.

    x' = f(x, theta(t)),  t0 <= t <= t1          step(x0, theta) = x(t1)

f         any stage that keeps the state's shape, as for `Residual`; no explicit time (make it a state)
theta(t)  the control: constant on the piece; or a diffrax path, linear or cubic, through `knots`
          equidistant values, continuous on the piece and free to jump to the next
Limits    one Euler step a piece is `Residual`, to the last bit; as the step falls, the discrete
          costate tends to p' = -dH/dx with H = p.f, linear in p, viscosity 0, at the solver's order.

A solve that fails (too many steps, say) gives a state of NaNs: under `jit`, `vmap` and a line search
failure is data. `complaint` says how far the piece came, and what usually is the cause; solvers and
`verify` ask it.
"""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.networks.flow_numerics import Numerics, capable, interpolated, succeeded
from hjcontrol.networks.stage import AbstractStage, Symmetry, as_stage

CONTROLS = ("constant", "linear", "cubic")


@admits(t1="finite", t0="finite", knots=">= 2", max_steps=">= 1")
class Flow(AbstractStage):
    """The flow of `x' = f(x, theta(t))` from `t0` to `t1`.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> flow = hj.networks.Flow(lambda x: -x, 1.0)
        >>> end = flow.step(jnp.array([1.0]), flow.init(jax.random.key(0)))
        >>> bool(abs(end[0] - jnp.exp(-1.0)) < 1e-3)
        True
    """

    drift: AbstractStage
    t0: Float[Array, ""]
    t1: Float[Array, ""]
    control: str = eqx.field(static=True)
    knots: int = eqx.field(static=True)
    numerics: Numerics

    def __init__(
        self,
        drift: Any,
        t1: Any = 1.0,
        *,
        t0: Any = 0.0,
        control: str = "constant",
        knots: int = 2,
        solver: Any = None,
        stepsize_controller: Any = None,
        adjoint: Any = None,
        dt0: Any = None,
        max_steps: int = 1024,
    ):
        """**Arguments:**

        - `drift`: the velocity `f(x, theta)`: a stage or what `as_stage` accepts, state kept.
        - `t0`, `t1`: the interval, finite, `t0 < t1`.
        - `control`: `"constant"`, or `"linear"` or `"cubic"` through `knots >= 2` values; every leaf of
          the weights then has the knots in front.
        - the rest: diffrax's own objects, see `Numerics`.

        **Raises:** `ValueError` for an interval, a control or a diffrax object that will not do.
        """
        self.drift = as_stage(drift)
        self.t0, self.t1 = jnp.asarray(t0, float), jnp.asarray(t1, float)
        if known_to_fail(jnp.isfinite(self.t0) & jnp.isfinite(self.t1) & (self.t0 < self.t1)):
            raise ValueError(
                f"Flow: times must be finite with t0 < t1; found t0 = {t0}, t1 = {t1}."
            )
        if control not in CONTROLS:
            raise ValueError(f"Flow: `control` is one of {', '.join(CONTROLS)}; found {control!r}.")
        self.control, self.knots = control, int(knots)
        self.numerics = Numerics(solver, stepsize_controller, adjoint, dt0, max_steps)

    @classmethod
    @admits(count=">= 1")
    def pieces(cls, drift: Any, t1: Any, count: int, *, t0: Any = 0.0, **how: Any) -> list["Flow"]:
        """`count` equal pieces of `[t0, t1]`, each with its own control: stages of one run, scanned.

        **Raises:** `ValueError` as `Flow`, and for a count that is not a positive integer.
        """
        drift, length = as_stage(drift), (t1 - t0) / count
        ends = [t0 + k * length for k in range(int(count))] + [t1]
        return [cls(drift, b, t0=a, **how) for a, b in itertools.pairwise(ends)]

    def step(self, x, theta):
        solution = self.solve(x, theta)
        reached = succeeded(solution)
        return jax.tree.map(lambda a: jnp.where(reached, a[-1], jnp.nan), solution.ys)

    def solve(self, x: PyTree[Array], theta: PyTree[Array]) -> Any:
        """diffrax's own `Solution` of one sample: its `result`, `stats`, `ts`, `ys`."""
        # Everything that is differentiated travels as `args`: a continuous adjoint sees no closure.
        return self.numerics.solve(*self.statement(x, theta))

    def statement(self, x: PyTree[Array], theta: PyTree[Array]) -> tuple:
        """Velocity, `t0`, `t1`, start and arguments, as `Numerics.solve` takes them."""
        velocity = _held if self.control == "constant" else _along
        return velocity, self.t0, self.t1, x, (self.drift, self.path(theta))

    def path(self, theta: PyTree[Array]) -> PyTree:
        """The control as a function of time: `theta` itself, or diffrax's path through its knots.

        **Raises:** `ValueError` for leaves that have not `knots` entries in front.
        """
        if self.control == "constant" or not jax.tree.leaves(theta):
            return theta
        for leaf in jax.tree.leaves(theta):
            if leaf.ndim == 0 or leaf.shape[0] != self.knots:
                raise ValueError(
                    f"Flow: a {self.control} control has {self.knots} knots, in front of every "
                    f"leaf of its weights; found a leaf of shape {leaf.shape}."
                )
        dtype = jnp.result_type(*jax.tree.leaves(theta))
        ts = jnp.linspace(self.t0, self.t1, self.knots).astype(dtype)
        return interpolated(self.control, ts, theta)

    def velocity(self, t: Float[Array, ""], x: PyTree[Array], theta: PyTree[Array]) -> PyTree:
        """`f(x, theta(t))` of one sample."""
        velocity, _, _, _, args = self.statement(x, theta)
        return velocity(t, x, args)

    def init(self, key):
        if self.control == "constant":
            return self.drift.init(key)
        theta = self.drift.init(key)  # one draw: a control that starts constant
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (self.knots, *a.shape)), theta)

    def symmetry(self) -> Symmetry | None:
        inner = self.drift.symmetry()
        return None if inner is None else Symmetry(tied=True, odd=inner.odd)

    def relabel(self, theta, inward, outward):
        one = lambda th: self.drift.relabel(th, inward, outward)
        return one(theta) if self.control == "constant" else jax.vmap(one)(theta)

    def refusal(self, derivative: str) -> str | None:
        if capable(self.numerics, derivative):
            return None
        instead = {"reverse": "`adjoint='checkpoint'`", "forward": "`adjoint='direct'`"}
        both = "`adjoint='twice'` (Riccati, DDP and shooting need 'direct')"
        return (
            f"its adjoint, {type(self.numerics.adjoint).__name__}, offers no {derivative} derivative. "
            f"Make the flow with {instead.get(derivative, both)}."
        )

    def forward(self) -> "Flow":
        if capable(self.numerics, "forward"):
            return self
        return self.using(self.numerics.through("forward"))

    def using(self, numerics: Numerics) -> "Flow":
        """The same flow, integrated otherwise."""
        return eqx.tree_at(lambda f: f.numerics, self, numerics)

    def complaint(self, x: PyTree[Array], theta: PyTree[Array], *given: Any) -> str | None:
        del given
        report = eqx.filter_jit(jax.vmap(lambda a: self.numerics.trace(*self.statement(a, theta))))(
            x
        )
        return failure(report, float(self.t0), float(self.t1), self.numerics, theta)


def _held(t: Any, x: PyTree, args: tuple[AbstractStage, PyTree]) -> PyTree:
    del t
    drift, theta = args
    return drift.step(x, theta)


def _along(t: Any, x: PyTree, args: tuple[AbstractStage, Any]) -> PyTree:
    drift, path = args
    return drift.step(x, path.evaluate(t) if hasattr(path, "evaluate") else path)


def failure(
    report: dict[str, Any], t0: float, t1: float, numerics: Any, theta: PyTree[Array]
) -> str | None:
    """What to tell the person whose flow did not reach its end; `None` if every sample reached `t1`.

    Which samples, at what time, after how many steps, the last of which length; and the usual causes.
    `report`: `Numerics.trace` of each.
    """
    bad = np.flatnonzero(~np.asarray(report["succeeded"]))
    if not len(bad):
        return None
    i = int(bad[0])
    times = np.asarray(report["ts"][i], float)
    times = times[np.isfinite(times)]
    last = times[-1] - times[-2] if len(times) > 1 else float("nan")
    steps = int(report["steps"][i])
    why = (
        f"ran out of steps ({steps} of `max_steps={numerics.max_steps}`)"
        if bool(report["out of steps"][i])
        else f"was given up by {type(numerics.solver).__name__} after {steps} steps"
    )
    sizes = [float(np.max(np.abs(a), initial=0.0)) for a in jax.tree.leaves(theta)]
    size = max(sizes, default=0.0)
    return (
        f"the flow over t = {t0:g} .. {t1:g} failed for {len(bad)} of {len(report['succeeded'])} "
        f"samples; sample {i} {why} at t = {times[-1]:.6g}, last accepted step {last:.2g}, largest "
        f"weight {size:.3g}. Usual causes: the state blows up or the drift is stiff (smaller "
        "weights or steps of the optimiser, or an implicit solver such as diffrax.Kvaerno5()); "
        "tolerances finer than the dtype resolves (loosen them, or use float64); `max_steps` too "
        "low for the interval (raise it, or cut the flow into more pieces)."
    )
