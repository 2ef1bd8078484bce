r"""The smallest curvature of J, by Lanczos.

    H V_m = V_m T_m + beta_m v_{m+1} e_m^T,     T_m s = mu s     =>     |lambda - mu| <= beta_m |s_m|

for some eigenvalue `lambda` of the Hessian H. `mu >= lambda_min` always, so that a negative `mu` proves
negative curvature, converged or not. That `lambda_min` is no smaller than `mu` is as sure as Lanczos is,
no surer; not at all before the bound is small beside `mu` (`settled`). Full reorthogonalisation: without
it, ghosts of converged values appear. A breakdown (`beta = 0`, an invariant subspace) is restarted from a
fresh direction.

On a face of a control set H + B is compressed to it, P (H + B) P, where B is the constraint's own
curvature times its multiplier (`faces`). Where nothing is free there is no curvature: its smallest value
is infinite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key

from hjcontrol.control import ControlProblem, curvature
from hjcontrol.control.units import unit
from hjcontrol.networks import Weights
from hjcontrol.verification.faces import Faces, bending, within
from hjcontrol.verification.probes import built_in

STEPS = 60
SETTLED = 0.1


class Curvature(NamedTuple):
    """Smallest Ritz value, its residual bound, and the largest Ritz value's size: what either is measured
    by."""

    smallest: Float[Array, ""]
    bound: Float[Array, ""]
    largest: Float[Array, ""]


def settled(value: float, bound: float, floor: float) -> bool:
    """Whether Lanczos has converged: its bound is below what counts as zero, or a tenth of the value."""
    return bound <= max(floor, SETTLED * abs(value))


def smallest_curvature(
    problem: ControlProblem, weights: Weights, key: Key[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The smallest Ritz value of `d^2 J / dtheta^2`, and its residual bound."""
    flat, unravel = ravel_pytree(weights)
    product = curvature(problem, weights)
    return lanczos(lambda v: ravel_pytree(product(unravel(v)))[0], flat, key)


def face_curvature(
    problem: ControlProblem,
    weights: Weights,
    key: Key[Array, ""],
    faces: Faces,
    held: Float[Array, "active m"] | None = None,
) -> tuple[Curvature, Curvature]:
    """The same of the Lagrangian on the faces `wide` and `tight`. `held`: slopes of constraints that are
    active; only directions that they leave alone are asked."""
    flat, unravel = ravel_pytree(weights)
    product = curvature(problem, weights)

    def on(face: Any) -> Curvature:
        onto = lambda v: ravel_pytree(within(face, unravel(v)))[0]
        project = onto if held is None else _beside(jax.vmap(onto)(held), onto)

        def compressed(v: Array) -> Array:
            d = unravel(v)
            both = jax.tree.map(jnp.add, product(d), bending(face, d))
            return ravel_pytree(both)[0]

        return spectrum(compressed, flat, key, project)

    def once(asked: tuple[Any, Bool[Array, ""]]) -> Curvature:
        blank = Curvature(*(jnp.zeros((), flat.dtype),) * 3)
        return jax.lax.cond(asked[1], on, lambda _: blank, asked[0])

    # One program, run a second time only where the faces differ.
    pair = jax.tree.map(lambda a, b: jnp.stack([a, b]), faces.wide, faces.tight)
    found = jax.lax.map(once, (pair, jnp.stack([jnp.asarray(True), ~faces.same])))
    wide, tight = (jax.tree.map(lambda a, i=i: a[i], found) for i in range(2))
    return wide, jax.tree.map(lambda a, b: jnp.where(faces.same, a, b), wide, tight)


def _beside(rows: Float[Array, "active m"], onto: Callable[[Array], Array]) -> Any:
    """The projection onto the directions of a face that these rows of it leave alone."""
    left, size, _ = jnp.linalg.svd(rows.T, full_matrices=False)
    size = size / jnp.maximum(jnp.max(size, initial=0.0), jnp.finfo(rows.dtype).tiny)
    # Rows that depend on others say nothing
    kept = left * (size > 1e3 * jnp.finfo(rows.dtype).eps)[None]

    def project(v: Array) -> Array:
        v = onto(v)
        return v - kept @ (kept.T @ v)

    return project


def lanczos(
    product: Any, like: Float[Array, " m"], key: Key[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Smallest Ritz value of a symmetric `product` and its residual bound, in `min(m, STEPS)` steps."""
    return spectrum(product, like, key)[:2]


def spectrum(
    product: Any,
    like: Float[Array, " m"],
    key: Key[Array, ""],
    project: Callable[[Array], Array] = lambda v: v,
) -> Curvature:
    """What `min(m, STEPS)` steps of Lanczos find of a symmetric `product`, compressed to the subspace
    onto which `project` projects; the smallest value is infinite if that is nothing."""
    m, dtype = like.size, like.dtype
    steps = min(m, STEPS)
    fresh = jax.vmap(project)(jax.random.normal(built_in(key), (steps + 1, m), dtype))
    nothing = 1e4 * jnp.finfo(dtype).eps * jnp.sqrt(jnp.asarray(m, dtype))  # of a fresh direction

    def clear(v: Array, basis: Array) -> Array:
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            v = project(v)  # division by small betas would let roundoff grow out of the face
            v = v - basis.T @ (basis @ v)
        return v

    def body(j: Array, carry: Any) -> Any:
        basis, diagonal, off = carry
        v = basis[j]
        image = project(product(v))
        alpha = v @ image
        rest = clear(image, basis)
        beta = jnp.linalg.norm(rest)
        broken = beta <= 100 * jnp.finfo(dtype).eps * jnp.linalg.norm(image)
        restart = clear(fresh[j + 1], basis)
        restart = jnp.where(jnp.linalg.norm(restart) > nothing, restart, 0.0)  # the face is used up
        rest = jnp.where(broken, restart, rest)
        size = jnp.linalg.norm(rest)
        basis = basis.at[j + 1].set(rest / jnp.where(size > 0, size, 1.0))
        return basis, diagonal.at[j].set(alpha), off.at[j].set(jnp.where(broken, 0.0, beta))

    size = jnp.linalg.norm(fresh[0])
    size = jnp.where(size > nothing, size, 0.0)
    first = jnp.where(size > 0, fresh[0] / jnp.where(size > 0, size, 1.0), 0.0)
    basis = jnp.zeros((steps + 1, m), dtype).at[0].set(first)
    blank = jnp.zeros(steps, dtype)
    basis, diagonal, off = jax.lax.fori_loop(0, steps, body, (basis, blank, blank))
    unused = jnp.sum(basis[:steps] ** 2, axis=1) < 0.5
    reach = jnp.max(jnp.abs(diagonal) + 2 * jnp.abs(off))  # no Ritz value is larger
    above = 2 * reach + unit(reach)
    diagonal = jnp.where(unused, above, diagonal)
    ritz, vectors = jnp.linalg.eigh(
        jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    )
    smallest = jnp.where(unused[0], jnp.inf, ritz[0])
    used = jnp.where(ritz <= reach, jnp.abs(ritz), 0.0)
    return Curvature(smallest, jnp.abs(off[-1] * vectors[-1, 0]), jnp.max(used))
