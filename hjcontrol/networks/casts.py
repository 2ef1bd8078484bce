"""Stages that compute in another precision than their states and weights are held in, or on integers.

    Rounded         x_{k+1} = float32(F(bf16(x_k), bf16(theta_k)))       weights and states stay float32
    FromIntegers    x_1 = F(round(x_0), theta_0)            tokens: whole numbers, held as floats

A cast's derivative is a cast: the costate is rounded where the state is. A whole number has no costate,
so that of `FromIntegers` is zero.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hjcontrol._ground.annotations import shown
from hjcontrol.networks.chain import Chain, Tied
from hjcontrol.networks.stage import AbstractStage, as_stage


class AbstractCast(AbstractStage):
    """A stage around another, which it computes otherwise: all that it says is what that one says."""

    stage: eqx.AbstractVar[AbstractStage]

    @property
    def reads(self):
        return self.stage.reads

    def check(self, given):
        self.stage.check(given)

    def init(self, key):
        return self.stage.init(key)

    def refusal(self, derivative):
        return self.stage.refusal(derivative)

    def forward(self):
        return eqx.tree_at(lambda s: s.stage, self, self.stage.forward())

    def complaint(self, x, theta, *given):
        return self.stage.complaint(x, theta, *given)


class Rounded(AbstractCast):
    """A stage whose step is computed in `compute_dtype`; what enters and leaves keeps its dtype."""

    stage: AbstractStage
    compute_dtype: Any = eqx.field(static=True)

    def step(self, x, theta, *u):
        wide = jnp.result_type(*jax.tree.leaves(x))
        x, theta, u = cast_all((x, theta, u), self.compute_dtype)
        return cast_all(self.stage.step(x, theta, *u), wide)


class FromIntegers(AbstractCast):
    """A first stage of whole numbers, which are held as floating ones. `whole`: which leaves are."""

    stage: AbstractStage
    whole: tuple[bool, ...] = eqx.field(static=True)

    def step(self, x, theta, *u):
        leaves, form = jax.tree.flatten(x)
        number = lambda a: jax.lax.stop_gradient(jnp.round(a)).astype(int)
        own = [number(a) if w else a for a, w in zip(leaves, self.whole, strict=True)]
        new = self.stage.step(jax.tree.unflatten(form, own), theta, *u)
        return cast_all(new, jnp.result_type(*leaves))


def cast_all(tree: PyTree, dtype: Any) -> PyTree:
    """The floating arrays of a tree in another precision; all else as it is."""
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def rounded(stages: Sequence[Any], compute_dtype: Any) -> list[Any]:
    """The stages, computed in `compute_dtype`; `None` leaves them as they are.

    **Raises:** `ValueError` for another dtype than bfloat16, float32 or float64.
    """
    if compute_dtype is None:
        return list(stages)
    try:
        dtype = jnp.dtype(compute_dtype)
    except TypeError:
        dtype = None
    # NumPy takes None for float64.
    if dtype is None or dtype.name not in ("bfloat16", "float32", "float64"):
        raise ValueError(
            "ControlProblem: `compute_dtype` must be jnp.bfloat16, jnp.float32 or jnp.float64; found "
            f"{shown(compute_dtype)}. In float16 small gradients vanish."
        )

    def one(piece: Any) -> Any:
        if isinstance(piece, Tied):
            return Tied(Rounded(piece.stage, dtype), piece.times)
        return Rounded(as_stage(piece), dtype)

    return [one(piece) for piece in stages]


def bare(stage: AbstractStage) -> AbstractStage:
    """The stage within."""
    while isinstance(stage, AbstractCast):
        stage = stage.stage
    return stage


def grain(chain: Chain) -> float:
    """The relative rounding of the coarsest stage that computes in another precision; 0 without one."""
    found = [run.stage for run in chain.runs]
    found = [s.stage if isinstance(s, FromIntegers) else s for s in found]
    return max(
        (float(jnp.finfo(s.compute_dtype).eps) for s in found if isinstance(s, Rounded)),
        default=0.0,
    )
