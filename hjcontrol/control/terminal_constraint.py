r"""Constraints on the final states.

    g(x_K^i, y^i) = 0   or   <= 0           p_K^i = (1/n) [ dPhi/dx + nu^i . dg/dx ]

nu   multipliers, one row a sample, of the constraint beside the *mean* of Phi

A method that declares `terminal` takes the constraint as it is. Every other one takes the problem that
`pricing` makes of it, by `AugmentedLagrangian(method)`, or by hand.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.interned import interned
from hjcontrol._ground.shown import Shown


class NoArrayError(TypeError):
    """A constraint's function gives what is no array."""


def flat_values(value: Any) -> Array:
    """What a constraint's function gives, flat: a matrix row by row.

    **Raises:** `NoArrayError` for anything but a number or one array.
    """
    if isinstance(value, (float, int, np.ndarray, np.generic, jax.Array)):
        return jnp.ravel(jnp.asarray(value))
    raise NoArrayError(
        f"must give a number or one array; found a {type(value).__name__}. Put several conditions into "
        "one array, by `jnp.stack` or `jnp.concatenate`, or state several constraints."
    )


@admits()
class TerminalConstraint(Shown):
    """`function(x_K, y)` of one sample, or `function(x_K)` without targets, is zero (`kind="="`, also
    written `"=="`), or not positive (`"<="`)."""

    function: Callable[..., Float[Array, "..."]] = eqx.field(converter=interned)
    kind: str = eqx.field(
        static=True, default="=", converter=lambda kind: "=" if kind == "==" else kind
    )

    def __check_init__(self):
        if self.kind not in ("=", "<="):
            raise ValueError(
                f"TerminalConstraint: `kind` must be '=' or '<='; found {self.kind!r}."
            )

    def __call__(self, x: PyTree[Array], y: PyTree[Array]) -> Float[Array, " m"]:
        """`g` of one sample, flat."""
        return flat_values(self.function(x) if y is None else self.function(x, y))

    def values(self, problem: Any, final: PyTree[Array]) -> Float[Array, "n m"]:
        """`g` of every sample."""
        return jax.vmap(self)(final, problem.targets)

    def violation(self, g: Float[Array, "n m"]) -> Float[Array, ""]:
        """Largest violation."""
        wrong = jnp.abs(g) if self.kind == "=" else jnp.maximum(g, 0)
        return jnp.max(wrong, initial=0.0)

    def updated(
        self, nu: Float[Array, "n m"], g: Float[Array, "n m"], strength: ArrayLike
    ) -> Float[Array, "n m"]:
        """The multipliers after one solve of the augmented problem."""
        moved = nu + strength * g
        return moved if self.kind == "=" else jnp.maximum(moved, 0)
