r"""Scaled and summed Hamiltonians, where the Lagrangian has a closed rule.

    (c H)*(v) = c L(v / c)                    time runs c times as fast
    (H + c.p)*(v) = L(v - c)                  a drift shifts the velocity
    (p.Ap + p.Bp)*(v) = v.(A + B)^{-1}v / 4   quadratics of every kind add their matrices
    (a |.|_q + b |.|_q)* = ((a + b) |.|_q)*   norms of one exponent add their factors
    (i_B + i_C)* = (i_{B and C})*             boxes intersect

In general the Lagrangian of a sum is an infimal convolution and has no closed form: such a sum is
refused at construction. `UserConvex(lambda p: H(p) + K(p), radius)` conjugates it numerically.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian, Declared, require_convex
from hjcontrol.hamilton_jacobi.pairs import (
    Anisotropic,
    BoxIndicator,
    Drift,
    HalfQuadratic,
    Norm,
    Quadratic,
)

_QUADRATIC = (Quadratic, HalfQuadratic, Anisotropic)


@admits(c="finite")
class Scaled(AbstractHamiltonian):
    """`c H` with `c > 0`."""

    H: AbstractHamiltonian
    c: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if self.c.ndim != 0 or known_to_fail((self.c > 0) & jnp.isfinite(self.c)):
            raise ValueError(f"Scaled: a finite scalar c > 0 is needed; found {self.c}.")

    def declared(self):
        return self.H.declared()

    def __call__(self, p):
        return self.c.astype(p.dtype) * self.H(p)

    def lagrangian(self, v):
        c = self.c.astype(v.dtype)
        return c * self.H.lagrangian(v / c)


class Sum(AbstractHamiltonian):
    """`H_1 + H_2 + ...` of convex pairs that have a closed rule together.

    **Raises:** `ValueError` if they have none, naming them.
    """

    terms: tuple[AbstractHamiltonian, ...]

    def __init__(self, *terms: AbstractHamiltonian):
        self.terms = tuple(terms)

    def __check_init__(self):
        if not self.terms:
            raise ValueError("Sum: at least one Hamiltonian is needed; found none.")
        for term in self.terms:
            require_convex(term, "Sum")
        rest = [_base(term) for term in self._without_drifts]
        one_rule = (
            len(rest) <= 1
            or all(isinstance(H, _QUADRATIC) for H in rest)
            or (all(isinstance(H, Norm) for H in rest) and len({H.q for H in rest}) == 1)
            or all(isinstance(H, BoxIndicator) for H in rest)
        )
        if not one_rule:
            names = " + ".join(type(H).__name__ for H in rest)
            raise ValueError(
                f"Sum: the Lagrangian of {names} has no closed rule here. Use "
                "`UserConvex(lambda p: H(p) + K(p), radius)`, whose conjugate is numeric."
            )

    @property
    def _without_drifts(self):
        return [H for H in self.terms if not isinstance(_base(H), Drift)]

    def declared(self):
        return Declared(
            convex=True,
            finite=all(H.finite for H in self.terms),
            finite_lagrangian=any(H.finite_lagrangian for H in self.terms),
        )

    def __call__(self, p):
        return functools.reduce(jnp.add, [H(p) for H in self.terms])

    def lagrangian(self, v):
        zero = jnp.zeros_like(v)
        for H in self.terms:  # a handful of terms, unrolled
            if isinstance(_base(H), Drift):
                v = v - H.gradient(zero)
        return _joined(self._without_drifts, v)


def _base(H: AbstractHamiltonian) -> AbstractHamiltonian:
    return _base(H.H) if isinstance(H, Scaled) else H


def _joined(terms: list[AbstractHamiltonian], v: Float[Array, " d"]) -> Float[Array, ""]:
    """The Lagrangian of terms of one kind."""
    zero = jnp.zeros_like(v)
    if not terms:
        return Drift(zero).lagrangian(v)
    if len(terms) == 1:
        return terms[0].lagrangian(v)
    first = _base(terms[0])
    if isinstance(first, Norm):
        unit = zero.at[0].set(1.0)  # |e_1|_q = 1 for every q: the factor of each term
        factor = functools.reduce(jnp.add, [H(unit) for H in terms])
        return Norm(first.q).lagrangian(v / factor)
    if isinstance(first, BoxIndicator):
        boxes = [_base(H) for H in terms]  # a factor leaves an indicator as it is
        lower = functools.reduce(jnp.maximum, [jnp.broadcast_to(B.lower, v.shape) for B in boxes])
        upper = functools.reduce(jnp.minimum, [jnp.broadcast_to(B.upper, v.shape) for B in boxes])
        inside = jnp.sum(jnp.maximum(lower.astype(v.dtype) * v, upper.astype(v.dtype) * v))
        return jnp.where(jnp.all(lower <= upper), inside, -jnp.inf)  # sup over the empty set
    A = functools.reduce(jnp.add, [jax.hessian(H)(zero) for H in terms]) / 2
    return v @ jnp.linalg.solve(A, v) / 4
