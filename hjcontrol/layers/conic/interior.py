r"""Mehrotra's predictor and corrector for linear and quadratic programs, in JAX.

    minimise  x.P x/2 + q.x    s.t.   E x = e : nu,    F x + s = h : lam,    s, lam >= 0

One factorisation an iteration, Cholesky's. It stops when the worst relative residual is at roundoff,
when a proof that there is no optimum is found, or when nothing was gained for some iterations; the best
iterate is returned, and the polish goes on from there.

A direction along which the cost falls says that none is best only if some point is feasible. So after
one, and where no optimum was come near, the loop starts again without the cost, and looks for a point.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hjcontrol.layers.conic.host import INFEASIBLE, SOLVED, UNBOUNDED, UNKNOWN
from hjcontrol.layers.conic.measures import ratio

MAX_STEPS = 80
PATIENCE = 6
FAR = 1e-3  # the error of a stop that is no optimum's: whether any point is feasible is looked at


class _Program(NamedTuple):
    """The data of unit size, its residuals and its proofs at a point `v = (x, nu, lam, s)`.

    `cost` is 1, or 0 for the program without its objective.
    """

    P: Array
    q: Array
    E: Array
    e: Array
    F: Array
    h: Array
    least: Array  # size of the slacks, at least
    ridge: Array
    base: Array  # E'E and the ridge

    def residuals(self, v: tuple, cost: Array) -> tuple[Array, Array, Array]:
        """Of stationarity, of the equalities, of the inequalities."""
        P, q, E, e, F, h, *_ = self
        x, nu, lam, s = v
        return cost * (P @ x + q) + E.T @ nu + F.T @ lam, E @ x - e, F @ x + s - h

    def error(self, v: tuple, cost: Array) -> Array:
        """The worst relative residual; without the objective, that of the constraints."""
        P, q, E, e, F, h, least, *_ = self
        x, nu, lam, s = v
        rd, rp, rs = self.residuals(v, cost)
        push = cost * (jnp.abs(q) + jnp.abs(P) @ jnp.abs(x)) + jnp.abs(E).T @ jnp.abs(nu)
        push = jnp.max(push + jnp.abs(F).T @ lam, initial=0.0)
        reach = jnp.max(jnp.abs(e) + jnp.abs(E) @ jnp.abs(x), initial=0.0)
        reach = jnp.maximum(reach, jnp.max(jnp.abs(h) + jnp.abs(F) @ jnp.abs(x), initial=0.0))
        top = lambda v: jnp.max(jnp.abs(v), initial=0.0)
        size = jnp.maximum(top(s), least)
        gap = top(jnp.minimum(ratio(lam, jnp.maximum(top(lam), push)), ratio(s, size)))
        miss = ratio(jnp.maximum(top(rp), top(rs)), reach)
        return jnp.where(cost > 0, jnp.maximum(jnp.maximum(ratio(top(rd), push), miss), gap), miss)

    def proof(self, v: tuple, cost: Array) -> Array:
        """What the point or its multipliers prove."""
        return _proof(cost * self.P, cost * self.q, self.E, self.e, self.F, self.h, v)


def interior(P: Array, q: Array, A: Array, b: Array, zero: int, start: Any = None) -> tuple:
    """`x, s, z`, how it ended, and the steps taken; the data of unit size."""
    E, e, F, h = A[:zero], b[:zero], A[zero:], b[zero:]
    n, k, m = q.size, zero, h.size
    dtype = q.dtype
    unit = float(jnp.finfo(dtype).eps)
    ridge = unit**0.8 * jnp.maximum(1.0, jnp.max(jnp.abs(P), initial=0.0))
    goal = unit**0.6  # the polish does the rest
    # Without a right-hand side all slacks may be 0 together; the data are of unit size.
    least = jnp.where(jnp.any(b != 0), 0.0, 1.0).astype(dtype)
    base = E.T @ E + ridge * jnp.eye(n, dtype=dtype)
    program = _Program(P, q, E, e, F, h, least, ridge, base)

    ones = jnp.ones(m, dtype)
    cold = (jnp.zeros(n, dtype), jnp.zeros(k, dtype), ones, jnp.maximum(h, 1.0))
    v = cold
    if start is not None:
        x, s, z = start
        far = 1e-3
        lift = lambda u: jnp.maximum(u, far)
        v = (x, z[:k], lift(z[k:]), lift(s[k:]))
    start_size = jnp.maximum(1.0, jnp.max(jnp.concatenate([v[2], v[3], jnp.ones(1)])))
    zero_ = jnp.zeros((), jnp.int32)
    unknown = jnp.full((), UNKNOWN, jnp.int32)

    def descend(carry: tuple) -> tuple:
        cost, kept, code, steps, _ = carry
        first = cost > 0
        at = _pick(first, v, cold)
        first_carry = (at, (program.error(at, cost), *at), zero_, zero_, unknown)
        last, best, count, _, proof = jax.lax.while_loop(
            partial(_goes_on, goal, start_size), partial(_iterate, program, cost), first_carry
        )
        last = _pick(proof == UNKNOWN, _balanced(E, F, last), last)
        proof = jnp.where(proof == UNKNOWN, program.proof(last, cost), proof)
        end = _pick(proof != UNKNOWN, last, best[1:])
        counts = first | (proof == INFEASIBLE)  # without the cost no point is best
        kept = _pick(counts, end, kept)
        code = jnp.where(counts, jnp.where(proof != UNKNOWN, proof, SOLVED), code)
        astray = ~(best[0] <= FAR) | _growing(last, start_size)
        doubt = (proof == UNBOUNDED) | (proof == UNKNOWN) & astray
        return jnp.zeros_like(cost), kept, code, steps + count, first & doubt

    carry = (jnp.ones((), dtype), v, unknown, zero_, jnp.ones((), bool))
    _, (x, nu, lam, s), code, count, _ = jax.lax.while_loop(lambda c: c[-1], descend, carry)
    slack = jnp.concatenate([jnp.zeros(k, dtype), s])
    return x, slack, jnp.concatenate([nu, lam]), code, count


def _pick(which: Array, u: tuple, w: tuple) -> tuple:
    return tuple(jnp.where(which, a, b) for a, b in zip(u, w, strict=True))


def _goes_on(goal: float, start_size: Array, carry: tuple) -> Array:
    """Whether another iteration is worth its while."""
    v, best, count, idle, proof = carry
    growing = _growing(v, start_size)
    return (
        (count < MAX_STEPS)
        & (best[0] > goal)
        & ((idle < PATIENCE) | growing & (idle < 4 * PATIENCE))
        & (proof == UNKNOWN)
    )


def _iterate(program: _Program, cost: Array, carry: tuple) -> tuple:
    """One iteration: the step, the best point so far, and what the new one proves."""
    v, best, count, idle, _ = carry
    new, a = _stepped(program, cost, v)
    good = jnp.all(jnp.isfinite(jnp.concatenate(new)))
    new = _pick(good, new, v)
    now = program.error(new, cost)
    better = now < best[0]
    idle = jnp.where(now < 0.5 * best[0], 0, idle + 1)
    record = _pick(better, new, best[1:])
    proof = program.proof(new, cost)
    stop = ~good | (a < 1e-8)
    best = (jnp.minimum(now, best[0]), *record)
    return new, best, count + 1, jnp.where(stop, 10 * PATIENCE, idle), proof


def _stepped(program: _Program, cost: Array, v: tuple) -> tuple[tuple, Array]:
    """The point after a predictor and a corrector, and the step's length."""
    P, _, E, _, F, _, _, ridge, base = program
    x, nu, lam, s = v
    n, m = x.size, s.size
    rd, rp, rs = program.residuals(v, cost)
    mu = jnp.sum(lam * s) / max(m, 1)
    w = lam / s
    back = _factored(cost * P + base + F.T @ (w[:, None] * F), E, ridge)

    def direction(target: Array) -> tuple:
        middle = (target - lam * s) / s + w * rs
        d = back(-jnp.concatenate([rd + F.T @ middle, rp]))
        dx, dnu = d[:n], d[n:]
        ds = -rs - F @ dx
        return dx, dnu, (target - lam * s - lam * ds) / s, ds

    _, _, dlam, ds = direction(jnp.zeros_like(s))
    a = jnp.minimum(_reach(lam, dlam), _reach(s, ds))
    after = jnp.sum((lam + a * dlam) * (s + a * ds)) / max(m, 1)
    sigma = jnp.clip(after / jnp.where(mu > 0, mu, 1.0), 0.0, 1.0) ** 3
    dx, dnu, dlam, ds = direction(sigma * mu - dlam * ds)
    a = jnp.minimum(_reach(lam, dlam), _reach(s, ds))
    a = jnp.minimum(1.0, jnp.maximum(0.99, 1.0 - 10 * mu) * a)
    tiny = jnp.finfo(x.dtype).tiny ** 0.5
    new = (
        x + a * dx,
        nu + a * dnu,
        jnp.maximum(lam + a * dlam, tiny),
        jnp.maximum(s + a * ds, tiny),
    )
    return new, a


def _factored(H: Array, E: Array, ridge: Array) -> Callable[[Array], Array]:
    """Solves `H x + E' y = r, E x = t` with `E' E` added to H and `E' t` to r, which changes no solution:
    H may be singular where only equalities hold a variable."""
    n, k = H.shape[0], E.shape[0]
    whole = jax.scipy.linalg.cho_factor(H)
    if k == 0:
        return lambda r: jax.scipy.linalg.cho_solve(whole, r)
    B = jax.scipy.linalg.cho_solve(whole, E.T)
    inner = jax.scipy.linalg.cho_factor(E @ B + ridge * jnp.eye(k, dtype=H.dtype))

    def back(r: Array) -> Array:
        x = jax.scipy.linalg.cho_solve(whole, r[:n] + E.T @ r[n:])
        y = jax.scipy.linalg.cho_solve(inner, E @ x - r[n:])
        return jnp.concatenate([x - B @ y, y])

    return back


def _balanced(E: Array, F: Array, v: tuple) -> tuple:
    """Multipliers that grew, moved in proportion to their size so that their pulls cancel: a proof that
    is lost in roundoff otherwise, where the steps before it ended."""
    x, nu, lam, s = v
    tiny = jnp.finfo(lam.dtype).tiny
    size = jnp.maximum(jnp.max(jnp.concatenate([jnp.abs(nu), lam]), initial=0.0), tiny)
    nu, lam = nu / size, lam / size
    lam = jnp.where(lam > jnp.finfo(lam.dtype).eps ** 0.4, lam, 0.0)  # those that did not grow
    free = jnp.maximum(jnp.max(jnp.abs(nu), initial=0.0), tiny**0.5) ** 2
    K = free * E.T @ E + F.T @ (lam[:, None] ** 2 * F)
    ridge = jnp.finfo(lam.dtype).eps * jnp.trace(K) + tiny
    y = jax.scipy.linalg.cho_solve(
        jax.scipy.linalg.cho_factor(K + ridge * jnp.eye(x.size, dtype=x.dtype)),
        E.T @ nu + F.T @ lam,
    )
    moved = nu - free * (E @ y), jnp.maximum(lam - lam**2 * (F @ y), 0.0)
    good = jnp.all(jnp.isfinite(jnp.concatenate(moved)))
    nu, lam = (jnp.where(good, u, w) for u, w in zip(moved, (nu, lam), strict=True))
    return x, nu, lam, s


def _growing(v: tuple, size: Array) -> Array:
    """Multipliers or the point run away: give a proof the time to come out."""
    top = jnp.max(jnp.abs(jnp.concatenate([*v, jnp.zeros(1)])))
    return top > 1e3 * size


def _reach(v: Array, dv: Array) -> Array:
    """The largest step, at most 1, that keeps `v` positive."""
    ratio_ = jnp.where(dv < 0, -v / jnp.where(dv < 0, dv, -1.0), jnp.inf)
    return jnp.minimum(1.0, jnp.min(ratio_, initial=jnp.inf))


def _proof(P: Array, q: Array, E: Array, e: Array, F: Array, h: Array, v: tuple) -> Array:
    """Whether the multipliers prove that no point is feasible, or the point that none is best."""
    x, nu, lam, _ = v
    near = 1e-8 if q.dtype == jnp.float64 else 1e-4
    top = lambda u: jnp.max(jnp.abs(u), initial=0.0)
    pull = E.T @ nu + F.T @ lam
    size = jnp.abs(E).T @ jnp.abs(nu) + jnp.abs(F).T @ lam
    value = e @ nu + h @ lam
    weight = jnp.abs(e) @ jnp.abs(nu) + jnp.abs(h) @ lam
    # A row without variables needs no balance: there the rest of the multipliers is noise.
    bare = top(pull) * jnp.maximum(1.0, top(x)) <= -near * value
    balanced = (top(pull) <= near * top(size)) | bare
    infeasible = balanced & (value < -1e-3 * weight) & (value < 0)
    # The push of what is not a proof is small against the value it would have to move.
    infeasible &= top(pull) * 1e3 * jnp.maximum(1.0, top(x)) < -value
    reach = jnp.abs(x)
    scale = jnp.maximum(top(jnp.abs(F) @ reach), top(jnp.abs(E) @ reach))
    level = (top(P @ x) <= near * top(jnp.abs(P) @ reach)) & (top(E @ x) <= near * scale)
    level &= jnp.max(F @ x, initial=0.0) <= near * scale
    gain = q @ x
    unbounded = level & (gain < -1e-3 * (jnp.abs(q) @ reach)) & (gain < 0) & (top(x) > 1e6)
    return jnp.where(infeasible, INFEASIBLE, jnp.where(unbounded, UNBOUNDED, UNKNOWN)).astype(
        jnp.int32
    )
