r"""A residual stage whose step length is a weight: depth as a control.

    euler   step(x, (h, theta)) = x + h f(x, theta)          h >= 0 by a control set on the leaf `h`
    rk4     the classical fourth order of x' = f, theta constant along the step

A length that is free is used: where one long step leaves the flow x' = f, an optimiser takes it. Each
step is therefore tried again as two halves (`discretisation_error`), and `hj.solve` calls an answer
`too_coarse` whose steps disagree with their halves by more than a hundredth of the states.

A stage with h = 0 passes its state on: `without_idle_stages` leaves it out, and the output stays.
`ByLeaf(h=Nonnegative())` keeps the steps nonnegative; a cost linear in h asks for zeros.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.trees import Tree
from hjcontrol.networks.chain import Chain, Run, Weights
from hjcontrol.networks.stage import AbstractStage

Scheme = Literal["euler", "rk4"]


class StepWeights(NamedTuple):
    """The step length `h`, and the weights of the velocity."""

    h: Float[Array, ""]
    theta: PyTree[Array]


def check_scheme(who: str, scheme: str) -> None:
    """**Raises:** `ValueError` for a scheme that there is not."""
    if scheme not in ("euler", "rk4"):
        raise ValueError(f"{who}: `scheme` must be 'euler' or 'rk4'; found {scheme!r}.")


def stepped(f: Callable[[Tree], Tree], x: Tree, h: Float[Array, ""], scheme: Scheme) -> Tree:
    """One step of length `h` along `x' = f(x)`."""
    go = lambda v, part: jax.tree.map(lambda a, b: a + part * h.astype(a.dtype) * b, x, v)
    k1 = f(x)
    if scheme == "euler":
        return go(k1, 1.0)
    k2 = f(go(k1, 0.5))
    k3 = f(go(k2, 0.5))
    k4 = f(go(k3, 1.0))
    mean = lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6
    return go(jax.tree.map(mean, k1, k2, k3, k4), 1.0)


def halving_error(
    f: Callable[[Tree], Tree], x: Tree, h: Float[Array, ""], scheme: Scheme
) -> Float[Array, ""]:
    """One step against two of half its length, the largest difference."""
    halves = stepped(f, stepped(f, x, 0.5 * h, scheme), 0.5 * h, scheme)
    gap = lambda a, b: jnp.max(jnp.abs(a - b), initial=0.0)
    return jax.tree.reduce(jnp.maximum, jax.tree.map(gap, stepped(f, x, h, scheme), halves))


@admits(start=">= 0")
class FreeStep(AbstractStage):
    """One step along `drift`, of a length that is a weight of its own; it begins at `start`. For steps
    that share one free time there is `free_horizon`.

    `scheme`: `"euler"`, or `"rk4"`, the classical Runge-Kutta step of fourth order.

    **Raises:** `ValueError` for another scheme, or a drift that reads something.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> drift = hj.networks.as_stage(lambda x: -x)
        >>> stage = hj.networks.FreeStep(drift, 0.5, scheme="rk4")
        >>> round(float(stage.step(jnp.ones(1), stage.init(jax.random.key(0)))[0]), 4)  # e^-0.5 = 0.6065
        0.6068
    """

    drift: AbstractStage
    start: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    scheme: Scheme = eqx.field(static=True, default="euler")

    def __check_init__(self):
        check_scheme("FreeStep", self.scheme)
        if self.drift.reads != "nothing":
            raise ValueError(
                "FreeStep: its drift must read nothing, for idle stages can be left out; found one "
                f"that reads a {self.drift.reads}. Use Residual, with a step of its own."
            )

    def step(self, x, theta):
        return stepped(lambda z: self.drift.step(z, theta.theta), x, theta.h, self.scheme)

    def rate(self, x, theta):
        """`d step / d h`: Euler's is the velocity."""
        if self.scheme == "euler":
            return self.drift.step(x, theta.theta)
        one = jnp.ones_like(theta.h)
        return jax.jvp(lambda h: self.step(x, theta._replace(h=h)), (theta.h,), (one,))[1]

    def discretisation_error(self, x, theta):
        """One step against two of half its length, the largest difference."""
        f = lambda z: self.drift.step(z, theta.theta)
        return halving_error(f, x, theta.h, self.scheme)

    def init(self, key):
        return StepWeights(self.start, self.drift.init(key))

    def refusal(self, derivative):
        return self.drift.refusal(derivative)


@admits()
def without_idle_stages(chain: Chain, weights: Weights) -> tuple[Chain, Weights]:
    """The chain and its weights without the `FreeStep` stages whose `h` is zero.

    **Raises:** `ValueError` if no stage would be left.
    """
    runs, kept = [], []
    for run, theta in zip(chain.runs, weights, strict=True):
        if not isinstance(run.stage, FreeStep):
            runs.append(run)
            kept.append(theta)
            continue
        busy = np.flatnonzero(np.asarray(theta.h))
        if busy.size == 0:
            continue
        part = lambda a, busy=busy: a[busy] if eqx.is_array(a) else a
        stage = jax.tree.map(part, run.stage)
        runs.append(Run(stage, run.length if run.tied else busy.size, run.tied))
        kept.append(jax.tree.map(part, theta))
    if not runs:
        raise ValueError("without_idle_stages: every stage has h = 0; found none to keep.")
    return eqx.tree_at(lambda c: c.runs, chain, tuple(runs)), tuple(kept)
