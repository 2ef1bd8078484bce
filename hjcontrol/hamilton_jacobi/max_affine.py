r"""Hopf-Lax and Hopf for max-affine initial data: one convex program and its dual.

    g(y) = max_k a_k.y + c_k

    minimise over y            max_k (a_k.y + c_k) + t L((x - y)/t)          (Hopf-Lax)
    maximise over pi in simplex   pi.(A x + c) - t H(A'pi)                    (Hopf)

Weak duality holds for *any* y and pi when H is convex, so any such pair brackets u(x, t).
cvxpy states the second; its solution gives pi, the multiplier of `q == A'pi` gives y. The prox is y for
`HalfQuadratic`. With H not convex, Hopf's formula has no program: see `hopf`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import LSE
from hjcontrol.hamilton_jacobi.combined import Scaled, Sum
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian, require_convex
from hjcontrol.hamilton_jacobi.pairs import (
    Anisotropic,
    BoxIndicator,
    Drift,
    HalfQuadratic,
    Norm,
    Power,
    Quadratic,
    Relativistic,
)


@admits()
class MaxAffine(Shown):
    """`g(y) = max_k a_k.y + c_k`: slopes `a` (K, d), offsets `c` (K,). Callable at one point.

    **Raises:** `ValueError` for no pieces or disagreeing shapes.
    """

    slopes: Float[Array, "K d"] = eqx.field(converter=jnp.asarray)
    offsets: Float[Array, " K"] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        a, c = self.slopes, self.offsets
        if a.ndim != 2 or a.shape[0] == 0 or c.shape != a.shape[:1]:
            raise ValueError(
                f"MaxAffine: slopes (K, d) and offsets (K,), K >= 1, are needed; found {a.shape}, "
                f"{c.shape}."
            )

    def __call__(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        return LSE(self.slopes, self.offsets, 0.0)(y)


class Bracket(Shown):
    """`u(x, t)` lies in `[lower, upper]`: the dual value at `weights`, the primal at `minimiser`.

    `result` is `successful` or what the third-party solver ended with; the bracket holds in any case.
    """

    lower: Float[Array, ""]
    upper: Float[Array, ""]
    minimiser: Float[Array, " d"]
    weights: Float[Array, " K"]
    result: RESULTS

    @property
    def gap(self) -> Float[Array, ""]:
        """`upper - lower >= 0`, the certificate."""
        return self.upper - self.lower


def bracket(
    g: MaxAffine,
    x: Float[Array, " d"],
    t: Scalar,
    minimiser: Float[Array, " d"],
    weights: Float[Array, " K"],
    H: AbstractHamiltonian,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Dual and primal value of any pair, `weights` on the simplex. In pure JAX.

    **Raises:** `ValueError` for `t <= 0` or `H` not convex.
    """
    require_convex(H, "bracket")
    t = jnp.asarray(t, x.dtype)
    lower = weights @ (g.slopes @ x + g.offsets) - t * H(g.slopes.T @ weights)
    return lower, g(minimiser) + t * H.lagrangian((x - minimiser) / t)


@admits(x="finite", t="> 0")
def hopf_lax_max_affine(
    g: MaxAffine,
    x: Float[Array, " d"],
    t: Scalar,
    *,
    H: AbstractHamiltonian,
    solver: str = "CLARABEL",
    **options: Any,
) -> Bracket:
    """`u(x, t)` from max-affine data by a convex program, with the gap of its two sides.

    `options` go to `cvxpy.Problem.solve`. Not traceable.

    **Raises:** `ValueError` for `t <= 0`, an `H` that is not convex or that cvxpy cannot be told,
    disagreeing dimensions, traced arguments.
    """
    problem, weights, momentum = as_cvxpy(g, x, t, H=H)
    problem.solve(solver=solver, **options)
    done = problem.status in ("optimal", "optimal_inaccurate")
    pi, y = np.ones(len(g.offsets)), np.asarray(x)  # brackets u too, if not tightly
    if done:
        # `q == A'pi` with q first: its multiplier is the minimiser, whatever H is.
        pi, y = np.maximum(weights.value, 0.0), momentum.dual_value
    pi = jnp.asarray(pi / pi.sum(), x.dtype)
    y = _into_reach(x, jnp.asarray(y, x.dtype), t, H)
    lower, upper = bracket(g, x, t, y, pi, H)
    return Bracket(lower, upper, y, pi, RESULTS.successful if done else RESULTS.solver_failed)


@admits(x="finite", t="> 0")
def as_cvxpy(
    g: MaxAffine, x: Float[Array, " d"], t: Scalar, *, H: AbstractHamiltonian
) -> tuple[Any, Any, Any]:
    """The native `cvxpy.Problem`, its weights, and the constraint whose multiplier is the minimiser.

    **Raises:** `ValueError` as `hopf_lax_max_affine`.
    """
    import cvxpy as cp

    require_convex(H, "hopf_lax_max_affine")
    if g.slopes.shape[1:] != x.shape:
        raise ValueError(
            f"hopf_lax_max_affine: slopes (K, d) and x (d,) are needed; found {g.slopes.shape}, "
            f"{x.shape}."
        )
    a, c, at = known(g.slopes), known(g.offsets), known(x)
    if a is None or c is None or at is None:
        raise ValueError("hopf_lax_max_affine: solved by cvxpy on the host: call outside `jit`.")
    pi, q = cp.Variable(len(c), nonneg=True), cp.Variable(len(at))
    energy, sides = _stated(H, q)
    tie = q == a.T @ pi
    objective = cp.Maximize(pi @ c + q @ at - float(t) * energy)
    return cp.Problem(objective, [tie, cp.sum(pi) == 1, *sides]), pi, tie


def _stated(H: AbstractHamiltonian, p: Any) -> tuple[Any, list[Any]]:
    """`H(p)` as a cvxpy expression and constraints."""
    import cvxpy as cp

    number = lambda a: np.asarray(a)
    if isinstance(H, Scaled):
        energy, sides = _stated(H.H, p)
        return float(H.c) * energy, sides
    if isinstance(H, Sum):
        parts = [_stated(term, p) for term in H.terms]
        return sum(e for e, _ in parts), [s for _, more in parts for s in more]
    rules = {
        Quadratic: lambda: cp.sum_squares(p),
        HalfQuadratic: lambda: cp.sum_squares(p) / 2,
        Anisotropic: lambda: cp.quad_form(p, cp.psd_wrap(number(H.A))),
        Power: lambda: cp.power(cp.norm(p, 2), float(H.a)) / float(H.a),
        Norm: lambda: cp.norm(p, "inf" if np.isinf(H.q) else H.q),
        Relativistic: lambda: cp.norm(cp.hstack([p, 1.0]), 2),
        Drift: lambda: number(H.c) @ p,
    }
    if isinstance(H, BoxIndicator):
        return 0.0, [p >= number(H.lower), p <= number(H.upper)]
    if type(H) not in rules:
        raise ValueError(
            f"hopf_lax_max_affine: {type(H).__name__} cannot be stated to cvxpy. "
            "Use `hopf_lax_convex`, which needs H as a function only."
        )
    return rules[type(H)](), []


def _into_reach(x: Array, y: Array, t: Scalar, H: AbstractHamiltonian) -> Array:
    """`y` drawn towards `x` until the velocity lies in the domain of L, where a ball around 0 is one.

    A multiplier misses the edge of the domain by the solver's tolerance, and L is infinite beyond it.
    """
    t = jnp.asarray(t, x.dtype)
    inside = lambda a: jnp.isfinite(H.lagrangian(a * (x - y) / t))
    shrink = jnp.concatenate(
        [jnp.ones(1, x.dtype), 1 - 10.0 ** -jnp.arange(12, 1, -1, dtype=x.dtype)]
    )
    factor = shrink[jnp.argmax(jax.vmap(inside)(shrink))]
    return x - factor * (x - y)
