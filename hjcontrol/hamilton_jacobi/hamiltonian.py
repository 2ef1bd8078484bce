r"""A Hamiltonian and its Lagrangian, one pair a class.

    L(v) = H*(v) = sup_p p.v - H(p)          u_t + H(grad u) = eps lap u

p   momentum, shape (d,)      v   velocity, shape (d,)      H, L   scalars, +inf off their domains
Law    H(p) + L(v) >= p.v, equal exactly at v = grad H(p); for convex closed H, also p = grad L(v)

The house's equation has H(p) = |p|^2, *not* half of it: L(v) = |v|^2/4, cost |x - y|^2/(4t).
Everything is for one momentum: batch with `jax.vmap`.
"""

import abc
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from hjcontrol._ground.shown import Shown


class Declared(NamedTuple):
    """What a Hamiltonian says of itself: decided once, consulted everywhere."""

    convex: bool
    finite: bool  # on all of R^d
    finite_lagrangian: bool  # on all of R^d: H grows faster than linearly


class AbstractHamiltonian(Shown):
    """A Hamiltonian `H` on R^d with its conjugate."""

    @abc.abstractmethod
    def declared(self) -> Declared:
        """Whether H is convex, and H and L finite everywhere."""

    @abc.abstractmethod
    def __call__(self, p: Float[Array, " d"]) -> Float[Array, ""]:
        """`H(p)`; `+inf` off the domain. **Raises:** `ValueError` for a momentum of wrong length."""

    @abc.abstractmethod
    def lagrangian(self, v: Float[Array, " d"]) -> Float[Array, ""]:
        """`L(v) = sup_p p.v - H(p)`; `+inf` off its domain. **Raises:** `ValueError` as for `H`."""

    @property
    def convex(self) -> bool:
        """Whether H is convex: its Lagrangian then determines it."""
        return self.declared().convex

    @property
    def finite(self) -> bool:
        """Whether H is finite on all of R^d."""
        return self.declared().finite

    @property
    def finite_lagrangian(self) -> bool:
        """Whether L is finite on all of R^d: characteristics then arrive from everywhere."""
        return self.declared().finite_lagrangian

    def gradient(self, p: Float[Array, " d"]) -> Float[Array, " d"]:
        """Velocity `v = grad H(p)` of the characteristic; one subgradient at a kink."""
        return jax.grad(self.__call__)(p)

    def momentum(self, v: Float[Array, " d"]) -> Float[Array, " d"]:
        """Momentum `p = grad L(v)` that belongs to velocity `v`, inside the domain of L."""
        return jax.grad(self.lagrangian)(v)


def require_convex(H: AbstractHamiltonian, asker: str) -> None:
    """Refuse a Hamiltonian that is not convex.

    **Raises:** `ValueError`.
    """
    if not H.convex:
        raise ValueError(
            f"{asker}: a convex Hamiltonian is needed, since its Lagrangian enters; found "
            f"{type(H).__name__}, declared not convex. With convex initial data use `hopf`."
        )


def require_length(p: Array, d: int, owner: str) -> None:
    """Refuse a vector that is not of length `d`.

    **Raises:** `ValueError`.
    """
    if p.shape != (d,):
        raise ValueError(
            f"{owner}: a vector of length {d} is needed; found shape {p.shape}. "
            "For a batch use `jax.vmap`."
        )
