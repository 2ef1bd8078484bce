r"""Transversality: what the costate is at the end.

    p_K^i = (1/n) [ dPhi/dx + nu^i . dg/dx ]        g(x_K^i) = 0 constrains the end, nu its multiplier

Without a constraint the end is free and p_K = (1/n) dPhi/dx; with one, the problem that is judged is the
one its multipliers augment (`Solution.stated`), whose terminal cost has that slope. The derivative is
taken by forward mode of the primal with custom rules inlined: a wrong `custom_vjp` in the cost is seen
here. One basis direction a coordinate of the final state.
Source: Bryson and Ho, Applied Optimal Control, section 2.7.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from hjcontrol.control import ControlProblem
from hjcontrol.control.control_sets import largest
from hjcontrol.verification.inlining import inlined


def transversality(
    problem: ControlProblem, final: PyTree[Array], costate: PyTree[Array]
) -> Float[Array, ""]:
    """Largest `|p_K - (1/n) dPhi/dx|` over samples and coordinates, relative to the largest `|p_K|`.

    **Arguments:** `final`, `costate`: leaves `(n, ...)`.
    """

    def slope(x: PyTree, y: PyTree) -> PyTree:
        flat, unravel = ravel_pytree(x)
        value = inlined(lambda c: problem.terminal_cost(unravel(c), y))
        basis = jnp.eye(flat.size, dtype=flat.dtype)
        return unravel(jax.vmap(lambda v: jax.jvp(value, (flat,), (v,))[1])(basis))

    wanted = jax.vmap(slope)(final, problem.targets)
    n = problem.num_samples
    gap = largest(jax.tree.map(lambda p, w: p - w / n, costate, wanted))
    size = jnp.maximum(largest(costate), largest(wanted) / n)
    return jnp.where(gap == 0, 0.0, gap / jnp.maximum(size, jnp.finfo(problem.dtype).tiny))
