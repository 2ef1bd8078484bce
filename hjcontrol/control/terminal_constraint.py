r"""Constraints on the final states, and the problem without them whose terminal cost is shifted.

    g(x_K^i, y^i) = 0   or   <= 0           p_K^i = (1/n) [ dPhi/dx + nu^i . dg/dx ]

    augmented, "=":     Phi + nu.g + rho/2 |g|^2                             nu <- nu + rho g
    augmented, "<=":    Phi + (|max(0, nu + rho g)|^2 - |nu|^2) / (2 rho)    nu <- max(0, nu + rho g)

nu   multipliers, one row a sample, of the constraint beside the *mean* of Phi       rho   strength, > 0

A method that declares `terminal` takes the constraint as it is. Every other one takes the augmented
problem; the updates of nu (Hestenes 1969, Powell 1969) are its user's. At a fixed point of them g = 0,
and the costate of the augmented problem is that of the constrained one.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown


@admits()
class TerminalConstraint(Shown):
    """`function(x_K, y)` of one sample, or `function(x_K)` without targets, is zero, or not positive."""

    function: Callable[..., Float[Array, "..."]]
    kind: str = eqx.field(static=True, default="=")

    def __check_init__(self):
        if self.kind not in ("=", "<="):
            raise ValueError(
                f"TerminalConstraint: `kind` must be '=' or '<='; found {self.kind!r}."
            )

    def __call__(self, x: PyTree[Array], y: PyTree[Array]) -> Float[Array, " m"]:
        """`g` of one sample, flat."""
        return jnp.ravel(self.function(x) if y is None else self.function(x, y))

    def values(self, problem: Any, final: PyTree[Array]) -> Float[Array, "n m"]:
        """`g` of every sample."""
        return jax.vmap(self)(final, problem.targets)

    def violation(self, g: Float[Array, "n m"]) -> Float[Array, ""]:
        """Largest violation."""
        wrong = jnp.abs(g) if self.kind == "=" else jnp.maximum(g, 0)
        return jnp.max(wrong, initial=0.0)

    def updated(
        self, nu: Float[Array, "n m"], g: Float[Array, "n m"], strength: ArrayLike
    ) -> Float[Array, "n m"]:
        """The multipliers after one solve of the augmented problem."""
        moved = nu + strength * g
        return moved if self.kind == "=" else jnp.maximum(moved, 0)


class _Shifted(eqx.Module):
    terminal: Callable[..., Float[Array, ""]]
    constraint: TerminalConstraint
    strength: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __call__(self, x: PyTree[Array], target: tuple[Any, Array]) -> Float[Array, ""]:
        y, nu = target
        g, rho = self.constraint(x, y), self.strength.astype(nu.dtype)
        paid = self.terminal(x) if y is None else self.terminal(x, y)
        if self.constraint.kind == "=":
            return paid + nu @ g + 0.5 * rho * (g @ g)
        return paid + (jnp.sum(jnp.maximum(nu + rho * g, 0) ** 2) - nu @ nu) / (2 * rho)


@admits(strength="finite")
def augmented(problem: Any, nu: Float[Array, "n m"], strength: Real[ArrayLike, ""] | float) -> Any:
    """The problem without its terminal constraint, its terminal cost shifted by multipliers `nu`: a
    `ControlProblem` again.

    **Raises:** `ValueError` without a constraint, for a strength not positive, or `nu` of another shape.
    """
    constraint = getattr(problem, "terminal_constraint", None)
    if constraint is None:
        raise ValueError("augmented: a problem with a `terminal_constraint` is needed; found none.")
    if known_to_fail(jnp.asarray(strength) > 0):
        raise ValueError(f"augmented: `strength` must be positive; found {strength}.")
    key = jax.eval_shape(lambda: jax.random.key(0))
    want = jax.eval_shape(
        lambda k: constraint.values(problem, problem.rollout(problem.init(k)).final), key
    ).shape
    nu = jnp.asarray(nu, problem.dtype)
    if nu.shape != want:
        raise ValueError(f"augmented: `nu` must have shape {want}; found {nu.shape}.")
    parts = lambda p: (p.targets, p.terminal, p.terminal_constraint)
    changed = ((problem.targets, nu), _Shifted(problem.terminal, constraint, strength), None)
    return eqx.tree_at(parts, problem, changed, is_leaf=lambda leaf: leaf is None)
