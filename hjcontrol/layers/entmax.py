r"""alpha-entmax and sparsemax: the simplex with Tsallis entropies; answers with exact zeros.

    phi(p) = (p^alpha - p)/(alpha (alpha - 1)),   1 < alpha <= 2      alpha -> 1 is softmax
    p_j = [ (alpha - 1) (z_j - lambda)/eps + 1/alpha ]_+^(1/(alpha - 1))
    sparsemax, alpha = 2:   phi = (p^2 - p)/2,   p = projection of z/eps on the simplex

The affine part -p of phi is constant on the simplex: it makes Omega vanish at the vertices, so that
0 <= value_eps - max <= eps (1 - n^(1 - alpha))/(alpha (alpha - 1)), sharp.
Source: Peters, Niculae, Martins, "Sparse sequence-to-sequence models", 2019; Martins, Astudillo, 2016.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.deformation.soft_maximum import temperature
from hjcontrol.layers.layer import AbstractFace
from hjcontrol.layers.regulariser import AbstractRegulariser, Tsallis
from hjcontrol.layers.section import Separable
from hjcontrol.layers.separable import SeparableProgram
from hjcontrol.layers.simplex import AbstractSimplexLayer


@admits(eps=">= 0")
class Sparsemax(AbstractSimplexLayer):
    """Euclidean projection on the simplex: `max of p.z - eps (|p|^2 - 1)/2`.

    With a `radius` r, on `{ p >= 0, sum p = r }`: `Omega = (|p|^2 - r)/2`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> hj.layers.Sparsemax(1.0)(jnp.array([2.0, 0.5, 0.0])).tolist()
        [1.0, 0.0, 0.0]
    """

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    phi: AbstractRegulariser = eqx.field(init=False, default_factory=lambda: Tsallis(2.0))
    total: int = eqx.field(init=False, static=True, default=1)
    radius: Float[Array, ""] | None = None
    domain = "simplex"
    regulariser = "(|p|^2 - 1)/2"
    curvature = "piecewise quadratic; strongly convex dual"
    held = ("eps", "radius")

    def __check_init__(self):
        if self.radius is not None and known_to_fail(jnp.asarray(self.radius) > 0):
            raise ValueError(f"Sparsemax: `radius` must be > 0; found {self.radius}.")

    @property
    def kind(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A row of the engines' table."""
        return "simplex, quadratic" if self.radius is None else "section"

    @property
    def _scaled(self) -> Separable:
        """The same program as a box section."""
        return Separable(Tsallis(2.0), self.eps, total=self.radius)

    def value(self, z: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        return super().value(z) if self.radius is None else self._scaled.value(z)

    def __call__(self, z: Real[ArrayLike, " n"]) -> Float[Array, " n"]:
        return super().__call__(z) if self.radius is None else self._scaled(z)

    def conjugate(self, p: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        return super().conjugate(p) if self.radius is None else self._scaled.conjugate(p)

    def face(self, z: Real[ArrayLike, " n"]) -> AbstractFace:
        return super().face(z) if self.radius is None else self._scaled.face(z)

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return super().sandwich(shape) if self.radius is None else self._scaled.sandwich(shape)

    def program(self, z: Real[ArrayLike, " n"]) -> SeparableProgram:
        return super().program(z) if self.radius is None else self._scaled.program(z)

    def as_cvxpy(self, z: Real[ArrayLike, " n"]) -> Any:
        return super().as_cvxpy(z) if self.radius is None else self._scaled.as_cvxpy(z)

    def multiplier(self, u: Float[Array, " n"]) -> Float[Array, ""]:
        return simplex_threshold(u) + 0.5


@admits(eps=">= 0", alpha="finite")
class Entmax(AbstractSimplexLayer):
    """`max over the simplex of p.z - eps sum (p^alpha - p)/(alpha (alpha - 1))`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    alpha: float = eqx.field(static=True, default=1.5)
    phi: AbstractRegulariser = eqx.field(init=False)
    total: int = eqx.field(init=False, static=True, default=1)
    kind = "simplex, power"
    domain = "simplex"
    regulariser = "sum (p^alpha - p)/(alpha(alpha-1)) (Tsallis)"
    curvature = "C1; strongly convex dual"

    def __init__(self, eps: float | Float[Array, ""] = 1.0, alpha: float = 1.5):
        """**Raises:** `ValueError` unless `1 < alpha <= 2` and `eps >= 0`."""
        self.eps, self.alpha, self.phi = eps, float(alpha), Tsallis(float(alpha))
        self.total = 1

    def multiplier(self, u: Float[Array, " n"]) -> Float[Array, ""]:
        """With `v = (alpha-1) u` and `t` the base of the largest: `|| (v + t)_+ ||_m = 1`,
        `m = 1/(alpha-1)`, a norm: convex, increasing, nearly linear. Newton from `t = 1` decreases to
        the root; it ends when it no longer does."""
        a = self.alpha
        m = 1.0 / (a - 1.0)
        v = (a - 1.0) * jax.lax.stop_gradient(u)

        def step(t: Array) -> Array:
            base = jnp.maximum(v + t, 0.0) / t  # at most 1: no power overflows
            some = base > 0
            log = jnp.log(jnp.where(some, base, 1.0))
            total = jnp.sum(jnp.where(some, jnp.exp(m * log), 0.0))
            slope = jnp.sum(jnp.where(some, jnp.exp((m - 1.0) * log), 0.0))
            norm = t * total ** (1.0 / m)
            return t - (norm - 1.0) * total ** (1.0 - 1.0 / m) / slope

        def carry_on(state: tuple[Array, Array, Array]) -> Bool[Array, ""]:
            t, last, k = state
            return (t < last) & (k < 60)

        def body(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            t, _, k = state
            return step(t), t, k + 1

        one = jnp.ones((), u.dtype)
        t, last, _ = jax.lax.while_loop(carry_on, body, (step(one), one, jnp.zeros((), int)))
        t = jnp.minimum(t, last)
        return (1.0 / a - t) / (a - 1.0)


def simplex_threshold(u: Float[Array, " n"]) -> Float[Array, ""]:
    """theta with `sum (u - theta)_+ = 1`, for `max u = 0`: Michelot's exact active set, no sorting.

    Entries once dropped never return, so the threshold only rises; it ends when no more are dropped.
    """
    u = jax.lax.stop_gradient(u)

    def threshold(active: Bool[Array, " n"]) -> Array:
        held = jnp.where(active, u, 0.0)
        return (jnp.sum(held) - 1.0) / jnp.maximum(jnp.sum(active), 1)

    def body(state: tuple[Array, Array]) -> tuple[Array, Array]:
        active, _ = state
        kept = active & (u > threshold(active))
        return kept, jnp.any(kept != active)

    start = u > -1.0  # theta >= max u - 1
    active, _ = jax.lax.while_loop(lambda s: s[1], body, (start, jnp.array(True)))
    return threshold(active)
