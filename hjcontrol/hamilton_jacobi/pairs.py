r"""Pairs in closed form.

| H(p)                     | L(v)                        | domain of L            |
|--------------------------|-----------------------------|------------------------|
| Quadratic  abs(p)^2      | abs(v)^2 / 4                | all                    |
| HalfQuadratic  abs(p)^2/2| abs(v)^2 / 2                | all                    |
| Anisotropic  p.Ap        | v.A^{-1}v / 4               | all                    |
| Power  abs(p)^a / a      | abs(v)^b / b, 1/a + 1/b = 1 | all                    |
| Norm  abs(p)_q           | 0                           | abs(v)_{q'} <= 1       |
| Relativistic sqrt(1+p.p) | -sqrt(1 - abs(v)^2)         | abs(v) <= 1            |
| BoxIndicator, p in [l,u] | sum max(l v, u v)           | all                    |
| Drift  c.p               | 0                           | v = c                  |

`abs(.)` is the Euclidean norm. `BoxIndicator(0, 1)` in one dimension has L = ReLU: its Lax-Oleinik
kernel is t L(x/t) = max(x, 0) for every t. No strictly convex H has ReLU as a solution at t > 0.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian, Declared, require_length


class Quadratic(AbstractHamiltonian):
    """`H(p) = |p|^2`, the house's equation."""

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=True)

    def __call__(self, p):
        return jnp.sum(p * p)

    def lagrangian(self, v):
        return jnp.sum(v * v) / 4


class HalfQuadratic(AbstractHamiltonian):
    """`H(p) = |p|^2 / 2`, self-dual."""

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=True)

    def __call__(self, p):
        return jnp.sum(p * p) / 2

    def lagrangian(self, v):
        return jnp.sum(v * v) / 2


@admits()
class Anisotropic(AbstractHamiltonian):
    """`H(p) = p.A p`, `A` symmetric positive definite, shape (d, d)."""

    A: Float[Array, "d d"] = eqx.field(converter=jnp.asarray)

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=True)

    def __check_init__(self):
        check_positive_definite(self.A, "Anisotropic")

    def __call__(self, p):
        require_length(p, self.A.shape[0], "Anisotropic")
        return p @ self.A.astype(p.dtype) @ p

    def lagrangian(self, v):
        require_length(v, self.A.shape[0], "Anisotropic")
        return v @ jnp.linalg.inv(self.A.astype(v.dtype)) @ v / 4


@admits(a="finite")
class Power(AbstractHamiltonian):
    """`H(p) = |p|^a / a`, `a > 1`."""

    a: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=True)

    def __check_init__(self):
        if known_to_fail(self.a > 1):
            raise ValueError(
                f"Power: an exponent a > 1 is needed; found {float(self.a)}. For a = 1 use `Norm(2)`."
            )

    def __call__(self, p):
        return _power(p, self.a.astype(p.dtype))

    def lagrangian(self, v):
        a = self.a.astype(v.dtype)
        return _power(v, a / (a - 1))


@admits(q=">= 1 or inf")
class Norm(AbstractHamiltonian):
    """`H(p) = |p|_q`, `1 <= q <= inf`: the eikonal equation, `q = 2` the isotropic one."""

    q: float = eqx.field(static=True, default=2.0)

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=False)

    def __check_init__(self):
        if not self.q >= 1:
            raise ValueError(f"Norm: an exponent q >= 1 is needed; found {self.q}.")

    @property
    def dual(self) -> float:
        """The exponent q' of the dual norm, `1/q + 1/q' = 1`."""
        if self.q == 1:
            return float("inf")
        return 1.0 if np.isinf(self.q) else self.q / (self.q - 1)

    def __call__(self, p):
        return norm(p, self.q)

    def lagrangian(self, v):
        return jnp.where(norm(v, self.dual) <= on_the_edge(v), 0.0, jnp.inf).astype(v.dtype)


class Relativistic(AbstractHamiltonian):
    """`H(p) = sqrt(1 + |p|^2)`, speeds below one."""

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=False)

    def __call__(self, p):
        return jnp.sqrt(1 + jnp.sum(p * p))

    def lagrangian(self, v):
        room = 1 - jnp.sum(v * v)
        inside = room > 0
        slow = -jnp.sqrt(jnp.where(inside, room, 1.0))
        edge = jnp.where(norm(v, 2.0) <= on_the_edge(v), 0.0, jnp.inf)
        return jnp.where(inside, slow, edge).astype(v.dtype)


@admits()
class BoxIndicator(AbstractHamiltonian):
    """`H(p) = 0` for `lower <= p_i <= upper`, `+inf` elsewhere; `L(v)` is a sum of ReLU-like terms.

    Bounds are scalars, the same for every coordinate, or of shape (d,).
    """

    lower: Float[Array, "..."] = eqx.field(converter=jnp.asarray, default=0.0)
    upper: Float[Array, "..."] = eqx.field(converter=jnp.asarray, default=1.0)

    def declared(self):
        return Declared(convex=True, finite=False, finite_lagrangian=True)

    def __check_init__(self):
        shapes = (self.lower.shape, self.upper.shape)
        if shapes[0] != shapes[1] or len(shapes[0]) > 1:
            raise ValueError(
                f"BoxIndicator: two scalars or two vectors of one length are needed; found {shapes}."
            )
        if known_to_fail(self.lower <= self.upper):
            raise ValueError(
                f"BoxIndicator: lower <= upper is needed; found {self.lower} and {self.upper}."
            )

    def _check(self, p):
        if self.lower.ndim:
            require_length(p, self.lower.shape[0], "BoxIndicator")

    def __call__(self, p):
        self._check(p)
        inside = jnp.all((self.lower <= p) & (p <= self.upper))
        return jnp.where(inside, 0.0, jnp.inf).astype(p.dtype)

    def lagrangian(self, v):
        self._check(v)
        return jnp.sum(jnp.maximum(self.lower.astype(v.dtype) * v, self.upper.astype(v.dtype) * v))


@admits()
class Drift(AbstractHamiltonian):
    """`H(p) = c.p`: transport with velocity `c`, shape (d,)."""

    c: Float[Array, " d"] = eqx.field(converter=jnp.asarray)

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=False)

    def __call__(self, p):
        require_length(p, self.c.shape[0], "Drift")
        return p @ self.c.astype(p.dtype)

    def lagrangian(self, v):
        require_length(v, self.c.shape[0], "Drift")
        return jnp.where(jnp.all(v == self.c), 0.0, jnp.inf).astype(v.dtype)


def norm(p: Float[Array, " d"], q: float) -> Float[Array, ""]:
    """`|p|_q` with subgradient 0 at the origin, scaled by the largest entry against overflow."""
    size = p * jax.lax.stop_gradient(jnp.sign(p))
    if q == 1:
        return jnp.sum(size)
    top = jnp.max(size)
    some = (top > 0) & jnp.isfinite(top)
    if np.isinf(q):
        return jnp.where(some, top, jax.lax.stop_gradient(top))
    scale = jax.lax.stop_gradient(jnp.where(some, top, 1.0))  # cancels: a constant for derivatives
    rest = size / scale
    total = jnp.sum(jnp.where(rest > 0, jnp.where(rest > 0, rest, 1.0) ** q, 0.0))
    value = scale * jnp.where(some, total, 1.0) ** (1 / q)
    return jnp.where(some, value, jax.lax.stop_gradient(top))


def on_the_edge(v: Float[Array, " d"]) -> float:
    """One, and the rounding that a velocity of length one carries: `grad H(p)` must stay inside."""
    return 1 + 8 * v.shape[0] * float(jnp.finfo(v.dtype).eps)


def check_positive_definite(A: Float[Array, "..."], owner: str) -> None:
    """Refuse a matrix that is not square, symmetric and positive definite.

    **Raises:** `ValueError`.
    """
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"{owner}: a square matrix A is needed; found shape {A.shape}.")
    value = known(A)
    if value is None:
        return
    skew = float(np.max(np.abs(value - value.T), initial=0.0))
    if not skew <= 1e-6 * float(np.max(np.abs(value), initial=0.0)):
        raise ValueError(
            f"{owner}: A must be finite and symmetric; |A - A'| is {skew:.1e}. Pass (A + A')/2."
        )
    least = float(np.linalg.eigvalsh(value)[0])
    if not least > 0:
        raise ValueError(
            f"{owner}: A must be positive definite; its least eigenvalue is {least:.1e}."
        )


def _power(p: Float[Array, " d"], a: Float[Array, ""]) -> Float[Array, ""]:
    square = jnp.sum(p * p)
    some = square > 0
    return jnp.where(some, jnp.where(some, square, 1.0) ** (a / 2) / a, 0.0)
