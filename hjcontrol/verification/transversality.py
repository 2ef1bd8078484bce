r"""Transversality: what the costate is at the end.

    p_K^i = (1/n) [ dPhi/dx + nu^i . dg/dx ]        g(x_K^i) = 0 constrains the end, nu its multiplier

Without a constraint the end is free and p_K = (1/n) dPhi/dx. The derivative is taken by forward mode of
the primal with custom rules inlined: a wrong `custom_vjp` in the cost is seen here. One basis direction a
coordinate of the final state. Source: Bryson and Ho, Applied Optimal Control, section 2.7.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from hjcontrol.control import ControlProblem
from hjcontrol.verification.inlining import inlined


def transversality(
    problem: ControlProblem,
    final: PyTree[Array],
    costate: PyTree[Array],
    constraint: Callable[..., Any] | None = None,
    multipliers: Array | None = None,
) -> Float[Array, ""]:
    """Largest `|p_K - (1/n) d(Phi + nu . g)/dx|` over samples and coordinates, relative to the largest
    `|p_K|`.

    **Arguments:** `final`, `costate`: leaves `(n, ...)`; `constraint`: `g(x, y)` of one sample, of shape
    `(m,)`, with `multipliers` `(n, m)`.
    """

    def lagrangian(x: PyTree, y: PyTree, nu: Array | None) -> Float[Array, ""]:
        cost = problem.terminal_cost(x, y)
        if constraint is None or nu is None:
            return cost
        return cost + jnp.sum(nu * constraint(x) if y is None else nu * constraint(x, y))

    def slope(x: PyTree, y: PyTree, nu: Array | None) -> PyTree:
        flat, unravel = ravel_pytree(x)
        value = inlined(lambda c: lagrangian(unravel(c), y, nu))
        basis = jnp.eye(flat.size, dtype=flat.dtype)
        return unravel(jax.vmap(lambda v: jax.jvp(value, (flat,), (v,))[1])(basis))

    wanted = jax.vmap(slope)(final, problem.targets, multipliers)
    n = problem.num_samples
    largest = lambda tree: jax.tree.reduce(
        jnp.maximum, jax.tree.map(lambda a: jnp.max(jnp.abs(a), initial=0.0), tree), 0.0
    )
    gap = largest(jax.tree.map(lambda p, w: p - w / n, costate, wanted))
    size = jnp.maximum(largest(costate), largest(wanted) / n)
    return jnp.where(gap == 0, 0.0, gap / jnp.maximum(size, jnp.finfo(problem.dtype).tiny))
