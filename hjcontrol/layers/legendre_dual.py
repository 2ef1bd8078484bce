r"""The Legendre dual of a soft maximum of affine functions.

    f(x) = lse(W x + b, eps) = max over the simplex of pi.(W x + b) + eps H(pi);      f: an `LSE`
    f*(q) = min{ -pi.b - eps H(pi) : W^T pi = q, pi in the simplex } = max over x of q.x - f(x)
    f(x) + f*(q) - q.x >= 0,   zero exactly where q = grad f(x)

f* is finite on the convex hull of the rows of W; its multiplier is x = grad f*(q): the inverse of the
gradient map, unique for eps > 0 if the rows of W span (affinely) the space.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation import LSE, gibbs, lse
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers.layer import SLACK
from hjcontrol.layers.program import AbstractProgram, Residuals
from hjcontrol.layers.softmax import Softmax


class LegendreProgram(AbstractProgram):
    """The program of `f*(q)` in `pi`. Its multiplier is a point `x`; the dual value is `q.x - f(x)`."""

    W: Float[Array, "atoms d"]
    b: Float[Array, " atoms"]
    eps: Float[Array, ""]
    q: Float[Array, " d"]
    x: Float[Array, " d"]

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of weights `pi`, shape `(atoms,)`, and of a point, shape `(d,)`."""
        pi = floating(candidate).astype(self.b.dtype)
        x = self.x if dual is None else floating(dual).astype(self.b.dtype)
        shapes = ("candidate", pi.shape, self.b.shape), ("point", x.shape, self.q.shape)
        for name, found, want in shapes:
            if found != want:
                raise ValueError(f"certify: the {name} must have shape {want}; found {found}.")
        z = self.W @ x + self.b
        inner = Softmax(self.eps).program(z).residuals(pi)
        moment = jnp.abs(self.W.T @ pi - self.q)
        objective = inner.objective + pi @ (
            z - self.b
        )  # the simplex program's own cost, less x.W^T pi
        off = jnp.max(moment) > jnp.finfo(pi.dtype).eps ** SLACK
        return Residuals(
            primal=inner.primal | {"moment": moment},
            dual={},
            complementarity=inner.complementarity,
            stationarity=inner.stationarity,
            objective=jnp.where(off, jnp.inf, objective),
            dual_objective=self.q @ x - lse(z, self.eps),
        )


@admits(q="finite", x0="finite", steps=">= 1")
def legendre_point(
    f: LSE,
    q: Real[ArrayLike, " d"],
    x0: Real[ArrayLike, " d"] | None = None,
    *,
    steps: int = 60,
) -> Float[Array, " d"]:
    """The `x` with `grad f(x) = q`, by damped Newton on `f(x) - q.x`; needs `eps > 0`.

    For `q` outside the hull of the rows of `W` there is none: the iterates run off, and
    `certify(legendre_program(f, q), ...)` says infeasible.
    """
    q = floating(q).astype(f.b.dtype)
    x = jnp.zeros_like(q) if x0 is None else floating(x0).astype(q.dtype)
    eps = f.eps.astype(q.dtype)
    excess = lambda x: lse(f.W @ x + f.b, eps) - q @ x
    rungs = 0.5 ** jnp.arange(12, dtype=q.dtype)

    def step(x: Array, _: None) -> tuple[Array, None]:
        pi = gibbs(f.W @ x + f.b, eps)
        force = f.W.T @ pi - q
        centred = f.W - (f.W.T @ pi)[None]
        hessian = centred.T @ (pi[:, None] * centred) / eps
        ridge = 1e-14 * jnp.trace(hessian) + jnp.finfo(q.dtype).tiny
        move = -jnp.linalg.solve(hessian + ridge * jnp.eye(q.size), force)
        trials = jax.vmap(lambda s: excess(x + s * move))(rungs)
        trials = jnp.where(jnp.isnan(trials), jnp.inf, trials)
        far = jnp.max(jnp.abs(force)) > 1e-6 * (1.0 + jnp.max(jnp.abs(q)))
        s = jnp.where(far, rungs[jnp.argmin(trials)], 1.0)
        new = x + s * move
        return jnp.where(jnp.all(jnp.isfinite(new)), new, x), None

    return jax.lax.scan(step, x, None, length=steps)[0]


@admits(q="finite")
def legendre_value(f: LSE, q: Real[ArrayLike, " d"]) -> Float[Array, ""]:
    """`f*(q)`, solved as a program for `eps > 0`; `+inf` outside the hull of the rows of `W`.

    Its gradient is the multiplier `x` (the envelope theorem). At `eps = 0` it is a linear program:
    solve `legendre_as_cvxpy(f, q)`.

    **Raises:** `ValueError` for `eps = 0`.
    """
    q = floating(q).astype(f.b.dtype)
    if known_to_fail(f.eps > 0):
        raise ValueError(
            "legendre_value: at `eps = 0` the conjugate is a linear program; found eps = 0. "
            "Solve `legendre_as_cvxpy(f, q)`."
        )
    x = legendre_point(f, q)
    eps = f.eps.astype(q.dtype)
    z = f.W @ x + f.b
    off = jnp.max(jnp.abs(f.W.T @ gibbs(z, eps) - q))
    met = off <= jnp.finfo(q.dtype).eps ** SLACK * (1.0 + jnp.max(jnp.abs(q)))
    return jnp.where(met & (eps > 0), q @ x - lse(z, eps), jnp.where(eps > 0, jnp.inf, jnp.nan))


@admits(x="finite", q="finite")
def legendre_gap(f: LSE, x: Real[ArrayLike, " d"], q: Real[ArrayLike, " d"]) -> Float[Array, ""]:
    """`f(x) + f*(q) - q.x >= 0`: zero exactly where `q` is the slope at `x`."""
    return f(x) + legendre_value(f, q) - floating(q).astype(f.b.dtype) @ floating(x)


@admits(q="finite")
def legendre_program(f: LSE, q: Real[ArrayLike, " d"]) -> LegendreProgram:
    """The program of `f*(q)`, for `certify`: candidates are weights, multipliers points."""
    q = floating(q).astype(f.b.dtype)
    eps = f.eps.astype(q.dtype)
    return LegendreProgram(f.W, f.b, eps, q, legendre_point(f, q))


@admits(q="finite")
def legendre_as_cvxpy(f: LSE, q: Real[ArrayLike, " d"]) -> Any:
    """The program of `f*(q)` as a `cvxpy.Problem` in `p`, for every `eps >= 0`."""
    needs("legendre_as_cvxpy", "cvxpy")
    import cvxpy as cp

    W, b = np.asarray(f.W, float), np.asarray(f.b, float)
    p = cp.Variable(len(b), name="p")
    cost = -(b @ p)
    if float(f.eps) > 0:
        cost = cost - float(f.eps) * cp.sum(cp.entr(p))
    moment = W.T @ p == np.asarray(q, float)
    return cp.Problem(cp.Minimize(cost), [moment, cp.sum(p) == 1, p >= 0])
