r"""A strictly complementary pair splits each cone into directions c, each with a pair (sigma, tau):

    sigma c.ds + tau gamma = 0,      dz = sum c gamma

(1, 0) holds s along c (an active row, a normal), (0, 1) holds z (a slack row, the ray of s), and both
nonzero is curvature: s0/z0 across a second-order cone, lambda_i/mu_j between range and null space of a
matrix, a e^-r / b along the exponential's curve s = a (r, 1, e^r), z = b (-e^r, -(1-r) e^r, 1).
Of the exponential cone r, log a and log b are what is kept: a probability of 1e-251 has all its digits.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hjcontrol.layers.conic.cones import Cones, matrix, triangle, vector

PINNED, CURVED, FREE = range(3)  # s = 0; both on the boundary; z = 0


class Local(NamedTuple):
    """Directions of all rows: `C = sqrt(sigma) c A`, and what turns steps into their coordinates."""

    c: tuple[Float[Array, "k d d"], ...]  # by group: direction, coordinate
    sigma: Float[Array, " m"]
    tau: Float[Array, " m"]


def classify(cones: Cones, s: Array, z: Array, S: Array, Z: Array) -> Int[Array, " m"]:
    """The state of every block, repeated along its rows; of a PSD block the rank of `s`."""
    state = []
    us, vs = cones.cut(s / _positive(S)), cones.cut(z / _positive(Z))
    for (kind, p, rows), u, v in zip(cones.groups(), us, vs, strict=True):
        if kind == "zero":
            found = jnp.full(rows.shape[0], PINNED)
        elif kind == "nonneg":
            found = jnp.where(v[:, 0] > u[:, 0], PINNED, FREE)
        elif kind == "soc":
            r, w = jnp.linalg.norm(u[:, 1:], axis=1), jnp.linalg.norm(v[:, 1:], axis=1)
            pinned = v[:, 0] - w > u[:, 0] + r
            free = u[:, 0] - r > v[:, 0] + w
            found = jnp.where(pinned, PINNED, jnp.where(free, FREE, CURVED))
        elif kind == "psd":
            values = jnp.linalg.eigvalsh(matrix(u - v, p))
            found = jnp.sum(values > 0, axis=1)
        else:
            low = jnp.asarray(1e-5, s.dtype)
            large = lambda w: jnp.max(jnp.abs(w), axis=1)
            x, y, w = u[:, 0], u[:, 1], u[:, 2]
            inner = (y > low) & (w > low)
            gap = jnp.where(inner, y * jnp.log(jnp.where(inner, w / y, 1.0)) - x, 0.0)
            pinned = large(u) < low * jnp.minimum(1.0, large(v))
            free = (large(v) < low * jnp.minimum(1.0, large(u))) & (gap > low)
            found = jnp.where(pinned, PINNED, jnp.where(free, FREE, CURVED))
        state.append(jnp.broadcast_to(found.astype(jnp.int32)[:, None], rows.shape))
    return cones.join(state).astype(jnp.int32)


def snap(
    cones: Cones, state: Array, s: Array, z: Array, S: Array, Z: Array
) -> tuple[Array, Array]:
    """The pair put on the faces that its state names: exact zeros, exact complementarity."""
    found = []
    units = zip(cones.cut(_positive(S)), cones.cut(_positive(Z)), strict=True)
    for (kind, p, _), u, v, k, (su, sv) in zip(
        cones.groups(), cones.cut(s), cones.cut(z), cones.cut(state), units, strict=True
    ):
        k = k[:, :1]
        if kind in ("zero", "nonneg", "soc"):
            new = jnp.where(k == PINNED, 0.0, u), jnp.where(k == FREE, 0.0, v)
            if kind == "soc":
                new = _curved(k, *new)
        elif kind == "psd":
            new = _split_pair(u, v, k[:, 0], p)
        else:
            r, a, b = _read_exp(u / su, v / sv, u, v)
            on = _write_exp(r, a, b)
            new = (
                jnp.where(k == CURVED, on[0], jnp.where(k == PINNED, 0.0, u)),
                jnp.where(k == CURVED, on[1], jnp.where(k == FREE, 0.0, v)),
            )
        found.append(new)
    return cones.join([new[0] for new in found]), cones.join([new[1] for new in found])


def directions(cones: Cones, state: Array, s: Array, z: Array) -> Local:
    """The directions at a pair that lies on its faces."""
    bases, sigmas, taus = [], [], []
    for (kind, p, rows), u, v, k in zip(
        cones.groups(), cones.cut(s), cones.cut(z), cones.cut(state), strict=True
    ):
        k, d = k[:, 0], rows.shape[1]
        if kind in ("zero", "nonneg"):
            c = jnp.ones((rows.shape[0], 1, 1), s.dtype)
            one, two = jnp.ones_like(u), jnp.zeros_like(u)
        elif kind == "soc":
            c, one, two = _soc(u, v)
        elif kind == "psd":
            c, one, two = _psd(u, v, k, p)
        else:
            c, one, two = _exp(u, v)
        if kind != "psd":
            held, let = (k == PINNED)[:, None], (k == FREE)[:, None]
            if kind != "zero":
                eye = jnp.broadcast_to(jnp.eye(d, dtype=s.dtype), c.shape)
                c = jnp.where((held | let)[:, :, None], eye, c)
            one = jnp.where(held, 1.0, jnp.where(let, 0.0, one))
            two = jnp.where(held, 0.0, jnp.where(let, 1.0, two))
        larger = jnp.maximum(one, two)
        bases.append(c)
        sigmas.append(one / larger)
        taus.append(two / larger)
    return Local(tuple(bases), cones.join(sigmas), cones.join(taus))


def along(cones: Cones, local: Local, v: Array) -> Array:
    """`sqrt(sigma) c v`: coordinates of a vector of rows, or of each column of a matrix of rows."""
    out = cones.join(
        [
            jnp.einsum("kld,kd...->kl...", c, u)
            for c, u in zip(local.c, cones.cut(v), strict=True)
        ]
    )
    root = jnp.sqrt(local.sigma)
    return out * (root[:, None] if v.ndim == 2 else root)


def across(cones: Cones, local: Local, g: Array) -> Array:
    """`sum c sqrt(sigma) g`: the step of z whose coordinates are `g`."""
    g = jnp.sqrt(local.sigma) * g
    blocks = zip(local.c, cones.cut(g), strict=True)
    return cones.join([jnp.einsum("kld,kl->kd", c, u) for c, u in blocks])


def moved(
    cones: Cones,
    state: Array,
    s: Array,
    z: Array,
    ds: Array,
    dz: Array,
    gamma: Array,
) -> tuple[Array, Array]:
    """The pair after a step, back on its faces. `gamma` holds the coordinates of `dz`."""
    found = []
    for (kind, p, _), u, v, k, du, dv, g in zip(
        cones.groups(), *map(cones.cut, (s, z, state, ds, dz, gamma)), strict=True
    ):
        k = k[:, :1]
        if kind == "exp":
            a, b, r = u[:, 1], v[:, 2], u[:, 0] / _nonzero(u[:, 1])
            dr = -g[:, 1] * jnp.exp(-r) / _nonzero(b)
            db = g[:, 0] * _normal_factor(r) / _nonzero(b)
            entry = jnp.argmax(jnp.abs(u), axis=1)
            options = jnp.stack(
                [(du[:, 0] / _nonzero(a) - dr) / _nonzero(r), du[:, 1] / _nonzero(a)]
                + [du[:, 2] / _nonzero(u[:, 2]) - dr],
                axis=1,
            )
            da = jnp.take_along_axis(options, entry[:, None], axis=1)[:, 0]
            clip = lambda t: jnp.clip(t, -3.0, 3.0)
            on = _write_exp(r + clip(dr), a * jnp.exp(clip(da)), b * jnp.exp(clip(db)))
            new = (
                jnp.where(k == CURVED, on[0], jnp.where(k == PINNED, 0.0, u + du)),
                jnp.where(k == CURVED, on[1], jnp.where(k == FREE, 0.0, v + dv)),
            )
        elif kind == "psd":
            new = _split_pair(u + du, v + dv, k[:, 0], p)
        else:
            new = (
                jnp.where(k == PINNED, 0.0, u + du),
                jnp.where(k == FREE, 0.0, v + dv),
            )
            if kind == "soc":
                new = _curved(k, *new)
        found.append(new)
    return cones.join([new[0] for new in found]), cones.join([new[1] for new in found])


def _positive(v: Array) -> Array:
    return jnp.where(v > 0, v, 1.0)


def _nonzero(v: Array) -> Array:
    return jnp.where(v == 0, 1.0, v)


# ------------------------------------------------------------------- second order


def _split_soc(w: Array) -> tuple[Array, Array]:
    """Moreau: `w = plus - minus`, both in the cone and orthogonal; `w` lies between the two."""
    length = jnp.linalg.norm(w[:, 1:], axis=1, keepdims=True)
    unit = w[:, 1:] / _positive(length)
    up, low = (w[:, :1] + length) / 2, (length - w[:, :1]) / 2
    one = jnp.ones_like(up)
    return up * jnp.concatenate([one, unit], 1), low * jnp.concatenate([one, -unit], 1)


def _curved(k: Array, u: Array, v: Array) -> tuple[Array, Array]:
    length = lambda w: jnp.linalg.norm(w, axis=1, keepdims=True)
    rho = length(u) / _positive(length(v))
    rho = jnp.where(rho > 0, rho, 1.0)
    plus, minus = _split_soc(u - rho * v)
    return jnp.where(k == CURVED, plus, u), jnp.where(k == CURVED, minus / rho, v)


def _soc(u: Array, v: Array) -> tuple[Array, Array, Array]:
    k, d = u.shape
    zero = jnp.zeros((k, 1), u.dtype)
    if d == 1:
        return jnp.ones((k, 1, 1), u.dtype), 1.0 + zero, zero
    length = jnp.linalg.norm(u[:, 1:], axis=1, keepdims=True)
    first = jnp.zeros((k, d - 1), u.dtype).at[:, 0].set(1.0)
    unit = jnp.where(length > 0, u[:, 1:] / _positive(length), first)
    sign = jnp.where(unit[:, :1] >= 0, 1.0, -1.0)
    w = unit + sign * first
    w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
    mirror = jnp.eye(d - 1, dtype=u.dtype) - 2 * w[:, :, None] * w[:, None, :]
    half = jnp.sqrt(0.5)
    normal = half * jnp.concatenate([1.0 + zero, -unit], axis=1)
    ray = half * jnp.concatenate([1.0 + zero, unit], axis=1)
    across_ = jnp.concatenate([jnp.zeros((k, d - 2, 1), u.dtype), mirror[:, 1:, :]], axis=2)
    c = jnp.concatenate([normal[:, None], ray[:, None], across_], axis=1)
    bend = jnp.broadcast_to(jnp.abs(u[:, :1]) / _positive(jnp.abs(v[:, :1])), (k, d - 2))
    one = jnp.concatenate([1.0 + zero, zero, jnp.ones((k, d - 2), u.dtype)], axis=1)
    two = jnp.concatenate([zero, 1.0 + zero, bend], axis=1)
    return c, one, two


# ------------------------------------------------------------------- semidefinite


def _split_pair(u: Array, v: Array, rank: Array, p: int) -> tuple[Array, Array]:
    length = lambda w: jnp.linalg.norm(w, axis=1, keepdims=True)
    full, none = (rank == p)[:, None], (rank == 0)[:, None]
    rho = length(u) / _positive(length(v))
    rho = jnp.where(rho > 0, rho, 1.0)
    values, vectors = jnp.linalg.eigh(matrix(u - rho * v, p))
    kept = jnp.arange(p) >= p - rank[:, None]
    join = lambda e: vector(jnp.einsum("kij,kj,klj->kil", vectors, e, vectors))
    plus = join(jnp.where(kept, jnp.maximum(values, 0.0), 0.0))
    minus = join(jnp.where(kept, 0.0, jnp.maximum(-values, 0.0)))
    plus, minus = jnp.where(full, u, plus), jnp.where(none, v, minus / rho)
    return jnp.where(none, 0.0, plus), jnp.where(full, 0.0, minus)


def _psd(u: Array, v: Array, rank: Array, p: int) -> tuple[Array, Array, Array]:
    length = lambda w: jnp.linalg.norm(w, axis=1, keepdims=True)
    rho = length(u) / _positive(length(v))
    rho = jnp.where(rho > 0, rho, 1.0)
    values, Q = jnp.linalg.eigh(matrix(u - rho * v, p))
    i, j, factor = triangle(p)
    left, right = jnp.swapaxes(Q[:, :, i], 1, 2), jnp.swapaxes(Q[:, :, j], 1, 2)
    outer = left[:, :, :, None] * right[:, :, None, :]
    c = vector((outer + jnp.swapaxes(outer, 2, 3)) / 2) * jnp.asarray(factor)[:, None]
    ranged = jnp.arange(p) >= p - rank[:, None]
    a, b = ranged[:, i], ranged[:, j]
    size = jnp.abs(values)
    lam = jnp.where(a, size[:, i], size[:, j])
    mu = jnp.where(a, size[:, j], size[:, i]) / rho
    both, neither = a & b, ~a & ~b
    one = jnp.where(both, 0.0, 1.0)
    two = jnp.where(both, 1.0, jnp.where(neither, 0.0, lam / _positive(mu)))
    return c, one, two


# ------------------------------------------------------------------- exponential


def _read_exp(us: Array, vs: Array, u: Array, v: Array) -> tuple[Array, Array, Array]:
    """`r, a, b` of a pair near the curve; `us`, `vs` in units of their scales."""
    tiny = jnp.asarray(jnp.finfo(u.dtype).tiny, u.dtype)
    dual = (-vs[:, 0] >= us[:, 1]) & (v[:, 0] < 0)
    r = jnp.where(
        dual, 1.0 - v[:, 1] / jnp.where(v[:, 0] < 0, v[:, 0], -1.0), u[:, 0] / _positive(u[:, 1])
    )
    cap = 700.0 if u.dtype == jnp.float64 else 80.0
    r = jnp.clip(r, -cap, cap)
    a = jnp.where(us[:, 1] >= us[:, 2], u[:, 1], u[:, 2] * jnp.exp(-r))
    b = jnp.where(vs[:, 2] >= -vs[:, 0], v[:, 2], -v[:, 0] * jnp.exp(-r))
    return r, jnp.maximum(a, tiny), jnp.maximum(b, tiny)


def _write_exp(r: Array, a: Array, b: Array) -> tuple[Array, Array]:
    e = jnp.exp(r)
    return (
        a[:, None] * jnp.stack([r, jnp.ones_like(r), e], axis=1),
        b[:, None] * jnp.stack([-e, -(1 - r) * e, jnp.ones_like(r)], axis=1),
    )


def _normal_factor(r: Array) -> Array:
    """The normal is the dual ray divided by its largest entry."""
    return 1.0 / jnp.maximum(1.0, jnp.exp(r) * jnp.maximum(1.0, jnp.abs(1 - r)))


def _exp(u: Array, v: Array) -> tuple[Array, Array, Array]:
    a, b = _positive(u[:, 1]), _positive(v[:, 2])
    r = u[:, 0] / a
    e, one, zero = jnp.exp(r), jnp.ones_like(r), jnp.zeros_like(r)
    normal = _normal_factor(r)[:, None] * jnp.stack([-e, -(1 - r) * e, one], axis=1)
    bent = jnp.stack([one, -r, zero], axis=1)
    ray = jnp.stack([r, one, e], axis=1)
    ray = ray / jnp.max(jnp.abs(ray), axis=1, keepdims=True)
    c = jnp.stack([normal, bent, ray], axis=1)
    return c, jnp.stack([one, one, zero], 1), jnp.stack([zero, a / (b * e), one], 1)


__all__ = [
    "CURVED",
    "FREE",
    "PINNED",
    "Local",
    "across",
    "along",
    "classify",
    "directions",
    "moved",
    "snap",
]
