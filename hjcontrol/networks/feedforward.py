r"""Plain layers with a temperature, and how far a stack of them is from its hard limit.

    step(x, (W, b)) = units(W x + b)          units: softplus(eps), log-sum-exp(N, eps), an activation
    |F_eps - F_0|_inf <= sum_l eps log N_l  prod_{k>l} max_j |W^k_j|_1

Each unit is off by at most eps log N (N = 2 for softplus) and 1-Lipschitz in its affine parts; each
affine map passes an error on at most by its largest row sum. True for any input; loose, for signs are
ignored.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.attention import affine
from hjcontrol.networks.dense import AffineWeights, Dense, identity
from hjcontrol.networks.stage import AbstractStage
from hjcontrol.networks.units import AbstractUnits, Pointwise


@admits(in_size=">= 1", out_size=">= 1")
class Hidden(AbstractStage):
    """A plain layer of `out_size` units, each with its atoms."""

    in_size: int = eqx.field(static=True)
    out_size: int = eqx.field(static=True)
    units: AbstractUnits

    def __init__(
        self, in_size: int, out_size: int, units: AbstractUnits | Callable[[Array], Array]
    ):
        self.in_size, self.out_size = int(in_size), int(out_size)
        self.units = units if isinstance(units, AbstractUnits) else Pointwise(units)

    def init(self, key: Key[Array, ""]) -> AffineWeights:
        return affine(key, self.in_size, self.out_size * self.units.atoms)

    def step(self, x: Float[Array, " in"], theta: AffineWeights) -> Float[Array, " out"]:
        return self.after(x, theta.W @ x + theta.b)

    @property
    def affine(self) -> bool:
        return True

    def after(self, x: Float[Array, " in"], a: Float[Array, " parts"]) -> Float[Array, " out"]:
        del x
        return self.units(a)


@admits()
def depth_bound(
    stages: Sequence[AbstractStage], thetas: Sequence[AffineWeights]
) -> Float[Array, ""]:
    """Largest distance, in any output and for any input, of a stack at its temperatures from the
    same stack at `eps = 0`.

    **Arguments:** `stages`: `Hidden` layers with a temperature, and affine `Dense` ones (`readout`).

    **Raises:** `ValueError` for any other stage: nothing is known of it.
    """
    bound = jnp.zeros(())
    for k, (stage, theta) in enumerate(zip(stages, thetas, strict=True)):
        slack = stage.units.slack if isinstance(stage, Hidden) else None
        if isinstance(stage, Dense) and stage.activation is identity:
            slack = jnp.zeros(())
        if slack is None:
            raise ValueError(
                f"depth_bound: stage {k} ({type(stage).__name__}) has no temperature and is not affine; "
                "state it with `Hidden(in, out, SoftplusUnits(eps))` or `LogSumExp(atoms, eps)`."
            )
        bound = slack + jnp.max(jnp.sum(jnp.abs(theta.W), axis=1)) * bound
    return bound
