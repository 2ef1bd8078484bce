r"""A flow that is seen at times: one solve per sample, its states at the sample's own times.

    x' = f(x, theta(t), t, u(t)),  x(t0) = x_0        step(x_0, theta, seen) = (x(s_1), .., x(s_T))

s_j    times of one sample, t0 <= s_1 <= .. <= s_T <= t1; a sample with fewer repeats its last one
u(t)   what one sample is driven by: a diffrax interpolation, or any module with `evaluate(t)`
f      a stage or what `as_stage` accepts; one that reads `"context"` takes a `Moment(t, u)` as its last
       argument

The stage's next state holds all T states in front, so the terminal cost is a loss at the observation
times (with a mask among the targets), and a path constraint holds at every one of them. The solve ends
at the sample's last time; its steps are diffrax's own, and the states between them its interpolation.
An integral along the flow is one more state.

Limits: one solve over a vmapped ensemble takes as many turns as its slowest sample (`step_counts`).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol.networks.flow import Flow, failure
from hjcontrol.networks.flow_numerics import succeeded
from hjcontrol.networks.flow_twice import at_times
from hjcontrol.networks.stage import AbstractStage


@admits()
class Seen(Shown):
    """What an `ObservedFlow` reads: the problem's `context`.

    - `times`: `(n, T)`, or `(T,)` of one sample.
    - `inputs`: `None`, or an interpolation whose leaves have the samples in front, such as
      `jax.vmap(diffrax.LinearInterpolation)(ts, ys)` of `(n, L)` and `(n, L, c)`.

    **Raises:** `ValueError` for times that are no real numbers, or inputs without `evaluate`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> hj.networks.Seen(jnp.array([[0.5, 1.0], [0.2, 0.2]])).times.shape
        (2, 2)
    """

    times: Float[Array, "*samples times"] = eqx.field(converter=jnp.asarray)
    inputs: PyTree = None

    def __check_init__(self):
        if self.times.ndim > 2:
            raise ValueError(
                f"Seen: `times` must be (n, T), or (T,) of one sample; found {shown(self.times)}."
            )
        if self.inputs is not None and not callable(getattr(self.inputs, "evaluate", None)):
            raise ValueError(
                "Seen: `inputs` must be a diffrax interpolation or a module with `evaluate(t)`; found "
                f"{shown(self.inputs)}."
            )


class Moment(NamedTuple):
    """What a drift that reads takes at time `t`: the time, and the input `u(t)` or `None`."""

    t: Float[Array, ""]
    u: Any


@admits()
class ObservedFlow(AbstractStage):
    """The states of a flow at each sample's own times, `(T, ...)`.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> flow = hj.networks.ObservedFlow((lambda x, a: -a * x, jnp.ones(())), 1.0)
        >>> seen = hj.networks.Seen(jnp.array([0.0, 1.0]))
        >>> states = flow.step(jnp.array([1.0]), flow.init(jax.random.key(0)), seen)
        >>> states.shape, bool(abs(states[1, 0] - jnp.exp(-1.0)) < 1e-5)
        ((2, 1), True)
    """

    flow: Flow

    def __init__(self, drift: Any, t1: Any = 1.0, **how: Any):
        """**Arguments:**

        - `drift`: the velocity `f(x, theta)`, or `f(x, theta, moment)` as a triple
          `(f, theta0, "context")`, which takes a `Moment`.
        - `t1`, and by keyword `t0`, `control`, `knots`, `solver`, `stepsize_controller`, `adjoint`,
          `dt0`, `max_steps`: as for `Flow`. Newton and Gauss-Newton ask for `adjoint="twice"`.

        **Raises:** `ValueError` as `Flow`, and for a drift that reads a forcing.
        """
        self.flow = Flow(drift, t1, **how)
        if self.flow.drift.reads == "forcing":
            raise ValueError(
                "ObservedFlow: a drift reads a `Moment(t, u)`, named 'context'; found one that reads a "
                "forcing. State it as (f, theta0, 'context')."
            )

    @property
    def reads(self):
        return "context"

    def check(self, given):
        times = _seen(given).times
        if known_to_fail(jnp.all(jnp.diff(times, axis=-1) >= 0)):
            *sample, j = np.argwhere(~(np.diff(np.asarray(times), axis=-1) >= 0))[0].tolist()
            raise ValueError(
                "ObservedFlow: times must not run backwards; found one that is smaller than the time "
                f"before it, or NaN, at index {(*sample, j + 1)} of `times`. Sort each sample's times; a "
                "sample with fewer observations repeats its last one."
            )
        t0, t1 = jnp.min(self.flow.t0), jnp.max(self.flow.t1)
        if known_to_fail(jnp.all((times >= t0) & (times <= t1))):
            raise ValueError(
                f"ObservedFlow: times must lie in t0 .. t1 = {float(t0):g} .. {float(t1):g}; found "
                f"{float(jnp.min(times)):g} .. {float(jnp.max(times)):g}. A sample with fewer "
                "observations repeats its last time."
            )

    def step(self, x, theta, seen):
        solution = self.solve(x, theta, _seen(seen))
        reached = succeeded(solution)
        values = at_times(self.flow.numerics.solver, solution, self._times(x, seen))
        return jax.tree.map(lambda a: jnp.where(reached, a, jnp.nan), values)

    def solve(self, x: PyTree[Array], theta: PyTree[Array], seen: Seen) -> Any:
        """diffrax's own `Solution` of one sample."""
        times = self._times(x, seen)
        return self.flow.numerics.solve(*self.statement(x, theta, seen), times=times)

    def statement(self, x: PyTree[Array], theta: PyTree[Array], seen: Seen) -> tuple:
        """Velocity, `t0`, the last time, start and arguments, as `Numerics.solve` takes them."""
        flow = self.flow
        last = self._times(x, seen)[-1]
        # Beyond the last time by a few roundings, so that none of them puts it outside.
        end = last + 64 * jnp.finfo(last.dtype).eps * jnp.maximum(jnp.abs(last), jnp.abs(flow.t0))
        return _driven, flow.t0, end, x, (flow.drift, flow.path(theta), seen.inputs)

    def _times(self, x: PyTree[Array], seen: Seen) -> Float[Array, " times"]:
        return seen.times.astype(jnp.result_type(*jax.tree.leaves(x)))

    def step_counts(
        self, x: PyTree[Array], theta: PyTree[Array], seen: Seen
    ) -> dict[str, Int[Array, " n"]]:
        """How many steps each sample's solve takes, `accepted` and `rejected`.

        A vmapped ensemble takes as many turns as the largest sum of both.

        **Arguments:** `x`, `seen`: the problem's inputs and context, samples in front; `theta`: this
        stage's weights.
        """
        stats = _counted(self, x, theta, seen)
        return {k: stats[f"num_{k}_steps"] for k in ("accepted", "rejected")}

    def init(self, key):
        return self.flow.init(key)

    def refusal(self, derivative: str) -> str | None:
        return self.flow.refusal(derivative)

    def forward(self) -> "ObservedFlow":
        return eqx.tree_at(lambda s: s.flow, self, self.flow.forward())

    def complaint(self, x: PyTree[Array], theta: PyTree[Array], *given: Any) -> str | None:
        flow, (seen,) = self.flow, given
        report = _traced(self, x, theta, seen)
        return failure(report, float(flow.t0), float(flow.t1), flow.numerics, theta)


def _seen(given: Any) -> Seen:
    if isinstance(given, Seen):
        return given
    raise ValueError(
        "ObservedFlow: `context` must be hj.networks.Seen(times, inputs); found a "
        f"{type(given).__name__}."
    )


def _driven(t: Any, x: PyTree, args: tuple[AbstractStage, Any, Any]) -> PyTree:
    drift, path, inputs = args
    theta = path.evaluate(t) if hasattr(path, "evaluate") else path
    if drift.reads == "nothing":
        return drift.step(x, theta)
    return drift.step(x, theta, Moment(t, None if inputs is None else inputs.evaluate(t)))


@eqx.filter_jit
def _counted(stage: ObservedFlow, x: Any, theta: Any, seen: Seen) -> dict[str, Array]:
    return jax.vmap(lambda a, s: stage.solve(a, theta, s).stats)(x, seen)


@eqx.filter_jit
def _traced(stage: ObservedFlow, x: Any, theta: Any, seen: Seen) -> dict[str, Any]:
    one = lambda a, s: stage.flow.numerics.trace(*stage.statement(a, theta, s))
    return jax.vmap(one)(x, seen)
