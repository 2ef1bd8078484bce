r"""A residual stage whose step length is a weight: depth as a control.

    step(x, (h, theta)) = x + h f(x, theta)          h >= 0 by a control set on the leaf `h`

A stage with h = 0 passes its state on: `without_idle_stages` leaves it out, and the output stays.
`ByLeaf(h=Nonnegative())` keeps the steps nonnegative; a cost linear in h asks for zeros.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.chain import Chain, Run, Weights
from hjcontrol.networks.stage import AbstractStage


class StepWeights(NamedTuple):
    """The step length `h`, and the weights of the velocity."""

    h: Float[Array, ""]
    theta: PyTree[Array]


@admits(start="finite")
class FreeStep(AbstractStage):
    """One Euler step along `drift`, of a length that is a weight; it begins at `start`."""

    drift: AbstractStage
    start: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def __check_init__(self):
        if self.drift.reads != "nothing":
            raise ValueError(
                "FreeStep: its drift must read nothing, for idle stages can be left out; found one "
                f"that reads a {self.drift.reads}. Use Residual, with a step of its own."
            )

    def step(self, x, theta):
        velocity = self.drift.step(x, theta.theta)
        return jax.tree.map(lambda a, v: a + theta.h.astype(a.dtype) * v, x, velocity)

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
