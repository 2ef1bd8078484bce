r"""One's own regulariser of one coordinate: its value, and if it is known its response.

    phi       convex on [lo, hi], in JAX                    phi' and phi'' by differentiation
    respond   argmax over p of u p - phi(p): given, or by Newton on phi'(p) = u kept in a bracket
    weight    1 / phi''(respond(u))        conjugate  u p - phi(p) at the response

SQUARE   p^2/2 on the line       projections
LOG      -log p on p > 0         log-barrier weights
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.third_party import needs
from hjcontrol.layers.regulariser import AbstractRegulariser
from hjcontrol.layers.root import decreasing_root

Pointwise = Callable[[Any], Any]


@admits()
class Potential(AbstractRegulariser):
    """`phi` of one coordinate on `[lo, hi]`, from a function; everything else follows.

    **Arguments:**

    - `phi`: convex and twice differentiable between `lo` and `hi`, a scalar to a scalar.
    - `response`: where `phi' = u`, if a formula is known; without one it is found by an iteration.
    - `cvxpy`: `phi` summed over a cvxpy expression, for `as_cvxpy`.
    - `steep`: whether `phi'` is infinite at the ends, so that they are not attained.
    - `modulus`: a lower bound of `phi''`.

    **Raises:** `ValueError` for `lo >= hi`, or if `as_cvxpy` is asked for and `cvxpy` was not given.

    **Example:** Fermi's entropy with a wider box.

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> quartic = hj.layers.Potential(lambda p: 0.25 * p**4, lo=-1.0, hi=1.0)
        >>> hj.layers.Separable(quartic)(jnp.array([0.125, -8.0])).tolist()
        [0.5, -1.0]
    """

    phi: Pointwise = eqx.field(static=True)
    response: Pointwise | None = eqx.field(static=True)
    cvxpy: Pointwise | None = eqx.field(static=True)
    lo: float = eqx.field(static=True)
    hi: float = eqx.field(static=True)
    steep: bool = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]
    bend: float = eqx.field(static=True)

    def __init__(
        self,
        phi: Pointwise,
        response: Pointwise | None = None,
        cvxpy: Pointwise | None = None,
        *,
        lo: float = -math.inf,
        hi: float = math.inf,
        steep: bool = False,
        modulus: float = 0.0,
    ):
        if not lo < hi:
            raise ValueError(f"Potential: lo < hi is needed; found [{lo}, {hi}].")
        self.phi, self.response, self.cvxpy = phi, response, cvxpy
        self.lo, self.hi, self.bend = float(lo), float(hi), modulus
        self.steep = steep  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def modulus(self) -> float:
        return self.bend

    def value(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.vectorize(self.phi)(p)

    def slope(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.vectorize(jax.grad(self.phi))(p)

    def slopes(
        self, p: Float[Array, "*shape"], blur: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        ends = jnp.maximum(p - blur, self.lo), jnp.minimum(p + blur, self.hi)
        low, high = (self.slope(end) for end in ends)
        if self.steep:
            low = jnp.where(ends[0] <= self.lo, -jnp.inf, low)
            high = jnp.where(ends[1] >= self.hi, jnp.inf, high)
        return low, high

    def respond(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.response is None:
            return _all_inverted(self, u)
        return jnp.clip(self.response(u), self.lo, self.hi)

    def weight(
        self, u: Float[Array, "*shape"], p: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        del u
        inside = (p > self.lo) & (p < self.hi)
        bent = jnp.vectorize(jax.grad(jax.grad(self.phi)))(p)
        return jnp.where(inside, 1.0 / jnp.where(inside & (bent > 0), bent, jnp.inf), 0.0)

    def conjugate(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        p = self.respond(u)
        return jnp.where(p == 0, 0.0, u) * p - self.value(p)

    def depth(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -self.value(self.respond(u))

    def as_cvxpy(self, p: Any) -> Any:
        needs("Potential.as_cvxpy", "cvxpy")
        if self.cvxpy is None:
            raise ValueError(
                "Potential: its cvxpy form is not known. Pass `cvxpy=`, phi summed over an expression."
            )
        return self.cvxpy(p)


@functools.partial(jax.jit, static_argnums=0)
def _all_inverted(potential: Potential, u: Array) -> Array:
    """Compiled once a potential: outside of `jit`, its loops would be compiled anew each time."""
    return jnp.vectorize(functools.partial(_inverted, potential))(u)


def _inverted(potential: Potential, u: Array) -> Array:
    """Where `phi'(p) = u`, or the end beyond which it is."""
    slope, unit = jax.grad(potential.phi), jnp.finfo(u.dtype).eps
    u = jax.lax.stop_gradient(u)
    ends = jnp.asarray(potential.lo, u.dtype), jnp.asarray(potential.hi, u.dtype)
    middle = jnp.clip(0.0, *ends)
    if math.isfinite(potential.lo) and math.isfinite(potential.hi):
        middle = 0.5 * (ends[0] + ends[1])
    elif math.isfinite(potential.lo) or math.isfinite(potential.hi):
        middle = ends[0] + 1.0 if math.isfinite(potential.lo) else ends[1] - 1.0

    def widen(sign: float, end: Array) -> Array:
        """Away from the middle by doubling steps, to the end at most."""
        wrong = lambda s: (sign * (u - slope(s[0])) > 0) & (s[1] < 1100) & (s[0] != end)
        grow = lambda s: (jnp.clip(middle + sign * 2.0 ** s[1], *ends), s[1] + 1)
        return jax.lax.while_loop(wrong, grow, (middle, jnp.zeros((), int)))[0]

    def look(p: Array) -> tuple[Array, Array, Array]:
        bent = jax.grad(slope)(p)
        return u - slope(p), bent, unit * jnp.maximum(jnp.abs(p), jnp.finfo(u.dtype).tiny) * bent

    p = decreasing_root(look, widen(-1.0, ends[0]), widen(1.0, ends[1]))
    if not potential.steep:
        p = jnp.where(u >= slope(ends[1]), ends[1], p) if math.isfinite(potential.hi) else p
        p = jnp.where(u <= slope(ends[0]), ends[0], p) if math.isfinite(potential.lo) else p
    return p


def _half_square(p: Any) -> Any:
    return 0.5 * p**2


def _half_squares(p: Any) -> Any:
    import cvxpy as cp

    return 0.5 * cp.sum_squares(p)


def _minus_log(p: Any) -> Any:
    return -jnp.log(p)


def _minus_logs(p: Any) -> Any:
    import cvxpy as cp

    return -cp.sum(cp.log(p))


def _itself(u: Any) -> Any:
    return u


def _reciprocal(u: Any) -> Any:
    return jnp.where(u < 0, -1.0 / jnp.where(u < 0, u, -1.0), jnp.inf)


SQUARE = Potential(_half_square, _itself, _half_squares, modulus=1.0)
LOG = Potential(_minus_log, _reciprocal, _minus_logs, lo=0.0, steep=True)
