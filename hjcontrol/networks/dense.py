r"""Affine maps and plain layers, and how far a stack of them is from its hard limit.

    step(x, (W, b)) = units(W x + b)          W ~ N(0, 1/in),  b = 0
    |F_eps - F_0|_inf <= sum_l eps log N_l  prod_{k>l} max_j |W^k_j|_1

units: an activation of each affine part, softplus at a temperature, or soft maxima of N affine parts
each. The identity gives the lift (inputs to the state's width) and the readout (state to outputs). Hidden
units of an activation may be permuted, and their signs flipped where it is odd.

Each unit with a temperature is off by at most eps log N (N = 2 for softplus) and 1-Lipschitz in its
affine parts; each affine map passes an error on at most by its largest row sum. The bound holds for any
input; it is loose, for signs are ignored.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.stage import AbstractStage, Symmetry
from hjcontrol.networks.units import AbstractUnits, LSEUnits, Pointwise, identity


class AffineWeights(NamedTuple):
    """Weights of an affine map `W x + b`."""

    W: Float[Array, "*stages out in"]
    b: Float[Array, "*stages out"]


def affine(key: Key[Array, ""], in_size: int, out_size: int) -> AffineWeights:
    """`W ~ N(0, 1/in)`, `b = 0`."""
    W = jax.random.normal(key, (out_size, in_size)) / np.sqrt(in_size)
    return AffineWeights(W, jnp.zeros(out_size, W.dtype))


@admits(in_size=">= 1", out_size=">= 1")
class Dense(AbstractStage):
    """A plain layer `units(W x + b)` from `in_size` to `out_size` units.

    `units`: an activation of each affine part (`jnp.tanh`), or units with a temperature: `Softplus(eps)`,
    `LSEUnits(atoms, eps)`, whose `W` has `atoms` rows a unit, next to each other.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> stage = hj.networks.Dense(2, 3)
        >>> theta = stage.init(jax.random.key(0))
        >>> stage.step(jnp.ones(2), theta).shape, theta.W.shape
        ((3,), (3, 2))
    """

    in_size: int = eqx.field(static=True)
    out_size: int = eqx.field(static=True)
    units: AbstractUnits

    def __init__(
        self,
        in_size: int,
        out_size: int,
        units: AbstractUnits | Callable[[Array], Array] = jnp.tanh,
    ):
        self.in_size, self.out_size = int(in_size), int(out_size)
        self.units = units if isinstance(units, AbstractUnits) else Pointwise(units)

    def step(self, x: Float[Array, " in"], theta: AffineWeights) -> Float[Array, " out"]:
        return self.after(x, theta.W @ x + theta.b)

    @property
    def affine(self) -> bool:
        return True

    def after(self, x: Float[Array, " in"], a: Float[Array, " parts"]) -> Float[Array, " out"]:
        del x
        return self.units(a)

    def init(self, key: Key[Array, ""]) -> AffineWeights:
        return affine(key, self.in_size, self.out_size * self.units.atoms)

    def symmetry(self) -> Symmetry | None:
        if not isinstance(self.units, Pointwise):
            return None
        return Symmetry(tied=False, odd=_is_odd(self.units))

    def relabel(self, theta: AffineWeights, inward, outward) -> AffineWeights:
        (inp, ins), (out, outs) = inward, outward
        W = theta.W[out][:, inp]
        return AffineWeights(outs[:, None] * W * ins[None, :], outs * theta.b[out])


@admits(in_size=">= 1", width=">= 1")
def lift(in_size: int, width: int) -> Dense:
    """Affine map from the inputs to the state.

    **Example:**

        >>> import jax, hjcontrol as hj
        >>> hj.networks.lift(64, 6).init(jax.random.key(0)).W.shape
        (6, 64)
    """
    return Dense(in_size, width, identity)


@admits(width=">= 1", out_size=">= 1")
def readout(width: int, out_size: int) -> Dense:
    """Affine map from the state to the outputs.

    **Example:**

        >>> import jax, hjcontrol as hj
        >>> hj.networks.readout(6, 10).init(jax.random.key(0)).W.shape
        (10, 6)
    """
    return Dense(width, out_size, identity)


@admits(in_size=">= 1", atoms=">= 1", eps=">= 0")
def soft_maximum(in_size: int, atoms: int, eps: float | Float[Array, ""]) -> Dense:
    """`lse(W x + b, eps)` as a stage, a state of shape `(1,)`: convex in `x`; max-affine at `eps = 0`."""
    return Dense(in_size, 1, LSEUnits(atoms, eps))


@admits()
def depth_bound(
    stages: Sequence[AbstractStage], thetas: Sequence[AffineWeights]
) -> Float[Array, ""]:
    """Largest distance, in any output and for any input, of a stack at its temperatures from the
    same stack at `eps = 0`.

    **Arguments:** `stages`: `Dense` layers whose units have a temperature, and affine ones (`readout`).

    **Raises:** `ValueError` for any other stage: nothing is known of it.
    """
    bound = jnp.zeros(())
    for k, (stage, theta) in enumerate(zip(stages, thetas, strict=True)):
        slack = stage.units.slack if isinstance(stage, Dense) else None
        if slack is None:
            raise ValueError(
                f"depth_bound: stage {k} ({type(stage).__name__}) has no temperature and is not affine; "
                "state it with `Dense(in, out, Softplus(eps))` or `LSEUnits(atoms, eps)`."
            )
        bound = slack + jnp.max(jnp.sum(jnp.abs(theta.W), axis=1)) * bound
    return bound


def _is_odd(activation: Callable[[Array], Array]) -> bool:
    x = jnp.linspace(0.1, 3.1, 7, dtype=jnp.float32)
    return bool(np.array_equal(np.asarray(activation(-x)), -np.asarray(activation(x))))
