r"""The constraints that are active at a point: who is violated most, and Newton with them held.

    [ H   A' ] [ d theta ]       [ dL/dtheta ]
    [ A   0  ] [ d mu    ]  =  - [ c_active  ]          H = d2L/dtheta2,  A = dc_active/dtheta

A method of multipliers leaves its last digits in mu: where two rows of A are nearly the same, a gradient
of 1e-10 allows an error of 1e-4 in their multipliers. One or two such steps, with weights that stand at
a bound held there, remove it. A step is taken only if it lowers the largest residual and keeps every
sign; problems whose matrix would be larger than `LARGEST` keep what they have.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from hjcontrol.control import Budget, ControlProblem, Free
from hjcontrol.control.path_checks import names_of
from hjcontrol.control.pricing import all_values, path_values, priced
from hjcontrol.networks import Weights

LARGEST = 2000  # weights and active constraints together
STEPS = 3


def violations(
    problem: ControlProblem, weights: Weights, most: int = 3, above: float = 0.0
) -> list[str]:
    """What the weights miss by most, and by more than `above`, in order: name, sample, place, size."""
    found = []
    ending, states = problem.terminal_constraint, eqx.filter_jit(problem.rollout)(weights)
    if ending is not None:
        g = np.asarray(ending.values(problem, states.final))
        for (i, j), size in np.ndenumerate(_worst_if_nan(np.abs(g) if ending.kind == "=" else g)):
            found.append((size, f"the terminal constraint, sample {i}, coordinate {j}"))
    values = path_values(problem, weights, states) if problem.path else {}
    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        sizes = _worst_if_nan(jnp.abs(values[name]) if c.kind == "==" else values[name])
        if isinstance(c, Budget):
            found.append((float(sizes), f"{name!r}"))
            continue
        for at in np.argsort(-sizes, axis=None)[:most]:
            i, k, j = np.unravel_index(at, sizes.shape)
            found.append((sizes[i, k, j], f"{name!r} at depth {k}, sample {i}, coordinate {j}"))
    found.sort(key=lambda pair: -pair[0])
    return [f"{place}: {float(size):.3g}" for size, place in found[:most] if size > above]


def _worst_if_nan(sizes: Any) -> np.ndarray:
    return np.where(np.isnan(sizes), np.inf, sizes)


class _Held(eqx.Module):
    """Constraints as one vector of all their entries, and multipliers `mu` beside J, not the mean."""

    problem: ControlProblem

    def values(self, weights: Weights) -> Array:
        """`c`, all of them: the terminal one first."""
        return all_values(self.problem, weights)

    def split(self, nu: Array, like: tuple[Any, dict[str, Array]]) -> tuple[Any, dict[str, Array]]:
        """A vector as multipliers, shaped like these."""
        terminal, path = like
        out, start = {}, 0 if terminal is None else terminal.size
        for name, a in path.items():
            out[name] = nu[start : start + a.size].reshape(a.shape)
            start += a.size
        return None if terminal is None else nu[: terminal.size].reshape(terminal.shape), out


def polished(
    problem: ControlProblem, weights: Weights, terminal: Any, path: dict[str, Array]
) -> tuple[Weights, Any, dict[str, Array]]:
    """Weights and multipliers after Newton on the active constraints; as they were where that gains
    nothing. `terminal`, `path`: multipliers beside the mean."""
    the_set = problem.control_set
    flat, unravel = ravel_pytree(weights)
    nu, kinds, share = _vector(problem, terminal, path)
    held = _Held(problem)
    active = np.flatnonzero((nu > 0) | kinds)
    if flat.size + active.size > LARGEST or not (isinstance(the_set, Free) or the_set.elementwise):
        return weights, terminal, path
    like = (terminal, path)
    gradient, c = (np.asarray(a) for a in _measured(held, weights, jnp.asarray(nu), like))
    pressed, _ = the_set.active(weights, unravel(jnp.asarray(gradient)), jnp.asarray(1e-6))
    free = np.flatnonzero(~np.asarray(ravel_pytree(pressed)[0], bool))
    if isinstance(the_set, Free):
        free = np.arange(flat.size)
    at, best = np.asarray(flat), _worst(gradient, c, free, active)
    for _ in range(STEPS):
        H, A = _matrices(held, unravel(jnp.asarray(at)), jnp.asarray(nu), like, jnp.asarray(active))
        H, A = np.asarray(H)[np.ix_(free, free)], np.asarray(A)[:, free]
        zero = np.zeros((active.size, active.size))
        system = np.block([[H, A.T], [A, zero]])
        right = -np.concatenate([gradient[free], c[active]])
        move: Any = scipy.linalg.lstsq(system, right, lapack_driver="gelsy", cond=1e-15)
        move = np.asarray(move[0])
        new, mu = at.copy(), nu.copy()
        new[free] += move[: free.size]
        mu[active] += move[free.size :] / share[active]
        if not np.all(np.isfinite(move)) or np.any((mu < 0) & ~kinds):
            break
        gradient_, c_ = (
            np.asarray(a) for a in _measured(held, unravel(jnp.asarray(new)), jnp.asarray(mu), like)
        )
        worst = _worst(gradient_, c_, free, active)
        inactive = ~kinds
        inactive[active] = False
        if not worst < best or np.any(c_[inactive] > max(best, 1e-12)):
            break
        at, nu, gradient, c, best = new, mu, gradient_, c_, worst
    inside = the_set.project(unravel(jnp.asarray(at, flat.dtype)))
    ends, along = held.split(jnp.asarray(nu, flat.dtype), like)
    return inside, ends, along


def _worst(gradient: np.ndarray, c: np.ndarray, free: np.ndarray, active: np.ndarray) -> float:
    return float(np.max(np.abs(np.concatenate([gradient[free], c[active], [0.0]]))))


def _vector(
    problem: ControlProblem, terminal: Any, path: dict[str, Array]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All `nu`; where the constraint is an equality that is imposed; and `mu / nu` of each."""
    n, parts, kinds, share = problem.num_samples, [], [], []
    if terminal is not None and problem.terminal_constraint is not None:
        parts.append(np.asarray(terminal).ravel())
        kinds.append(np.full(terminal.size, problem.terminal_constraint.kind == "="))
        share.append(np.full(terminal.size, 1 / n))
    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        a = np.asarray(path[name])
        parts.append(a.ravel())
        imposed = np.ones(a.shape, bool)
        if not isinstance(c, Budget):
            where = np.asarray(c.imposed(len(problem.chain)))
            imposed = np.broadcast_to(where[None, :, None], a.shape)
        kinds.append((imposed & (c.kind == "==")).ravel())
        share.append(np.full(a.size, 1.0 if isinstance(c, Budget) else 1 / n))
    return tuple(np.concatenate(v) for v in (parts, kinds, share))


def _lagrangian(weights: Weights, held: _Held, nu: Array, like: Any) -> Array:
    return priced(held.problem, *held.split(nu, like), None).objective(weights)


@eqx.filter_jit
def _measured(held: _Held, weights: Weights, nu: Array, like: Any) -> tuple[Array, Array]:
    """`dL/dtheta` and `c`, flat."""
    slope = jax.grad(_lagrangian)(weights, held, nu, like)
    return ravel_pytree(slope)[0], held.values(weights)


@eqx.filter_jit
def _matrices(
    held: _Held, weights: Weights, nu: Array, like: Any, active: Array
) -> tuple[Array, Array]:
    """`H`, and the rows of `A` that are active."""
    flat, unravel = ravel_pytree(weights)
    slope = lambda v: ravel_pytree(jax.grad(_lagrangian)(unravel(v), held, nu, like))[0]
    product = lambda v: jax.jvp(slope, (flat,), (v,))[1]
    H = jax.lax.map(product, jnp.eye(flat.size, dtype=flat.dtype), batch_size=64)
    c, pull = jax.vjp(lambda v: held.values(unravel(v)), flat)
    row = lambda j: pull(jnp.zeros_like(c).at[j].set(1.0))[0]
    return H, jax.lax.map(row, active, batch_size=64)
