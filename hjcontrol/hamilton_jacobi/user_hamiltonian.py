r"""The user's own Hamiltonian: convex, with a numeric conjugate that brings its certificate, or not.

    L_R(v) = max_{|p| <= R} p.v - H(p)

Found at `p`, by projected Newton and gradient steps. For any subgradient `s` of H at `p`, convexity gives

    p.v - H(p)  <=  L_R(v)  <=  p.v - H(p) + R |v - s| - p.(v - s)

The width of that bracket is the certificate: zero exactly when Fenchel-Young holds with equality
(`v = s`, or p on the sphere with `v - s` pointing outwards). It needs no trust in the search.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian, Declared

STEPS = 100
_SHRINKS = 40


class Conjugate(Shown):
    """`L_R(v)` lies in `[value, value + gap]`; `maximiser` is the momentum found."""

    value: Float[Array, ""]
    gap: Float[Array, ""]
    maximiser: Float[Array, " d"]


@admits(radius="> 0")
class UserConvex(AbstractHamiltonian):
    """`H = fn`, a convex function of one momentum, finite for `|p| <= radius`.

    The Lagrangian is that of `fn` restricted to the ball: the same as that of `fn` wherever the
    maximiser lies inside. Its derivatives are right to second order, in `v` and in arrays that `fn`
    carries (let `fn` be an `equinox.Module`), wherever H is twice differentiable.
    That `fn` is convex is the caller's word; `certificate` is only valid if it is true.
    """

    fn: Callable[[Array], Array]
    radius: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def declared(self):
        return Declared(convex=True, finite=True, finite_lagrangian=True)

    def __check_init__(self):
        if self.radius.ndim != 0 or known_to_fail((self.radius > 0) & jnp.isfinite(self.radius)):
            raise ValueError(
                f"UserConvex: a finite scalar radius > 0 is needed; found {self.radius}."
            )

    def __call__(self, p):
        return jnp.asarray(self.fn(p)).astype(p.dtype)

    def lagrangian(self, v):
        p = jax.lax.stop_gradient(_maximiser(self, v))
        p = p + _newton_correction(self, p, v)
        return p @ v - self(p)

    def certificate(self, v: Float[Array, " d"]) -> Conjugate:
        """The conjugate at `v` with the width of its bracket."""
        p = _maximiser(self, v)
        slack = v - jax.grad(self.__call__)(p)
        radius = self.radius.astype(v.dtype)
        gap = radius * jnp.sqrt(jnp.sum(slack**2)) - p @ slack
        return Conjugate(p @ v - self(p), jnp.maximum(gap, 0.0), p)


@admits()
class Nonconvex(AbstractHamiltonian):
    """`H = fn`, any finite function of one momentum, without a useful Lagrangian."""

    fn: Callable[[Array], Array]

    def declared(self):
        return Declared(convex=False, finite=True, finite_lagrangian=False)

    def __call__(self, p):
        return jnp.asarray(self.fn(p)).astype(p.dtype)

    def lagrangian(self, v):
        raise ValueError(
            "Nonconvex: H** is not H, so the Lagrangian does not determine the equation. "
            "With convex initial data use `hopf`; if `fn` is convex, state it as `UserConvex`."
        )


def _maximiser(H: UserConvex, v: Float[Array, " d"]) -> Float[Array, " d"]:
    """Ascent on the ball. A Newton step that halves the bracket is taken; else the best of many."""
    H, v = jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, (H, v))
    radius = H.radius.astype(v.dtype)
    halves = 2.0 ** -jnp.arange(_SHRINKS, dtype=v.dtype)

    def onto(p: Array) -> Array:
        length = jnp.sqrt(jnp.sum(p * p))
        return p * jnp.where(length > radius, radius / jnp.where(length > 0, length, 1.0), 1.0)

    def value(p: Array) -> Array:
        found = p @ v - H(p)
        return jnp.where(jnp.isfinite(found), found, -jnp.inf)

    def bracket(p: Array) -> tuple[Array, Array]:
        slack = v - jax.grad(H)(p)
        return slack, radius * jnp.sqrt(jnp.sum(slack**2)) - p @ slack

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        p, best, least, _, count = state
        slack, gap = bracket(p)
        closer = gap < least
        newton = _inverse_hessian(H, p) @ slack
        full = onto(p + newton)
        halved = bracket(full)[1] <= 0.5 * gap
        along = jax.vmap(lambda a: onto(p + a * newton))(halves)
        reach = 2 * radius / jnp.sqrt(jnp.sum(slack**2) + jnp.finfo(v.dtype).tiny)
        uphill = jax.vmap(lambda a: onto(p + a * reach * slack))(halves)
        trials = jnp.concatenate([along, uphill])
        values = jax.vmap(value)(trials)
        top = jnp.argmax(values)
        better = values[top] > value(p)
        moved = jnp.where(halved, full, jnp.where(better, trials[top], p))
        # Values are blind below the root of roundoff, and would lead away from the answer again.
        going = (gap > rounding) & (halved | better)
        return moved, jnp.where(closer, p, best), jnp.minimum(gap, least), going, count + 1

    rounding = jnp.finfo(v.dtype).eps * radius * jnp.sqrt(jnp.sum(v * v))
    start = jnp.zeros_like(v)
    state = start, start, jnp.asarray(jnp.inf, v.dtype), jnp.asarray(True), 0
    going = lambda state: state[3] & (state[4] < STEPS)
    last, best, least, _, _ = jax.lax.while_loop(going, step, state)
    return jnp.where(bracket(last)[1] < least, last, best)


def _inverse_hessian(H: UserConvex, p: Float[Array, " d"]) -> Float[Array, "d d"]:
    """Pseudo-inverse of the curvature: directions in which H is flat stay where they are."""
    values, vectors = jnp.linalg.eigh(jax.hessian(H)(p))
    floor = jnp.max(jnp.abs(values)) * p.shape[0] * jnp.finfo(p.dtype).eps
    curved = values > floor
    return (
        vectors * jnp.where(curved, 1 / jnp.where(curved, values, 1.0), 0.0)[None, :]
    ) @ vectors.T


def _newton_correction(
    H: UserConvex, p: Float[Array, " d"], v: Float[Array, " d"]
) -> Float[Array, " d"]:
    """Zero in value where p is interior; its derivative is the implicit one of the maximiser."""
    slack = v - jax.grad(H.__call__)(p)
    still = jax.lax.stop_gradient(slack)
    return jax.lax.stop_gradient(_inverse_hessian(H, p)) @ (slack - still)
