r"""Regularisers phi of one coordinate on [lo, hi], stated as data: everything else is derived.

    respond(u) = argmax over p in [lo, hi] of u p - phi(p)       = (phi*)'(u)
    conjugate(u) = max ... = phi*(u)        weight = d respond / du = 1 / phi''(p)

Shannon        p log p                          [0, inf)   softmax with sum p = 1
Tsallis        (p^a - p) / (a (a - 1)), 1<a<=2  [0, inf)   entmax; a = 2 is sparsemax
BinaryEntropy  q log q + (1-q) log(1-q)         [lo, hi]   q = (p - lo)/(hi - lo): sigmoid, tanh
Quadratic      p^2 / 2                          [lo, hi]   clip

Temperature enters outside: eps phi has argmax respond(z / eps). `steep`: the slope is infinite at the
ends, so they are never attained and have no multiplier.
"""

import abc
import inspect
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.third_party import needs


class AbstractRegulariser(Shown):
    """A convex function of one coordinate, applied to each entry of an array."""

    lo: eqx.AbstractVar[float]
    hi: eqx.AbstractVar[float]
    steep: ClassVar[bool]

    @property
    @abc.abstractmethod
    def modulus(self) -> float:
        """Strong convexity in the Euclidean norm, on the part of [lo, hi] that a sum of 1 reaches."""

    @abc.abstractmethod
    def value(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`phi(p)`."""

    @abc.abstractmethod
    def slope(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`phi'(p)`; infinite at the ends of a steep one."""

    @abc.abstractmethod
    def slopes(
        self, p: Float[Array, "*shape"], blur: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """`phi'` at both ends of `p -+ blur`, cut to [lo, hi]; `blur` is roundoff, of `p` or of 0."""

    @abc.abstractmethod
    def respond(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The maximiser of `u p - phi(p)`."""

    @abc.abstractmethod
    def weight(
        self, u: Float[Array, "*shape"], p: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """`d respond / du` at `u`, where `p = respond(u)`: from whichever of the two is accurate."""

    @abc.abstractmethod
    def conjugate(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`phi*(u)`."""

    @abc.abstractmethod
    def depth(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`-phi(respond(u))`, the derivative of `eps phi*(z/eps)` in `eps` at `u = z/eps`."""

    @abc.abstractmethod
    def as_cvxpy(self, p: Any) -> Any:
        """Sum of `phi` over a cvxpy expression."""


class Shannon(AbstractRegulariser):
    """`p log p`, whose response is the exponential."""

    lo: float = eqx.field(static=True, default=0.0)
    hi: float = eqx.field(static=True, default=math.inf)
    steep = True

    @property
    def modulus(self) -> float:
        return 1.0

    def value(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -entr(p)

    def slope(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.log(jnp.maximum(p, 0.0)) + 1.0

    def slopes(
        self, p: Float[Array, "*shape"], blur: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """One logarithm: `log(p + blur) <= log(p - blur) + 2 blur/(p - blur)`, equal to roundoff but
        where `p` itself is about to underflow."""
        left = p - blur
        some = ~(left <= 0)  # NaN stays NaN
        safe = jnp.where(some, left, 1.0)
        low = jnp.log(safe) + 1.0
        least = math.log(4.0 * float(jnp.finfo(p.dtype).tiny)) + 1.0  # p + blur, where p <= blur
        return jnp.where(some, low, -jnp.inf), jnp.where(some, low + 2.0 * blur / safe, least)

    def respond(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.exp(u - 1.0)

    def weight(
        self, u: Float[Array, "*shape"], p: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        del u
        return p

    def conjugate(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.exp(u - 1.0)

    def depth(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -self.value(self.respond(u))

    def as_cvxpy(self, p: Any) -> Any:
        needs("Shannon.as_cvxpy", "cvxpy")
        import cvxpy as cp

        return -cp.sum(cp.entr(p))


@admits(alpha="finite")
class Tsallis(AbstractRegulariser):
    """`(p^alpha - p)/(alpha (alpha - 1))`, `1 < alpha <= 2`; Shannon's in the limit `alpha = 1`."""

    alpha: float = eqx.field(static=True, default=1.5)
    lo: float = eqx.field(static=True, default=0.0)
    hi: float = eqx.field(static=True, default=math.inf)
    steep = False

    def __check_init__(self):
        if not 1.0 < self.alpha <= 2.0:
            raise ValueError(
                f"Tsallis: `alpha` must lie in (1, 2]; found {self.alpha}. "
                "alpha = 1 is Shannon's entropy: use Softmax."
            )

    @property
    def modulus(self) -> float:
        return 1.0

    def value(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        a = self.alpha
        return (_power(p, a) - p) / (a * (a - 1.0))

    def slope(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        a = self.alpha
        return _power(p, a - 1.0) / (a - 1.0) - 1.0 / (a * (a - 1.0))

    def slopes(
        self, p: Float[Array, "*shape"], blur: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return self.slope(jnp.maximum(p - blur, self.lo)), self.slope(
            jnp.minimum(p + blur, self.hi)
        )

    def respond(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        a = self.alpha
        return _power((a - 1.0) * u + 1.0 / a, 1.0 / (a - 1.0))

    def weight(
        self, u: Float[Array, "*shape"], p: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        del u
        return _power(p, 2.0 - self.alpha)

    def conjugate(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        p = self.respond(u)
        return jnp.where(p > 0, u * p, 0.0) - self.value(p)

    def depth(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -self.value(self.respond(u))

    def as_cvxpy(self, p: Any) -> Any:
        needs("Tsallis.as_cvxpy", "cvxpy")
        import cvxpy as cp

        a = self.alpha
        # Where cvxpy offers exact power cones, take them: its rational second-order cones warn.
        exact = {"approx": False} if "approx" in inspect.signature(cp.power).parameters else {}
        convex = cp.sum_squares(p) if a == 2.0 else cp.sum(cp.power(cp.pos(p), a, **exact))
        return (convex - cp.sum(p)) / (a * (a - 1.0))


@admits(lo="finite", hi="finite")
class BinaryEntropy(AbstractRegulariser):
    """Negative entropy of the share `q = (p - lo)/(hi - lo)` against `1 - q`."""

    lo: float = eqx.field(static=True, default=0.0)
    hi: float = eqx.field(static=True, default=1.0)
    steep = True

    def __check_init__(self):
        check_interval("BinaryEntropy", self.lo, self.hi)

    @property
    def modulus(self) -> float:
        return 4.0 / (self.hi - self.lo) ** 2

    def value(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        width = self.hi - self.lo
        return -entr((p - self.lo) / width) - entr((self.hi - p) / width)

    def slope(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        below, above = jnp.maximum(p - self.lo, 0.0), jnp.maximum(self.hi - p, 0.0)
        return (jnp.log(below) - jnp.log(above)) / (self.hi - self.lo)

    def slopes(
        self, p: Float[Array, "*shape"], blur: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return self.slope(jnp.maximum(p - blur, self.lo)), self.slope(
            jnp.minimum(p + blur, self.hi)
        )

    def respond(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        width = self.hi - self.lo
        if self.lo == -self.hi:
            return self.hi * jnp.tanh(0.5 * width * u)
        return self.lo + width * jax.nn.sigmoid(width * u)

    def weight(
        self, u: Float[Array, "*shape"], p: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        del p  # 1 - p has lost its digits where p is near 1
        width = self.hi - self.lo
        return width**2 * bell(width * u)

    def conjugate(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        width = self.hi - self.lo
        return self.lo * u + jnp.logaddexp(width * u, 0.0)

    def depth(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        v = jnp.abs((self.hi - self.lo) * u)  # even in u; two terms of one sign
        return jnp.log1p(jnp.exp(-v)) + v * jax.nn.sigmoid(-v)

    def as_cvxpy(self, p: Any) -> Any:
        needs("BinaryEntropy.as_cvxpy", "cvxpy")
        import cvxpy as cp

        width = self.hi - self.lo
        return -cp.sum(cp.entr((p - self.lo) / width)) - cp.sum(cp.entr((self.hi - p) / width))


class Quadratic(AbstractRegulariser):
    """`p^2 / 2` on an interval, whose response is the clip."""

    lo: float = eqx.field(static=True, default=0.0)
    hi: float = eqx.field(static=True, default=1.0)
    steep = False

    def __check_init__(self):
        check_interval("Quadratic", self.lo, self.hi)

    @property
    def modulus(self) -> float:
        return 1.0

    def value(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 0.5 * p**2

    def slope(self, p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return p

    def slopes(
        self, p: Float[Array, "*shape"], blur: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return self.slope(jnp.maximum(p - blur, self.lo)), self.slope(
            jnp.minimum(p + blur, self.hi)
        )

    def respond(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.clip(u, self.lo, self.hi)

    def weight(
        self, u: Float[Array, "*shape"], p: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        del u
        return jnp.where((p > self.lo) & (p < self.hi), 1.0, 0.0).astype(p.dtype)

    def conjugate(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        p = self.respond(u)
        return jnp.where(p == 0, 0.0, u) * p - 0.5 * p**2  # u may be -inf, masked

    def depth(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -self.value(self.respond(u))

    def as_cvxpy(self, p: Any) -> Any:
        needs("Quadratic.as_cvxpy", "cvxpy")
        import cvxpy as cp

        return 0.5 * cp.sum_squares(p)


class QuadraticBetween(Quadratic):
    """`p^2 / 2` between bounds of each coordinate's own: arrays, in the shape of the logits."""

    lo: Float[Array, "*shape"] = eqx.field(converter=jnp.asarray)  # pyright: ignore
    hi: Float[Array, "*shape"] = eqx.field(converter=jnp.asarray)  # pyright: ignore


@jax.custom_jvp
def bell(v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`sigmoid(v) sigmoid(-v)`, the derivative of the sigmoid, without forming `1 - sigmoid`."""
    return jax.nn.sigmoid(v) * jax.nn.sigmoid(-v)


@bell.defjvp
def _bell_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (v,), (dv,) = primals, tangents
    b = bell(v)
    return b, -b * jnp.tanh(0.5 * v) * dv


def _power(p: Float[Array, "*shape"], exponent: float) -> Float[Array, "*shape"]:
    """`p^exponent` for `p > 0`, and 0 elsewhere with every derivative 0 (so that `0^0` is 0)."""
    some = p > 0
    safe = jnp.where(some, p, 1.0)
    raised = safe if exponent == 1.0 else jnp.exp(exponent * jnp.log(safe))
    if exponent in (0.5, 2.0, 0.0):
        raised = {0.5: jnp.sqrt(safe), 2.0: safe**2, 0.0: jnp.ones_like(safe)}[exponent]
    return jnp.where(some, raised, 0.0)


def check_interval(who: str, lo: Any, hi: Any) -> None:
    """Refuse an empty or unbounded interval."""
    if known_to_fail(jnp.isfinite(lo) & jnp.isfinite(hi) & (jnp.asarray(lo) < hi)):
        raise ValueError(f"{who}: a bounded interval with lo < hi is needed; found [{lo}, {hi}].")
