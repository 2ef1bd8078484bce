r"""A linear stage whose bias is its weight: the control enters additively.

    step(x, b) = A x + B b            A, B  given, not weights            b ~ N(0, 1)

With quadratic costs a chain of these is a linear-quadratic problem. Weights that multiply the state,
as in `Dense`, would make it bilinear.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.stage import AbstractStage


@admits()
class Driven(AbstractStage):
    """`A x + B b` with the weight `b` alone; `B` is the identity unless given.

    **Raises:** `ValueError` unless `A` and `B` are matrices with as many rows.
    """

    A: Float[Array, "*stages after before"] = eqx.field(converter=jnp.asarray)
    B: Float[Array, "*stages after m"] = eqx.field(converter=jnp.asarray)

    def __init__(self, A: ArrayLike, B: ArrayLike | None = None):
        self.A = jnp.asarray(A)
        self.B = jnp.eye(self.A.shape[0], dtype=self.A.dtype) if B is None else jnp.asarray(B)
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[0] != self.B.shape[0]:
            raise ValueError(
                "Driven: `A` (after, before) and `B` (after, m) must be matrices with as many rows; "
                f"found shapes {self.A.shape} and {self.B.shape}."
            )

    def step(self, x: Float[Array, " before"], theta: Float[Array, " m"]) -> Float[Array, " after"]:
        return self.A.astype(x.dtype) @ x + self.B.astype(x.dtype) @ theta

    def init(self, key: Key[Array, ""]) -> Float[Array, " m"]:
        return jax.random.normal(key, (self.B.shape[-1],), self.B.dtype)
