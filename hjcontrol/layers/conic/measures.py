r"""How far a pair is from optimal, in no unit: unchanged when objective, constraints or variables are
scaled, and when the objective moves by a combination of the equalities.

    S_i = |b_i| + sum_j |A_ij| X_j        D_j = |q_j| + (|P| X)_j + (|A|' |z|)_j
    primal  |A x + s - b|_i / S_i         dual  |P x + q + A' z|_j / D_j
    complementarity  min(s_i/S_i, z_i/Z_i) for inequalities, |s.z| / (S Z) for the other cones, and how
    far s and z lie outside their cones

X_j and Z_i say how large a variable or a multiplier would have to be to matter: at a residual of zero
the variable that bounds it is 0 and every measure without X is noise. 0/0 is 0, and no 1 is added.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hjcontrol.layers.conic import power
from hjcontrol.layers.conic.cones import Cones, Either, Layout, matrix, namespace, vector


class Measures(NamedTuple):
    """Three numbers without unit, the place of the worst of each, and the scales they are taken in."""

    primal: Float[Either, " m"]
    dual: Float[Either, " n"]
    complementarity: Float[Either, " m"]
    S: Float[Either, " m"]  # of each row, the largest of its block
    Z: Float[Either, " m"]
    D: Float[Either, " n"]

    @property
    def worst(self) -> Float[Either, ""]:
        """The largest of all; NaN if one is."""
        xp = namespace(self.dual)
        return xp.max(
            xp.concatenate([self.primal, self.dual, self.complementarity, 0 * self.D[:1]])
        )


def ratio(a: Either, b: Either) -> Either:
    """`a/b`, 0 where both are 0, infinite where only `b` is."""
    xp = namespace(a)
    return xp.where(a == 0, 0.0, xp.abs(a) / xp.where(a == 0, 1.0, b))


def scales(
    P: Either,
    q: Either,
    A: Either,
    b: Either,
    cones: Cones | Layout,
    x: Either,
    z: Either,
    rough: tuple[Either, Either],
) -> tuple[Either, Either, Either, Either]:
    """`S` by row, and `S`, `Z` by block, and `D`. `rough`: what roundoff may be in each row and force,
    which sets no scale."""
    xp = namespace(q)
    size, push = xp.abs(A), xp.abs(z)
    reach = size * xp.abs(x)[None]
    rows = xp.abs(b) + xp.sum(reach, axis=1)
    others = rows[:, None] - reach
    live = (size > 0) & (others > rough[0][:, None])
    free = xp.where(live, others / xp.where(size > 0, size, 1.0), xp.inf)
    free = xp.min(free, axis=0, initial=xp.inf)
    X = xp.maximum(xp.abs(x), xp.where(xp.isfinite(free), free, 0.0))
    S = xp.abs(b) + size @ X
    D = xp.abs(q) + xp.abs(P) @ X + size.T @ _shared(cones, push)
    forces = xp.where(
        (size > 0) & (rough[1] < D)[None], D[None] / xp.where(size > 0, size, 1.0), xp.inf
    )
    forces = xp.min(forces, axis=1, initial=xp.inf)
    Z = xp.maximum(push, xp.where(xp.isfinite(forces), forces, 0.0))
    # A column that no force holds has roundoff for its forces, which is no unit: there a force counts
    # by what it would do along the column's reach.
    whole = xp.sum(X * D) / xp.where(X > 0, X, xp.inf)
    D = xp.where(rough[1] >= D, xp.maximum(D, whole), D)
    return S, _wide(cones, S), _wide(cones, Z), D


def _wide(cones: Cones | Layout, v: Either) -> Either:
    """Each entry replaced by the largest of its block."""
    xp = namespace(v)
    largest = lambda u: xp.broadcast_to(xp.max(u, axis=1, keepdims=True), u.shape)
    return cones.join([largest(u) for u in cones.cut(v)])


def _shared(cones: Cones | Layout, v: Either) -> Either:
    """The same where a rotation mixes the entries; an exponential cone's have units of their own."""
    blocks = zip(cones.groups(), cones.cut(v), cones.cut(_wide(cones, v)), strict=True)
    return cones.join([w if kind in ("soc", "psd") else u for (kind, _, _), u, w in blocks])


def violation(kind: str, p: Any, v: Float[Either, "k d"], dual: bool) -> Float[Either, " k"]:
    """How far each block lies outside its cone (its dual cone): 0 inside, in the units of the block."""
    xp = namespace(v)
    if kind == "zero":
        return xp.zeros(v.shape[0], v.dtype) if dual else xp.abs(v[:, 0])
    if kind == "nonneg":
        return xp.maximum(-v[:, 0], 0.0)
    if kind == "soc":
        return xp.maximum(xp.linalg.norm(v[:, 1:], axis=1) - v[:, 0], 0.0)
    if kind == "psd":
        return xp.maximum(-xp.linalg.eigvalsh(matrix(v, p))[:, 0], 0.0)
    if kind == "power":
        return power.outside(v, p, dual)
    x, y, z = v[:, 0], v[:, 1], v[:, 2]
    if dual:  # u <= 0 and -u exp(v/u - 1) <= w; at u = 0: v, w >= 0
        inside = x < 0
        u = xp.where(inside, x, -1.0)
        curved = xp.maximum(-u * xp.exp(xp.minimum(y / u - 1.0, 700.0)) - z, 0.0)
        # where the exponential is steep, v is what is off: v >= u (1 + log(w / -u))
        w = xp.where(z > 0, z, 1.0)
        along = xp.where(z > 0, xp.maximum(u * (1.0 + xp.log(w) - xp.log(-u)) - y, 0.0), xp.inf)
        flat = xp.maximum(xp.maximum(x, 0.0), xp.maximum(xp.maximum(-y, 0.0), -z))
        return xp.where(inside, xp.minimum(curved, along), flat)
    inside = y > 0
    safe = xp.where(inside, y, 1.0)
    curved = xp.maximum(safe * xp.exp(xp.minimum(x / safe, 700.0)) - z, 0.0)
    w = xp.where(z > 0, z, 1.0)
    along = xp.where(z > 0, xp.maximum(x - safe * (xp.log(w) - xp.log(safe)), 0.0), xp.inf)
    flat = xp.maximum(xp.maximum(x, 0.0), xp.maximum(-y, -z))
    return xp.where(inside, xp.minimum(curved, along), xp.maximum(flat, 0.0))


def missed(off: Either, S: Either, rough: Either) -> Either:
    """How far each row is from met, in its unit. A row all of whose terms are roundoff of the data, as
    where the centre is the optimum, has no unit: it is met where what is left is that roundoff too."""
    xp = namespace(off)
    return xp.where((rough >= S) & (xp.abs(off) <= 1e-2 * rough), 0.0, ratio(off, S))


def apart(kind: str, p: Any, s: Float[Either, "k d"], z: Float[Either, "k d"]) -> Either:
    """How far each pair is from complementary, to first order, in units of `s` times units of `z`.

    Along a curved cone `s.z` is of second order: a point 1e-5 beside the optimum has an `s.z` of 1e-10.
    The slope of `s.z` along the cone is of first order: Jordan's product for the symmetric cones, and for
    the others the derivative along their curve at `s`, `a (1, 0, e^r)` and
    `a (e^r, 0, alpha e^(alpha r))`.
    """
    xp = namespace(s)
    inner = xp.abs(xp.sum(s * z, axis=1))
    if kind == "soc":
        slope = s[:, :1] * z[:, 1:] + z[:, :1] * s[:, 1:]
    elif kind == "psd":
        S, Z = matrix(s, p), matrix(z, p)
        slope = vector(S @ Z + Z @ S)
    elif kind == "power":
        slope = s[:, :1] * z[:, :1] + p * s[:, 2:] * z[:, 2:]
    else:
        slope = s[:, 1:2] * z[:, :1] + s[:, 2:] * z[:, 2:]
    return xp.maximum(inner, xp.max(xp.abs(slope), axis=1, initial=0.0))


def measures(
    P: Either,
    q: Either,
    A: Either,
    b: Either,
    cones: Cones | Layout,
    x: Float[Either, " n"],
    s: Float[Either, " m"],
    z: Float[Either, " m"],
    rough: tuple[Either, Either],
) -> Measures:
    """The measures of one pair; the data centred (`centre`) by the caller."""
    xp = namespace(s)
    S, Sb, Zb, D = scales(P, q, A, b, cones, x, z, rough)
    primal = missed(A @ x + s - b, _shared(cones, S), rough[0])
    dual = missed(P @ x + q + A.T @ z, D, rough[1])
    slack = []
    for (kind, p, rows), u, v, Su, Zv in zip(
        cones.groups(), *map(cones.cut, (s, z, Sb, Zb)), strict=True
    ):
        Su, Zv = Su[:, 0], Zv[:, 0]
        out = xp.maximum(
            ratio(violation(kind, p, u, False), Su), ratio(violation(kind, p, v, True), Zv)
        )
        if kind == "nonneg":
            both = xp.minimum(ratio(u[:, 0], Su), ratio(v[:, 0], Zv))
        elif kind == "zero":
            both = xp.zeros_like(Su)
        else:
            both = ratio(ratio(xp.sum(u * v, axis=1), Su), Zv)
        worst = xp.maximum(out, both)[:, None]
        slack.append(xp.concatenate([worst] + [0 * worst] * (rows.shape[1] - 1), axis=1))
    slack = cones.join(slack)
    return Measures(primal, dual, slack, Sb, Zb, D)


def centre(q: Either, A: Either, b: Either, cones: Cones | Layout) -> tuple[Either, Either]:
    """`x0` near `A_zero x0 = b_zero`, and multipliers `nu0` that make `q + A_zero' nu0` small.

    From the data alone. Any point serves: it moves the origin, and no answer depends on it.
    """
    xp = namespace(q)
    k, n = cones.zero, q.size
    if k == 0:
        return xp.zeros(n, q.dtype), xp.zeros_like(b)
    E, e = A[:k], b[:k]
    length = xp.linalg.norm(E, axis=1)
    length = xp.where(length > 0, length, 1.0)
    E, e = E / length[:, None], e / length
    gram = E @ E.T + np.asarray(1e-8, q.dtype) * xp.eye(k, dtype=q.dtype)
    back = lambda right: xp.linalg.solve(gram, right)
    x0 = E.T @ back(e)
    x0 = x0 + E.T @ back(e - E @ x0)
    nu0 = back(-E @ q)
    nu0 = nu0 + back(-E @ (q + E.T @ nu0))
    return x0, xp.concatenate([nu0 / length, xp.zeros_like(b[k:])])


def roughness(
    P: Either, q: Either, A: Either, b: Either, x: Either, z: Either, x0: Either, nu0: Either
) -> tuple[Either, Either]:
    """A thousand times the roundoff of each row and each force, before they were centred."""
    xp = namespace(q)
    unit = 1e3 * float(np.finfo(q.dtype).eps)
    far, push = abs(x) + abs(x0), abs(z) + abs(nu0)
    size = abs(A)
    rows = xp.abs(b) + size @ far
    return unit * rows, unit * (abs(q) + abs(P) @ far + size.T @ push)
