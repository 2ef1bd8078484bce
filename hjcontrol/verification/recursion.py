r"""The whole costate, without reverse mode.

    p_K = dPhi/dx / n,     (p_k)_j = dl_k . e_j / n + p_{k+1} . (dF_k/dx e_j)

One forward derivative a coordinate, of the primal with custom rules inlined, so neither reverse mode
nor a user's rule has a say. The cost grows with the number of coordinates, hence in chunks: memory is
`CHUNK` tangents of one stage. A place is cheaper for wide states; this route gives the costate.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.control.trajectory import swapped
from hjcontrol.networks import Weights
from hjcontrol.verification.directional import derivative, has_forward
from hjcontrol.verification.ensemble import per_sample, primal, with_coupling
from hjcontrol.verification.inlining import inlined

CHUNK = 16


class Recursion(NamedTuple):
    """Costates, gradient, and the summands' size: `summands[k]` is the norm over coordinates of
    `sum_i |p_{k+1}^i . dF_k/dtheta_m|`, which stays away from zero where the gradient vanishes.
    `forward[k]`: forward mode, not differences (K: the terminal cost)."""

    costates: Trajectory
    gradient: Weights
    summands: Float[Array, " stages"]
    forward: Bool[Array, " depths"]


def recurse(problem: ControlProblem, weights: Weights, states: Trajectory) -> Recursion:
    """Costates from `p_K` down, and the gradient of every stage's weights."""
    n = problem.num_samples
    cost = lambda a: jax.vmap(inlined(problem.terminal_cost))(a, problem.targets)
    forward = has_forward(cost, states.final)

    def body(r: int, p_next: Any, stage: Any, theta: Any, u: Any, x: Any) -> tuple[Any, Any]:
        step = primal(problem, stage)

        def contracted(a: PyTree, c: PyTree) -> Float[Array, " n"]:
            running, x_next = step(a, c, u)
            return running + per_sample(p_next, x_next)

        of_state, of_weights = (lambda a: contracted(a, theta)), (lambda c: contracted(x, c))
        forward = has_forward(of_state, x) and has_forward(of_weights, theta)
        p = _slopes(of_state, x, forward)
        return p, (p, *_totals(of_weights, theta, forward), jnp.asarray(forward))

    final = jax.tree.map(lambda a: a / n, _slopes(cost, states.final, forward))
    _, outs = problem.fold(body, final, weights, states.runs, reverse=True)
    gradient, sizes, by_forward = [], [], []
    for run, theta, (_, g, size, known) in zip(problem.chain.runs, weights, outs, strict=True):
        g, size, paid_known = _with_cost(problem, theta, *map(run.gather, (g, size)))
        gradient.append(with_coupling(problem, run, theta, g))
        sizes.append(run.place(jnp.linalg.norm(size, axis=1)))
        by_forward.append(known & paid_known)
    return Recursion(
        Trajectory(swapped(tuple(ps for ps, *_ in outs)), final),
        tuple(gradient),
        jnp.concatenate(sizes),
        jnp.concatenate([*by_forward, jnp.asarray([forward])]),
    )


def _with_cost(problem: ControlProblem, theta: PyTree, g: PyTree, size: Array) -> tuple:
    """Gradient and summands of every set of weights, their cost added."""
    if not jax.tree.leaves(theta):
        return g, size, True
    cost = lambda c: jnp.asarray(inlined(problem.weight_cost)(c), problem.dtype)[None]
    forward = has_forward(cost, jax.tree.map(lambda a: a[0], theta))
    paid, share = jax.vmap(lambda c: _totals(cost, c, forward))(theta)
    return jax.tree.map(jnp.add, g, paid), size + share, forward


def _slopes(function: Any, x: PyTree, forward: bool) -> PyTree[Array]:
    """`d function^i / d x^i`, leaves `(n, ...)`, one coordinate of every sample at a time."""
    one = jax.tree.map(lambda a: a[0], x)
    flat, unravel = ravel_pytree(one)

    def along(j: Array) -> Float[Array, " n"]:
        e = unravel(jnp.zeros_like(flat).at[j].set(1))
        e = jax.tree.map(lambda d, a: jnp.broadcast_to(d[None], a.shape), e, x)
        return derivative(function, x, e, forward)[0]

    rows = jax.lax.map(along, jnp.arange(flat.size), batch_size=CHUNK)
    return jax.vmap(unravel)(rows.T)


def _totals(
    function: Any, theta: PyTree, forward: bool
) -> tuple[PyTree[Array], Float[Array, " m"]]:
    """Gradient of `sum_i shares^i` for `function: theta -> shares`, and its summands' size by weight."""
    flat, unravel = ravel_pytree(theta)
    if flat.size == 0:
        return theta, jnp.zeros(1)

    def along(m: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
        e = unravel(jnp.zeros_like(flat).at[m].set(1))
        shares, _ = derivative(function, theta, e, forward)
        return jnp.sum(shares), jnp.sum(jnp.abs(shares))

    g, size = jax.lax.map(along, jnp.arange(flat.size), batch_size=CHUNK)
    return unravel(g), size
