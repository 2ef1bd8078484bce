r"""Dense quadratic programs in JAX: interior point, certificate, derivative through the KKT system.

    minimise  x.P x/2 + q.x    s.t.   A x = b : nu,    F x <= G : lam >= 0
    KKT:  P x + q + A^T nu + F^T lam = 0,   A x = b,   F x + s = G,   lam s = 0,   lam, s >= 0

P = 0 is a linear program. `solve` is Mehrotra's predictor-corrector, jit and vmap; its derivative, both
modes, solves the KKT system at the answer once. Small and dense: for layers, not for fleets.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers.layer import SLACK
from hjcontrol.layers.program import AbstractProgram, Residuals

MAX_STEPS = 80


class QuadraticProgram(AbstractProgram):
    """The data of one program. Multipliers are a dict with `equality` and `inequality`."""

    P: Float[Array, "n n"]
    q: Float[Array, " n"]
    A: Float[Array, "equalities n"]
    b: Float[Array, " equalities"]
    F: Float[Array, "inequalities n"]
    G: Float[Array, " inequalities"]

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of a point `(n,)`; `dual=None` solves the program for the best multipliers."""
        x = floating(candidate).astype(self.q.dtype)
        if x.shape != self.q.shape:
            raise ValueError(
                f"certify: the candidate must have shape {self.q.shape}; found {x.shape}."
            )
        if dual is None:
            found = solve(self)
            nu, lam, anchor = found.nu, found.lam, found.x
        else:
            nu, lam = (floating(dual[k]).astype(x.dtype) for k in ("equality", "inequality"))
            anchor = x
        if nu.shape != self.b.shape or lam.shape != self.G.shape:
            raise ValueError(
                f"certify: multipliers must have shapes {self.b.shape} and {self.G.shape}; found "
                f"{nu.shape} and {lam.shape}."
            )
        push = self.q + self.A.T @ nu + self.F.T @ lam
        over, off = self.F @ x - self.G, jnp.abs(self.A @ x - self.b)
        out = jnp.max(jnp.concatenate([jnp.maximum(over, 0.0), off, jnp.zeros(1, x.dtype)]))
        cost = 0.5 * x @ self.P @ x + self.q @ x
        # Dorn's dual: a bound where P anchor + push = 0, which is asked for as dual feasibility.
        bound = -0.5 * anchor @ self.P @ anchor - self.b @ nu - self.G @ lam
        return Residuals(
            primal={"equality": off, "inequality": jnp.maximum(over, 0.0)},
            dual={"sign": jnp.maximum(-lam, 0.0), "gradient": jnp.abs(self.P @ anchor + push)},
            complementarity={"inequality": jnp.abs(lam * over)},
            stationarity={"x": jnp.abs(self.P @ x + push)},
            objective=jnp.where(out > jnp.finfo(x.dtype).eps ** SLACK * self.scale, jnp.inf, cost),
            dual_objective=bound,
        )

    @property
    def scale(self) -> Float[Array, ""]:
        """The size of the right-hand sides, at least 1."""
        return 1.0 + jnp.max(jnp.abs(jnp.concatenate([self.b, self.G, self.q])))


class Point(Shown):
    """An answer: point, multipliers, slack, and how it ended. Just one of the last three holds."""

    x: Float[Array, " n"]
    nu: Float[Array, " equalities"]
    lam: Float[Array, " inequalities"]
    s: Float[Array, " inequalities"]
    converged: Bool[Array, ""] | None  # the derivative of a verdict is None
    infeasible: Bool[Array, ""] | None
    unbounded: Bool[Array, ""] | None


def _rows(
    program: QuadraticProgram, x: Array, nu: Array, lam: Array, s: Array
) -> tuple[Array, Array, Array]:
    """What the point misses of stationarity, of the equations, and of the inequalities with slack `s`."""
    P, q, A, b, F, G = (program.P, program.q, program.A, program.b, program.F, program.G)
    return P @ x + q + A.T @ nu + F.T @ lam, A @ x - b, F @ x + s - G


def _error(program: QuadraticProgram, state: tuple) -> Array:
    x, nu, lam, s = state[:4]
    r = _rows(program, x, nu, lam, s)
    products = lam * s
    none = jnp.zeros(1, program.q.dtype)
    worst = [jnp.max(jnp.abs(jnp.concatenate([v, none]))) for v in (*r, products)]
    return jnp.max(jnp.stack(worst)) / program.scale


def _newton_direction(
    program: QuadraticProgram, state: tuple, target: Array
) -> tuple[Array, Array, Array, Array]:
    """Newton's step towards products `lam s` equal to `target`."""
    P, A, b, F = program.P, program.A, program.b, program.F
    n = program.q.size
    x, nu, lam, s = state[:4]
    rd, rp, rs = _rows(program, x, nu, lam, s)
    w = lam / s
    ridge = 1e-13 * (1.0 + jnp.max(jnp.abs(P)))
    top = jnp.concatenate([P + F.T @ (w[:, None] * F) + ridge * jnp.eye(n), A.T], axis=1)
    low = jnp.concatenate([A, -ridge * jnp.eye(b.size)], axis=1)
    right = -jnp.concatenate([rd + F.T @ (w * rs + (target - lam * s) / s), rp])
    step = jnp.linalg.solve(jnp.concatenate([top, low]), right)
    dx, dnu = step[:n], step[n:]
    ds = -rs - F @ dx
    return dx, dnu, (target - lam * s - lam * ds) / s, ds


def _reach(v: Array, dv: Array) -> Array:
    """The largest step, at most 1, that keeps `v` positive."""
    ratio = jnp.where(dv < 0, -v / jnp.where(dv < 0, dv, -1.0), jnp.inf)
    return jnp.minimum(1.0, jnp.min(ratio, initial=jnp.inf))


@eqx.filter_custom_jvp
def solve(program: QuadraticProgram) -> Point:
    """The optimum and its multipliers, to roundoff; else a proof of infeasibility or unboundedness.

    A proof is Farkas': multipliers with `A^T nu + F^T lam = 0`, `b.nu + G.lam < 0`; or a direction with
    `P d = 0`, `A d = 0`, `F d <= 0`, `q.d < 0`.
    """
    q, b, G = program.q, program.b, program.G
    n, m = q.size, G.size
    unit = jnp.finfo(q.dtype).eps

    def body(state: tuple) -> tuple:
        x, nu, lam, s, k, best = state
        mu = jnp.sum(lam * s) / max(m, 1)
        dx, dnu, dlam, ds = _newton_direction(program, state, jnp.zeros_like(s))
        a = jnp.minimum(_reach(lam, dlam), _reach(s, ds))
        after = jnp.sum((lam + a * dlam) * (s + a * ds)) / max(m, 1)
        sigma = (after / jnp.where(mu > 0, mu, 1.0)) ** 3
        dx, dnu, dlam, ds = _newton_direction(program, state, sigma * mu - dlam * ds)
        a = jnp.minimum(1.0, 0.995 * jnp.minimum(_reach(lam, dlam), _reach(s, ds)))
        a = jnp.where((_reach(lam, dlam) >= 1) & (_reach(s, ds) >= 1), jnp.minimum(a, 0.9999), a)
        tiny = jnp.finfo(q.dtype).tiny ** 0.5
        new = (
            x + a * dx,
            nu + a * dnu,
            jnp.maximum(lam + a * dlam, tiny),
            jnp.maximum(s + a * ds, tiny),
        )
        good = jnp.all(jnp.isfinite(jnp.concatenate(new)))
        old = (x, nu, lam, s)
        kept = tuple(jnp.where(good, u, v) for u, v in zip(new, old, strict=True))
        done = jnp.where(good, k + 1, MAX_STEPS)
        now = _error(program, kept)
        better = now < best[0]
        record = tuple(jnp.where(better, u, v) for u, v in zip(kept, best[1:], strict=True))
        return (*kept, done, (jnp.minimum(now, best[0]), *record))

    ones = jnp.ones(m, q.dtype)
    start = (jnp.zeros(n, q.dtype), jnp.zeros(b.size, q.dtype), ones, jnp.maximum(G, 1.0))
    carry = (*start, jnp.zeros((), int), (jnp.asarray(jnp.inf, q.dtype), *start))
    far = lambda state: (state[4] < MAX_STEPS) & (state[5][0] > 4 * unit)
    x, nu, lam, s, _, best = jax.lax.while_loop(far, body, carry)
    converged = best[0] <= unit**SLACK
    infeasible, unbounded = _proofs(program, x, nu, lam)
    x, nu, lam, s = (
        jnp.where(converged, u, v) for u, v in zip(best[1:], (x, nu, lam, s), strict=True)
    )
    return Point(
        x, nu, lam, s, converged, infeasible & ~converged, unbounded & ~infeasible & ~converged
    )


@solve.def_jvp
def _solve_rule(primals: tuple, tangents: tuple) -> tuple[Point, Point]:
    (program,), (change,) = primals, tangents
    at = solve(program)
    absent = lambda v: v is None
    known = lambda v, dv: jnp.zeros_like(v) if dv is None else dv
    d = jax.tree.map(known, program, change, is_leaf=absent)
    P, A, F = program.P, program.A, program.F
    n, k, m = at.x.size, at.nu.size, at.lam.size
    # The smaller of lam, s over the larger: strictly complementary rows become rows of an active set.
    larger = jnp.maximum(at.lam, at.s)
    lam, s = at.lam / larger, at.s / larger
    zero = jnp.zeros
    matrix = jnp.concatenate(
        [
            jnp.concatenate([P, A.T, F.T], axis=1),
            jnp.concatenate([A, zero((k, k + m), P.dtype)], axis=1),
            jnp.concatenate([lam[:, None] * F, zero((m, k), P.dtype), -jnp.diag(s)], axis=1),
        ]
    )
    right = -jnp.concatenate(
        [
            d.P @ at.x + d.q + d.A.T @ at.nu + d.F.T @ at.lam,
            d.A @ at.x - d.b,
            lam * (d.F @ at.x - d.G),
        ]
    )
    step = jnp.linalg.solve(matrix, right)
    dx, dnu, dlam = step[:n], step[n : n + k], step[n + k :]
    ds = d.G - d.F @ at.x - F @ dx
    return at, Point(dx, dnu, dlam, ds, None, None, None)


def _proofs(program: QuadraticProgram, x: Array, nu: Array, lam: Array) -> tuple[Array, Array]:
    P, q, A, b, F, G = (program.P, program.q, program.A, program.b, program.F, program.G)
    y = jnp.concatenate([nu, lam])
    y = y / jnp.maximum(jnp.max(jnp.abs(y), initial=0.0), 1.0)
    d = x / jnp.maximum(jnp.max(jnp.abs(x)), 1.0)
    nu, lam = y[: b.size], y[b.size :]
    top = lambda v: jnp.max(v, initial=0.0)
    far, near = 1e-6, 1e-8
    infeasible = (b @ nu + G @ lam < -far) & (top(jnp.abs(A.T @ nu + F.T @ lam)) < near)
    level = (top(jnp.abs(P @ d)) < near) & (top(jnp.abs(A @ d)) < near) & (top(F @ d) < near)
    return infeasible, (q @ d < -far) & level
