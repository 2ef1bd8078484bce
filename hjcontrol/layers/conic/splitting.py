r"""A strictly complementary pair splits each cone into directions c, each with a pair (sigma, tau):

    sigma c.ds + tau gamma = 0,      dz = sum c gamma

(1, 0) holds s along c (an active row, a normal), (0, 1) holds z (a slack row, the ray of s), and both
nonzero is curvature: s0/z0 across a second-order cone, lambda_i/mu_j between range and null space of a
matrix, a e^-r / b along the exponential's curve s = a (r, 1, e^r), z = b (-e^r, -(1-r) e^r, 1); the
power cone's curve is in `power`.
Of the exponential cone r, log a and log b are what is kept: a probability of 1e-251 has all its digits.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hjcontrol.layers.conic import power
from hjcontrol.layers.conic.cones import (
    Cones,
    Either,
    Layout,
    matrix,
    namespace,
    spectrum,
    triangle,
    vector,
)
from hjcontrol.layers.conic.power import CURVED, FREE, PINNED  # s = 0: pinned; z = 0: free


class Local(NamedTuple):
    """Directions of all rows: `C = sqrt(sigma) c A`, and what turns steps into their coordinates."""

    c: tuple[Float[Either, "k d d"], ...]  # by group: direction, coordinate
    sigma: Float[Either, " m"]
    tau: Float[Either, " m"]


def classify(
    cones: Cones | Layout, s: Either, z: Either, S: Either, Z: Either
) -> Int[Either, " m"]:
    """The state of every block, repeated along its rows; of a PSD block the rank of `s`."""
    xp = namespace(s)
    state = []
    us, vs = cones.cut(s / _positive(S)), cones.cut(z / _positive(Z))
    for (kind, p, rows), u, v in zip(cones.groups(), us, vs, strict=True):
        if kind == "zero":
            found = xp.full(rows.shape[0], PINNED)
        elif kind == "nonneg":
            found = xp.where(v[:, 0] > xp.maximum(u[:, 0], 1e-12), PINNED, FREE)
        elif kind == "soc":
            r, w = xp.linalg.norm(u[:, 1:], axis=1), xp.linalg.norm(v[:, 1:], axis=1)
            pinned = v[:, 0] - w > u[:, 0] + r
            free = u[:, 0] - r > v[:, 0] + w
            found = xp.where(pinned, PINNED, xp.where(free, FREE, CURVED))
        elif kind == "psd":
            values = xp.linalg.eigvalsh(matrix(u - v, p))
            found = xp.sum(values > 0, axis=1)
        elif kind == "power":
            found = power.state(u, v, p)
        else:
            low = 1e-5
            large = lambda w: xp.max(xp.abs(w), axis=1)
            x, y, w = u[:, 0], u[:, 1], u[:, 2]
            inner = (y > low) & (w > low)
            gap = xp.where(inner, y * xp.log(xp.where(inner, w / y, 1.0)) - x, 0.0)
            pinned = large(u) < low * xp.minimum(1.0, large(v))
            free = (large(v) < low * xp.minimum(1.0, large(u))) & (gap > low)
            found = xp.where(pinned, PINNED, xp.where(free, FREE, CURVED))
        state.append(xp.broadcast_to(found.astype(np.int32)[:, None], rows.shape))
    return cones.join(state).astype(np.int32)


def snap(
    cones: Cones | Layout, state: Either, s: Either, z: Either, S: Either, Z: Either
) -> tuple[Either, Either]:
    """The pair put on the faces that its state names: exact zeros, exact complementarity."""
    xp = namespace(s)
    found = []
    units = zip(cones.cut(_positive(S)), cones.cut(_positive(Z)), strict=True)
    for (kind, p, _), u, v, k, (su, sv) in zip(
        cones.groups(), cones.cut(s), cones.cut(z), cones.cut(state), units, strict=True
    ):
        k = k[:, :1]
        if kind in ("zero", "nonneg", "soc"):
            new = xp.where(k == PINNED, 0.0, u), xp.where(k == FREE, 0.0, v)
            if kind == "soc":
                new = _curved(k, *new)
        elif kind == "psd":
            new = _split_pair(u, v, k[:, 0], p)
        elif kind == "power":
            new = power.on_face(k, (u, v), (su, sv), p)
        else:
            r, a, b = _read_exp(u / su, v / sv, u, v)
            on = _write_exp(r, a, b)
            new = (
                xp.where(k == CURVED, on[0], xp.where(k == PINNED, 0.0, u)),
                xp.where(k == CURVED, on[1], xp.where(k == FREE, 0.0, v)),
            )
        found.append(new)
    return cones.join([new[0] for new in found]), cones.join([new[1] for new in found])


def directions(cones: Cones | Layout, state: Either, s: Either, z: Either) -> Local:
    """The directions at a pair that lies on its faces."""
    xp = namespace(s)
    bases, sigmas, taus = [], [], []
    for (kind, p, rows), u, v, k in zip(
        cones.groups(), cones.cut(s), cones.cut(z), cones.cut(state), strict=True
    ):
        k, d = k[:, 0], rows.shape[1]
        u, v = _calm(kind, p, k, u, v)
        if kind in ("zero", "nonneg"):
            c = xp.ones((rows.shape[0], 1, 1), s.dtype)
            one, two = xp.ones_like(u), xp.zeros_like(u)
        elif kind == "soc":
            c, one, two = _soc(u, v)
        elif kind == "psd":
            c, one, two = _psd(u, v, k, p)
        elif kind == "power":
            c, one, two = power.directions(k, u, v, p)
        else:
            c, one, two = _exp(u, v)
        if kind != "psd":
            held, let = (k == PINNED)[:, None], (k == FREE)[:, None]
            if kind != "zero":
                eye = xp.broadcast_to(xp.eye(d, dtype=s.dtype), c.shape)
                c = xp.where((held | let)[:, :, None], eye, c)
            one = xp.where(held, 1.0, xp.where(let, 0.0, one))
            two = xp.where(held, 0.0, xp.where(let, 1.0, two))
        larger = xp.maximum(one, two)
        bases.append(c)
        sigmas.append(one / larger)
        taus.append(two / larger)
    return Local(tuple(bases), cones.join(sigmas), cones.join(taus))


def along(cones: Cones | Layout, local: Local, v: Either) -> Either:
    """`sqrt(sigma) c v`: coordinates of a vector of rows, or of each column of a matrix of rows."""
    xp = namespace(v)
    if v.shape[0] == 0:
        return v
    out = cones.join(
        [xp.einsum("kld,kd...->kl...", c, u) for c, u in zip(local.c, cones.cut(v), strict=True)]
    )
    root = _root(local.sigma)
    return out * (root[:, None] if v.ndim == 2 else root)


def across(cones: Cones | Layout, local: Local, g: Either) -> Either:
    """`sum c sqrt(sigma) g`: the step of z whose coordinates are `g`."""
    xp = namespace(g)
    blocks = zip(local.c, cones.cut(_root(local.sigma) * g), strict=True)
    return cones.join([xp.einsum("kld,kl->kd", c, u) for c, u in blocks])


def moved(
    cones: Cones | Layout,
    state: Either,
    s: Either,
    z: Either,
    ds: Either,
    dz: Either,
    gamma: Either,
) -> tuple[Either, Either]:
    """The pair after a step, back on its faces. `gamma` holds the coordinates of `dz`."""
    xp = namespace(s)
    found = []
    for (kind, p, _), u, v, k, du, dv, g in zip(
        cones.groups(), *map(cones.cut, (s, z, state, ds, dz, gamma)), strict=True
    ):
        k = k[:, :1]
        if kind == "exp":
            a, b, r = u[:, 1], v[:, 2], u[:, 0] / _nonzero(u[:, 1])
            dr = -g[:, 1] * xp.exp(-r) / _nonzero(b)
            db = g[:, 0] * _normal_factor(r) / _nonzero(b)
            entry = xp.argmax(xp.abs(u), axis=1)
            options = xp.stack(
                [
                    (du[:, 0] / _nonzero(a) - dr) / _nonzero(r),
                    du[:, 1] / _nonzero(a),
                    du[:, 2] / _nonzero(u[:, 2]) - dr,
                ],
                axis=1,
            )
            da = xp.take_along_axis(options, entry[:, None], axis=1)[:, 0]
            clip = lambda t: xp.clip(t, -3.0, 3.0)
            on = _write_exp(r + clip(dr), a * xp.exp(clip(da)), b * xp.exp(clip(db)))
            new = (
                xp.where(k == CURVED, on[0], xp.where(k == PINNED, 0.0, u + du)),
                xp.where(k == CURVED, on[1], xp.where(k == FREE, 0.0, v + dv)),
            )
        elif kind == "power":
            new = power.stepped(k, (u, v), (du, dv), g, p)
        elif kind == "psd":
            new = _split_pair(u + du, v + dv, k[:, 0], p)
        else:
            new = (
                xp.where(k == PINNED, 0.0, u + du),
                xp.where(k == FREE, 0.0, v + dv),
            )
            if kind == "soc":
                new = _curved(k, *new)
        found.append(new)
    return cones.join([new[0] for new in found]), cones.join([new[1] for new in found])


def _root(v: Either) -> Either:
    """The square root, with the derivative 0 at 0: a sigma of 0 stays 0 along its face."""
    xp = namespace(v)
    return xp.where(v > 0, xp.sqrt(_positive(v)), 0.0)


def _calm(kind: str, p: Any, k: Either, u: Either, v: Either) -> tuple[Either, Either]:
    """The pair, and where no curve is, a fixed one: its directions are not used, and at the apex they
    have no derivative."""
    xp = namespace(v)
    if kind == "psd":
        on = (k > 0) & (k < p)
        plain = vector(np.diag(np.arange(1.0, p + 1)))
        pair = plain, -plain
    elif kind == "soc" and u.shape[1] > 1:
        on, e = k == CURVED, np.eye(2, u.shape[1])
        pair = e[0] + e[1], e[0] - e[1]
    elif kind == "exp":
        on, pair = k == CURVED, (np.array([0.0, 1.0, 1.0]), np.array([-1.0, -1.0, 1.0]))
    else:
        return u, v
    steady = (w.astype(u.dtype)[None] for w in pair)
    on = on[:, None]
    return tuple(xp.where(on, w, fixed) for w, fixed in zip((u, v), steady, strict=True))


def _positive(v: Either) -> Either:
    xp = namespace(v)
    return xp.where(v > 0, v, 1.0)


def _nonzero(v: Either) -> Either:
    xp = namespace(v)
    return xp.where(v == 0, 1.0, v)


# ------------------------------------------------------------------- second order


def _split_soc(w: Either) -> tuple[Either, Either]:
    """Moreau: `w = plus - minus`, both in the cone and orthogonal; `w` lies between the two."""
    xp = namespace(w)
    length = xp.linalg.norm(w[:, 1:], axis=1, keepdims=True)
    unit = w[:, 1:] / _positive(length)
    up, low = (w[:, :1] + length) / 2, (length - w[:, :1]) / 2
    one = xp.ones_like(up)
    return up * xp.concatenate([one, unit], 1), low * xp.concatenate([one, -unit], 1)


def _curved(k: Either, u: Either, v: Either) -> tuple[Either, Either]:
    xp = namespace(v)
    length = lambda w: xp.linalg.norm(w, axis=1, keepdims=True)
    rho = length(u) / _positive(length(v))
    rho = xp.where(rho > 0, rho, 1.0)
    plus, minus = _split_soc(u - rho * v)
    return xp.where(k == CURVED, plus, u), xp.where(k == CURVED, minus / rho, v)


def _soc(u: Either, v: Either) -> tuple[Either, Either, Either]:
    xp = namespace(v)
    k, d = u.shape
    zero = xp.zeros((k, 1), u.dtype)
    if d == 1:
        return xp.ones((k, 1, 1), u.dtype), 1.0 + zero, zero
    length = xp.linalg.norm(u[:, 1:], axis=1, keepdims=True)
    first = xp.zeros((k, d - 1), u.dtype) + np.eye(1, d - 1, dtype=u.dtype)
    unit = xp.where(length > 0, u[:, 1:] / _positive(length), first)
    sign = xp.where(unit[:, :1] >= 0, 1.0, -1.0)
    w = unit + sign * first
    w = w / xp.linalg.norm(w, axis=1, keepdims=True)
    mirror = xp.eye(d - 1, dtype=u.dtype)[None] - 2 * w[:, :, None] * w[:, None, :]
    half = float(np.sqrt(0.5))
    normal = half * xp.concatenate([1.0 + zero, -unit], axis=1)
    ray = half * xp.concatenate([1.0 + zero, unit], axis=1)
    across_ = xp.concatenate([xp.zeros((k, d - 2, 1), u.dtype), mirror[:, 1:, :]], axis=2)
    c = xp.concatenate([normal[:, None], ray[:, None], across_], axis=1)
    bend = xp.broadcast_to(xp.abs(u[:, :1]) / _positive(xp.abs(v[:, :1])), (k, d - 2))
    one = xp.concatenate([1.0 + zero, zero, xp.ones((k, d - 2), u.dtype)], axis=1)
    two = xp.concatenate([zero, 1.0 + zero, bend], axis=1)
    return c, one, two


# ------------------------------------------------------------------- semidefinite


def _split_pair(u: Either, v: Either, rank: Either, p: int) -> tuple[Either, Either]:
    xp = namespace(v)
    length = lambda w: xp.linalg.norm(w, axis=1, keepdims=True)
    full, none = (rank == p)[:, None], (rank == 0)[:, None]
    rho = length(u) / _positive(length(v))
    rho = xp.where(rho > 0, rho, 1.0)
    values, vectors = xp.linalg.eigh(matrix(u - rho * v, p))
    kept = xp.arange(p)[None] >= p - rank[:, None]
    join = lambda e: vector(xp.einsum("kij,kj,klj->kil", vectors, e, vectors))
    plus = join(xp.where(kept, xp.maximum(values, 0.0), 0.0))
    minus = join(xp.where(kept, 0.0, xp.maximum(-values, 0.0)))
    plus, minus = xp.where(full, u, plus), xp.where(none, v, minus / rho)
    return xp.where(none, 0.0, plus), xp.where(full, 0.0, minus)


def _psd(u: Either, v: Either, rank: Either, p: int) -> tuple[Either, Either, Either]:
    xp = namespace(v)
    length = lambda w: xp.linalg.norm(w, axis=1, keepdims=True)
    rho = length(u) / _positive(length(v))
    rho = xp.where(rho > 0, rho, 1.0)
    values, Q = (np.linalg.eigh if xp is np else spectrum)(matrix(u - rho * v, p))
    i, j, factor = triangle(p)
    left, right = xp.swapaxes(Q[:, :, i], 1, 2), xp.swapaxes(Q[:, :, j], 1, 2)
    outer = left[:, :, :, None] * right[:, :, None, :]
    c = vector((outer + xp.swapaxes(outer, 2, 3)) / 2) * factor.astype(u.dtype)[None, :, None]
    ranged = xp.arange(p)[None] >= p - rank[:, None]
    a, b = ranged[:, i], ranged[:, j]
    size = xp.abs(values)
    lam = xp.where(a, size[:, i], size[:, j])
    mu = xp.where(a, size[:, j], size[:, i]) / rho
    both, neither = a & b, ~a & ~b
    one = xp.where(both, 0.0, 1.0)
    two = xp.where(both, 1.0, xp.where(neither, 0.0, lam / _positive(mu)))
    return c, one, two


# ------------------------------------------------------------------- exponential


def _read_exp(us: Either, vs: Either, u: Either, v: Either) -> tuple[Either, Either, Either]:
    """`r, a, b` of a pair near the curve; `us`, `vs` in units of their scales."""
    xp = namespace(v)
    tiny = float(np.finfo(u.dtype).tiny)
    dual = (-vs[:, 0] >= us[:, 1]) & (v[:, 0] < 0)
    r = xp.where(
        dual, 1.0 - v[:, 1] / xp.where(v[:, 0] < 0, v[:, 0], -1.0), u[:, 0] / _positive(u[:, 1])
    )
    cap = 700.0 if u.dtype == np.float64 else 80.0
    r = xp.clip(r, -cap, cap)
    a = xp.where(us[:, 1] >= us[:, 2], u[:, 1], u[:, 2] * xp.exp(-r))
    b = xp.where(vs[:, 2] >= -vs[:, 0], v[:, 2], -v[:, 0] * xp.exp(-r))
    return r, xp.maximum(a, tiny), xp.maximum(b, tiny)


def _write_exp(r: Either, a: Either, b: Either) -> tuple[Either, Either]:
    xp = namespace(r)
    e = xp.exp(r)
    return (
        a[:, None] * xp.stack([r, xp.ones_like(r), e], axis=1),
        b[:, None] * xp.stack([-e, -(1 - r) * e, xp.ones_like(r)], axis=1),
    )


def _normal_factor(r: Either) -> Either:
    """The normal is the dual ray divided by its largest entry."""
    xp = namespace(r)
    return 1.0 / xp.maximum(1.0, xp.exp(r) * xp.maximum(1.0, xp.abs(1 - r)))


def _exp(u: Either, v: Either) -> tuple[Either, Either, Either]:
    xp = namespace(v)
    a, b = _positive(u[:, 1]), _positive(v[:, 2])
    r = u[:, 0] / a
    e, one, zero = xp.exp(r), xp.ones_like(r), xp.zeros_like(r)
    normal = _normal_factor(r)[:, None] * xp.stack([-e, -(1 - r) * e, one], axis=1)
    bent = xp.stack([one, -r, zero], axis=1)
    ray = xp.stack([r, one, e], axis=1)
    ray = ray / xp.max(xp.abs(ray), axis=1, keepdims=True)
    c = xp.stack([normal, bent, ray], axis=1)
    return c, xp.stack([one, one, zero], 1), xp.stack([zero, a / (b * e), one], 1)


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
