r"""Legendre-Clebsch: the curvature of each Hamiltonian in its own weights.

    lambda_k = min { v . (d^2 H_k / dtheta^2 + B) v : |v| = 1, v in the face }        (`faces` has both)

In continuous time `lambda(t) >= 0` is necessary for a minimum (Bryson and Ho, Applied Optimal Control,
1975, section 6.3). In discrete time it is not: what must be nonnegative there is

    d^2 J / dtheta_k^2 = d^2 H_k / dtheta_k^2 + (dF_k/dtheta)^T P_{k+1} (dF_k/dtheta),    P = d^2 V / dx^2

(the matrix that differential dynamic programming calls Q_uu), and the second term may outweigh the first;
it is of second order in the step, the first of first order, so the two conditions meet as the step
falls. The smallest curvature of J itself says everything that both say.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, PyTree

from hjcontrol.verification.curvature import Curvature, spectrum
from hjcontrol.verification.faces import Face, bending, within

DENSE = 64  # weights of a stage up to which the whole matrix is formed


def legendre(value: Any, theta: PyTree, face: PyTree[Face], key: Key[Array, ""]) -> Curvature:
    """The smallest eigenvalue, its residual bound and the size of the largest; infinite where nothing is
    free to move."""
    if not jax.tree.leaves(theta):
        return Curvature(jnp.asarray(jnp.inf), jnp.asarray(0.0), jnp.asarray(0.0))
    flat, unravel = ravel_pytree(theta)
    _, slope = jax.linearize(jax.grad(lambda c: value(unravel(c))), flat)
    project = lambda v: ravel_pytree(within(face, unravel(v)))[0]
    product = lambda v: slope(v) + ravel_pytree(bending(face, unravel(v)))[0]
    if flat.size > DENSE:
        return spectrum(product, flat, key, project)
    P = jax.vmap(project)(jnp.eye(flat.size, dtype=flat.dtype))
    Q = P @ jax.vmap(product)(P)
    size = jnp.max(jnp.sum(jnp.abs(Q), axis=1))  # no eigenvalue is larger
    outside = 2 * size * (jnp.eye(flat.size, dtype=flat.dtype) - P)
    smallest = jnp.linalg.eigvalsh(0.5 * (Q + Q.T) + outside)[0]
    held = jnp.trace(P) < 0.5
    rounding = 10 * jnp.finfo(flat.dtype).eps * size
    return Curvature(jnp.where(held, jnp.inf, smallest), rounding, size)
