r"""A free horizon: equal steps whose common length is one weight.

    x' = f(x, theta),  0 <= t <= T,  T free         h = T / K for every stage of K

The state carries T as its last entry, as is usual in the field: the first stage sets it, all others keep
it. So T has a costate, `T` in a cost or a constraint is `x[-1]`, and equal steps leave an optimiser no
long one to hide an error in. A running cost is one more coordinate of the drift, for it is an integral
over a time that is not known.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.free_step import Scheme, check_scheme, halving_error, stepped
from hjcontrol.networks.stage import AbstractStage, as_stage


class Horizon(AbstractStage):
    """`x -> (x, T)`, the weight T beginning at `start`."""

    start: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def step(self, x, theta):
        if getattr(x, "ndim", None) != 1:
            raise ValueError(
                "free_horizon: a state of shape (d,) is needed, to which T is appended."
            )
        return jnp.append(x, theta.astype(x.dtype))

    def init(self, key):
        return self.start


class HorizonStep(AbstractStage):
    """`(x, T) -> (x + the step of length T / count, T)` along `drift`."""

    drift: AbstractStage
    count: int = eqx.field(static=True)
    scheme: Scheme = eqx.field(static=True)

    def step(self, x, theta):
        f = lambda z: self.drift.step(z, theta)
        return jnp.append(stepped(f, x[:-1], x[-1] / self.count, self.scheme), x[-1])

    def discretisation_error(self, x, theta):
        f = lambda z: self.drift.step(z, theta)
        return halving_error(f, x[:-1], x[-1] / self.count, self.scheme)

    def init(self, key):
        return self.drift.init(key)

    def refusal(self, derivative):
        return self.drift.refusal(derivative)


@admits(count=">= 1", start="> 0")
def free_horizon(
    drift: object, count: int, start: float = 1.0, scheme: Scheme = "rk4"
) -> list[AbstractStage]:
    """Stages of the flow along `drift` over a horizon that is free: one that sets it, then `count` equal
    steps.

    **Arguments:**

    - `drift`: a stage, or what `as_stage` makes one of: the velocity of a state `(d,)`, that reads
      nothing.
    - `start`: the horizon to begin at. It stays positive by its set: the weights are two runs, so
      `control_set=ByRun((Box(0.1, 10.0), ...))`.
    - `scheme`: `"rk4"`, or `"euler"`.

    **Raises:** `ValueError` for another scheme, or a drift that reads something.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> push = (lambda x, u: jnp.stack([x[1], u[0]]), jnp.zeros(1))
        >>> soonest = hj.ControlProblem(
        ...     hj.networks.free_horizon(push, 20, 2.5),
        ...     jnp.array([[1.0, 0.0]]),
        ...     terminal=lambda x: x[-1],
        ...     control_set=hj.control.ByRun((hj.control.Box(0.1, 9.0), hj.control.Box(-1.0, 1.0))),
        ...     terminal_constraint=hj.control.TerminalConstraint(lambda x: x[:2]),
        ... )
        >>> len(soonest.chain), [run.length for run in soonest.chain.runs]
        (21, [1, 20])
    """
    check_scheme("free_horizon", scheme)
    stage = as_stage(drift)
    if stage.reads != "nothing":
        raise ValueError(
            f"free_horizon: the drift must read nothing; found one that reads a {stage.reads}. Make time "
            "a coordinate of the state, with velocity 1."
        )
    return [Horizon(start), *[HorizonStep(stage, count, scheme)] * count]
