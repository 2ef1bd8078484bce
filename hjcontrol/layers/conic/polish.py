r"""A solver's answer brought to roundoff: Newton's steps on the faces that the answer shows.

    P dx + A' dz = -(P x + q + A' z)        A dx + ds = -(A x + s - b)

The faces, and what is left out of the system, are read once from the solver's answer. The step in a
curved cone goes along its curve. The best pair by all three measures is kept, the answer itself included.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hjcontrol.layers.conic.cones import Cones
from hjcontrol.layers.conic.graded import Dropped, dropped, solved, system
from hjcontrol.layers.conic.measures import measures
from hjcontrol.layers.conic.splitting import across, along, classify, directions, moved, snap

STEPS = 25


class Polished(NamedTuple):
    """The pair, the faces it lies on, what the system leaves out, and its worst measure."""

    x: Float[Array, " n"]
    s: Float[Array, " m"]
    z: Float[Array, " m"]
    state: Int[Array, " m"]
    out: Dropped
    worst: Float[Array, ""]
    on_faces: Bool[Array, ""]


def polished(
    P: Array, q: Array, A: Array, b: Array, cones: Cones, x0: Array, raw: tuple
) -> Polished:
    """`raw` is a solver's `x, s, z`; `x0` the centre of the data, for the measures."""
    x, s, z = raw
    n = q.size
    unit = jnp.finfo(q.dtype).eps
    moved_q, moved_b = q + P @ x0, b - A @ x0
    judge = lambda x, s, z: measures(P, moved_q, A, moved_b, cones, x - x0, s, z)
    first = judge(x, s, z)
    S, Z = first.S, first.Z
    state = classify(cones, s, z, S, Z)
    s1, z1 = snap(cones, state, s, z, S, Z)
    out = dropped(P, A, cones, directions(cones, state, s1, z1))

    def step(carry: tuple) -> tuple:
        (x, s, z), best, idle, count = carry
        best, idle = _kept(best, (x, s, z), judge(x, s, z).worst, idle)
        local = directions(cones, state, s, z)
        K = system(P, A, cones, local, out)
        rd, rp = P @ x + q + A.T @ z, A @ x + s - b
        w = solved(K, -jnp.concatenate([rd, along(cones, local, rp)]))
        dx, g = w[:n], w[n:]
        gamma = jnp.sqrt(local.sigma) * g
        ds = -rp - A @ dx
        new = moved(cones, state, s, z, ds, across(cones, local, g), gamma)
        return (_from_single_rows(A, b, cones, x + dx, new[0]), *new), best, idle, count + 1

    def more(carry: tuple) -> Array:
        _, best, idle, count = carry
        return (count < STEPS) & (best[0] > unit) & (idle < 5)

    best = (_number(first.worst), x, s, z, jnp.zeros((), bool))
    count = jnp.zeros((), jnp.int32)
    _, best, _, _ = jax.lax.while_loop(more, step, ((x, s1, z1), best, count, count))
    return Polished(best[1], best[2], best[3], state, out, best[0], best[4])


def _number(v: Array) -> Array:
    return jnp.where(jnp.isnan(v), jnp.inf, v)


def _kept(best: tuple, new: tuple, worst: Array, idle: Array) -> tuple[tuple, Array]:
    worst = _number(worst)
    better = worst < best[0]
    idle = jnp.where(worst < 0.5 * best[0], 0, idle + 1)
    pairs = zip((worst, *new, jnp.ones((), bool)), best, strict=True)
    return tuple(jnp.where(better, u, v) for u, v in pairs), idle


def _from_single_rows(A: Array, b: Array, cones: Cones, x: Array, s: Array) -> Array:
    """`x_j = -s_i / A_ij` from rows `A_ij x_j + s_i = 0` of an exponential cone or of an active bound:
    there s has every digit, where x was found as a difference."""
    n, m = x.size, b.size
    full = {"exp": lambda u: jnp.ones(u.shape, bool), "nonneg": lambda u: u == 0}
    none = lambda u: jnp.zeros(u.shape, bool)
    blocks = zip(cones.groups(), cones.cut(s), strict=True)
    exact = cones.join([full.get(kind, none)(u) for (kind, _, _), u in blocks])
    single = exact & (jnp.sum(A != 0, axis=1) == 1) & (b == 0)
    column = jnp.argmax(A != 0, axis=1)
    pivot = A[jnp.arange(m), column]
    value = -s / jnp.where(single, pivot, 1.0)
    return x.at[jnp.where(single, column, n)].set(value, mode="drop")
