r"""Does u solve the equation? Derivatives by jets, at one point.

    r = u_t + H(grad u) - eps tr(A hess u)
    relative = |r| / (|u_t| + |H(grad u)| + |eps tr(A hess u)|)

The terms differ in size with (eps, t, d) and cancel one another: the residual is measured against the
sum of their absolute values, so `relative` lies in [0, 1], 0 when solved and of the order of
roundoff when solved in floating point. Where all three vanish, it is 0.

A = 1, unless H is anisotropic and the diffusion is given as `A`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian
from hjcontrol.hamilton_jacobi.pairs import Quadratic

Field = Callable[[Array, Array], Array]


class EquationResidual(Shown):
    """The terms of the equation at one point, their sum, and the scale of its relative size."""

    u: Float[Array, ""]
    gradient: Float[Array, " d"]
    laplacian: Float[Array, ""]
    u_t: Float[Array, ""]
    residual: Float[Array, ""]
    relative: Float[Array, ""]


@admits(t="> 0", eps=">= 0")
def pde_residual(
    u: Field,
    x: Float[Array, " d"],
    t: Scalar,
    eps: Scalar,
    *,
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
    A: Float[Array, "d d"] | None = None,
) -> EquationResidual:
    """Residual of `u_t + H(grad u) = eps tr(A hess u)` at `(x, t)`, of any function `u(x, t)`.

    `u` must be twice differentiable there by JAX. `laplacian` is `tr(A hess u)`. Batch with `jax.vmap`.

    **Raises:** `ValueError` for `t <= 0` or `eps < 0`, or an `A` that is not (d, d).
    """
    d = x.shape[0]
    if A is not None and A.shape != (d, d):
        raise ValueError(f"pde_residual: A of shape {(d, d)} is needed; found {A.shape}.")
    t, eps = jnp.asarray(t, x.dtype), jnp.asarray(eps, x.dtype)
    value, (p, u_t) = jax.value_and_grad(u, argnums=(0, 1))(x, t)
    root = jnp.eye(d, dtype=x.dtype) if A is None else jnp.linalg.cholesky(A.astype(x.dtype)).T
    laplacian = jnp.sum(second_derivatives(lambda a: u(a, t), x, root))
    terms = jnp.stack([u_t, H(p), -eps * laplacian])
    size = jnp.sum(jnp.abs(terms))
    residual = jnp.sum(terms)
    relative = jnp.abs(residual) / jnp.where(size > 0, size, 1.0)
    return EquationResidual(value, p, laplacian, u_t, residual, relative)


def second_derivatives(
    u: Callable[[Array], Array], x: Float[Array, " d"], directions: Float[Array, "k d"]
) -> Float[Array, " k"]:
    """`v.(hess u) v` for every row `v`, one second-order jet each: no Hessian is formed."""

    def along(v: Array) -> Array:
        # Nested forward mode: `jax.experimental.jet` does not pass through custom derivative rules.
        slope = lambda a: jax.jvp(u, (a,), (v,))[1]
        return jax.jvp(slope, (x,), (v,))[1]

    return jax.vmap(along)(directions)
