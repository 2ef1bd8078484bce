r"""A solver's answer brought to roundoff: Newton's steps on the faces that the answer shows.

    P dx + A' dz = -(P x + q + A' z)        A dx + ds = -(A x + s - b)

The faces, and what is left out of the system, are read once from the solver's answer. The step in a
curved cone goes along its curve. The best pair by all three measures is kept, the answer itself included.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from hjcontrol.layers.conic.cones import Cones, Either, Layout, namespace
from hjcontrol.layers.conic.graded import Dropped, dropped, solved, system
from hjcontrol.layers.conic.measures import Measures, centre, measures, roughness
from hjcontrol.layers.conic.splitting import across, along, classify, directions, moved, snap

STEPS, PATIENCE = 25, 5
STRAIGHT = 2  # patience where nothing is curved: one step arrives, others take off its roundoff
WEAK = 1e-8  # a multiplier below this share of the forces holds nothing


class Polished(NamedTuple):
    """The pair, the faces it lies on, what the system leaves out, and its worst measure."""

    x: Float[Either, " n"]
    s: Float[Either, " m"]
    z: Float[Either, " m"]
    state: Int[Either, " m"]
    out: Dropped
    worst: Float[Either, ""]


def polished(
    P: Either, q: Either, A: Either, b: Either, cones: Cones | Layout, raw: tuple
) -> Polished:
    """`raw` is a solver's `x, s, z`; arrays of NumPy, or of JAX under any transformation."""
    xp = namespace(q)
    unit = float(np.finfo(q.dtype).eps)
    x0, nu0 = centre(q, A, b, cones)
    near_q, near_b = q + A.T @ nu0 + P @ x0, b - A @ x0

    rough = lambda x, z: roughness(P, q, A, b, x, z, x0, nu0)

    def judge(x: Either, s: Either, z: Either) -> Measures:
        return measures(P, near_q, A, near_b, cones, x - x0, s, z - nu0, rough(x, z))

    first = judge(*raw)
    strength = xp.max(abs(A), axis=1, initial=0.0)
    forced = (xp.max(abs(q), initial=0.0) > 0) | (xp.max(abs(P), initial=0.0) > 0)
    least = xp.maximum(WEAK * first.D, rough(raw[0], raw[2])[1])  # less than this is no force
    weak = xp.max(least, initial=0.0) / xp.where(strength > 0, strength, 1.0)
    Z = xp.where(forced, xp.maximum(first.Z, weak), 1e8)  # without force, nothing is held
    # Noise sets no scale of its own. Where b is 0 an optimum of 0 has none, and the data's unit is 1.
    held = xp.max(abs(b), initial=0.0) > 0
    largest = xp.maximum(
        xp.max(first.S, initial=0.0), xp.where(held, 0.0, xp.max(strength, initial=0.0))
    )
    S = xp.maximum(first.S, WEAK * largest)
    state = classify(cones, raw[1], raw[2], S, Z)
    snapped = (raw[0], *(v.astype(q.dtype) for v in snap(cones, state, raw[1], raw[2], S, Z)))
    out = dropped(P, A, cones, directions(cones, state, *snapped[1:]))
    refine = lambda v: newton(P, q, A, b, cones, state, out, v)
    worst = _number(first.worst)
    patience, goal = (STRAIGHT, 4 * unit) if cones.straight else (PATIENCE, unit)
    if xp is np:
        best = _loop(judge, refine, raw, snapped, worst, goal, patience)
        return Polished(best[1], best[2], best[3], state, out, best[0])

    def step(carry: tuple) -> tuple:
        v, best, idle, count = carry
        v = refine(v)
        best, idle = _kept(best, v, judge(*v).worst, idle)
        return v, best, idle, count + 1

    def more(carry: tuple) -> Either:
        _, best, idle, count = carry
        return (count < STEPS) & (best[0] > goal) & (idle < patience)

    count = xp.zeros((), np.int32)
    best, _ = _kept((worst, *raw), snapped, judge(*snapped).worst, count)
    _, best, _, _ = jax.lax.while_loop(more, step, (snapped, best, count, count))
    return Polished(best[1], best[2], best[3], state, out, best[0])


def newton(
    P: Either,
    q: Either,
    A: Either,
    b: Either,
    cones: Cones | Layout,
    state: Either,
    out: Dropped,
    v: tuple,
) -> tuple:
    """One step, back on the faces."""
    x, s, z = v
    xp, n = namespace(q), q.size
    local = directions(cones, state, s, z)
    K = system(P, A, cones, local, out)
    rd, rp = P @ x + q + A.T @ z, A @ x + s - b
    w = solved(K, -xp.concatenate([rd, along(cones, local, rp)]))
    dx, g = w[:n], w[n:]
    gamma = xp.sqrt(local.sigma) * g
    ds = -rp - A @ dx
    new = moved(cones, state, s, z, ds, across(cones, local, g), gamma)
    # What cancels to roundoff is 0 until the next step says more: at the apex of a cone nothing else
    # would tell an entry from its own noise.
    gone = abs(x + dx) <= np.finfo(x.dtype).eps ** 0.75 * abs(x)
    exact = _from_single_rows(A, b, cones, xp.where(gone, 0.0, x + dx), new[0])
    return exact, *(v.astype(x.dtype) for v in new)


def _loop(
    judge: Callable,
    refine: Callable,
    raw: tuple,
    v: tuple,
    worst: Either,
    goal: float,
    patience: int,
) -> tuple:
    """The same loop in NumPy."""
    best, idle = _kept((worst, *raw), v, judge(*v).worst, 0)[0], 0
    for _ in range(STEPS):
        if not (best[0] > goal and idle < patience and np.all(np.isfinite(v[0]))):
            break
        v = refine(v)
        best, idle = _kept(best, v, judge(*v).worst, idle)
    return best


def _number(v: Either) -> Either:
    xp = namespace(v)
    return xp.where(xp.isnan(v), np.inf, v)


def _kept(best: tuple, new: tuple, worst: Either, idle: Either) -> tuple[tuple, Either]:
    xp = namespace(worst)
    worst = _number(worst)
    better = worst < best[0]
    idle = xp.where(worst < 0.5 * best[0], 0, idle + 1)
    return tuple(xp.where(better, u, v) for u, v in zip((worst, *new), best, strict=True)), idle


def _from_single_rows(A: Either, b: Either, cones: Cones | Layout, x: Either, s: Either) -> Either:
    """`x_j = -s_i / A_ij` from rows `A_ij x_j + s_i = 0` of an exponential or power cone or of an active
    bound: there s has every digit, where x was found as a difference."""
    xp = namespace(x)
    every = lambda u: xp.ones(u.shape, bool)
    full = {"exp": every, "power": every, "nonneg": lambda u: u == 0}
    none = lambda u: xp.zeros(u.shape, bool)
    blocks = zip(cones.groups(), cones.cut(s), strict=True)
    exact = cones.join([full.get(kind, none)(u) for (kind, _, _), u in blocks])
    if exact.size == 0:
        return x
    single = exact & (xp.sum(A != 0, axis=1) == 1) & (b == 0)
    picks = single[:, None] & (A != 0)
    value = xp.where(picks, -s[:, None] / xp.where(picks, A, 1.0), 0.0)
    row = xp.argmax(picks, axis=0)  # one row a column is enough
    found = xp.take_along_axis(value, row[None], axis=0)[0]
    return xp.where(xp.any(picks, axis=0), found, x)
