r"""How far a Hamiltonian that is quadratic in its weights can be lowered, in closed form.

    H(theta + d) = H(theta) + g . d + d . Q d / 2            (degree two is proven, see `degree`)

    Free           gap = g . Q^+ g / 2;  infinite if Q has a negative eigenvalue, or g leaves its range
    bounds, Q diagonal coordinate by coordinate: the vertex of a parabola, or an end
    any set, Q = rho I     gap at project(theta - g / rho): nearest point to the free minimiser

Where none of these applies the gap is NaN: no closed form, and nothing is claimed. A lone readout with a
ridge is such a Hamiltonian; so is every stage whose weights enter additively. In discrete time a gap of
zero is not necessary for an optimum (see `minimum`); where H is convex in its weights and the set is
convex, stationarity makes it zero, and this number says so without a search.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from hjcontrol.control import ControlProblem, Free
from hjcontrol.verification.degree import degree

DENSE = 128  # weights of a stage beyond which a matrix that is not diagonal is not formed


def exact_gap(
    problem: ControlProblem, value: Any, theta: PyTree, flat_below: float | Array, run: int = 0
) -> Float[Array, ""]:
    """`H(theta) - min H`, or NaN where there is no closed form.

    `flat_below`: a slope that counts as zero where nothing bends nor bounds the Hamiltonian.
    """
    dtype = problem.dtype
    if not jax.tree.leaves(theta):
        return jnp.zeros((), dtype)
    unknown = jnp.full((), jnp.nan, dtype)
    if degree(value, theta) > 2:
        return unknown
    start, unravel = ravel_pytree(theta)
    slope = jax.grad(lambda c: value(unravel(c)))
    g, product = jax.linearize(slope, start)
    bends = product(jnp.ones_like(start))
    # A matrix is diagonal if it acts as one on a vector of unequal entries, but for a null set of them.
    probe = jnp.cos(jnp.arange(start.size, dtype=start.dtype)) + 2.0
    size = jnp.max(jnp.abs(bends)) + jnp.finfo(dtype).tiny
    off = jnp.max(jnp.abs(product(probe) - bends * probe)) / size
    diagonal = off <= 1e4 * jnp.finfo(dtype).eps
    found = unknown
    if problem.control_set.elementwise:
        low, high = (ravel_pytree(b)[0] for b in problem.control_set.bounds_stage(theta, run))
        separable = _separable(g, bends, low - start, high - start, flat_below)
        found = jnp.where(diagonal, separable, unknown)
        if isinstance(problem.control_set, Free) and start.size <= DENSE:
            Q = jax.vmap(product)(jnp.eye(start.size, dtype=dtype))
            found = jnp.where(diagonal, separable, _free(g, 0.5 * (Q + Q.T), flat_below))
        return found
    rho = bends[0]
    isotropic = diagonal & (rho > 0) & (jnp.max(jnp.abs(bends - rho)) <= 1e-9 * jnp.abs(rho))
    d = ravel_pytree(
        problem.control_set.project_stage(unravel(start - g / jnp.where(rho > 0, rho, 1.0)), run)
    )[0]
    d = d - start
    return jnp.where(isotropic, jnp.maximum(-(g @ d + 0.5 * rho * d @ d), 0.0), unknown)


def _separable(
    g: Array, q: Array, low: Array, high: Array, flat_below: float | Array
) -> Float[Array, ""]:
    """`-min sum_j g_j d_j + q_j d_j^2 / 2` over `low <= d <= high`, bounds possibly infinite."""
    drop = lambda d: -(g * d + 0.5 * q * d * d)
    vertex = jnp.clip(jnp.where(q > 0, -g / jnp.where(q > 0, q, 1.0), 0.0), low, high)
    best = jnp.maximum(drop(vertex), 0.0)
    for end in (low, high):
        finite = jnp.isfinite(end)
        best = jnp.maximum(best, jnp.where(finite, drop(jnp.where(finite, end, 0.0)), best))
        downhill = (q < 0) | ((q == 0) & (jnp.sign(end) * g < -flat_below))
        best = jnp.where(~finite & downhill, jnp.inf, best)
    return jnp.sum(best)


def _free(g: Array, Q: Array, flat_below: float | Array) -> Float[Array, ""]:
    values, vectors = jnp.linalg.eigh(Q)
    slopes = vectors.T @ g
    least = 1e3 * jnp.finfo(g.dtype).eps * jnp.max(jnp.abs(values))
    bends = values > least
    below = jnp.any(values < -least) | jnp.any(~bends & (jnp.abs(slopes) > flat_below))
    found = jnp.sum(jnp.where(bends, 0.5 * slopes**2 / jnp.where(bends, values, 1.0), 0.0))
    return jnp.where(below, jnp.inf, found)
