r"""How far a pair is from optimal, in no unit: unchanged when objective, constraints or variables are
scaled, and when the objective moves by a combination of the equalities.

    S_i = |b_i| + sum_j |A_ij| X_j        D_j = |q_j| + (|P| X)_j + (|A|' |z|)_j
    primal  |A x + s - b|_i / S_i         dual  |P x + q + A' z|_j / D_j
    complementarity  min(s_i/S_i, z_i/Z_i) for inequalities, |s.z| / (S Z) for the other cones, and how
    far s and z lie outside their cones

X_j and Z_i say how large a variable or a multiplier would have to be to matter: at a residual of zero
the variable that bounds it is 0 and every measure without X is noise. 0/0 is 0, and no 1 is added.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol.layers.conic.cones import Cones, violation


class Measures(NamedTuple):
    """Three numbers without unit, the place of the worst of each, and the scales they are taken in."""

    primal: Float[Array, " m"]
    dual: Float[Array, " n"]
    complementarity: Float[Array, " m"]
    S: Float[Array, " m"]  # of each row, the largest of its block
    Z: Float[Array, " m"]
    D: Float[Array, " n"]

    @property
    def worst(self) -> Float[Array, ""]:
        """The largest of all; NaN if one is."""
        return jnp.max(
            jnp.concatenate([self.primal, self.dual, self.complementarity, jnp.zeros(1)])
        )


def ratio(a: Array, b: Array) -> Array:
    """`a/b`, 0 where both are 0, infinite where only `b` is."""
    return jnp.where(a == 0, 0.0, jnp.abs(a) / jnp.where(a == 0, 1.0, b))


def scales(
    P: Array, q: Array, A: Array, b: Array, cones: Cones, x: Array, z: Array
) -> tuple[Array, Array, Array, Array]:
    """`S` by row, and `S`, `Z` by block, and `D`."""
    size, push = jnp.abs(A), jnp.abs(z)
    unit = jnp.finfo(q.dtype).eps
    reach = size * jnp.abs(x)
    rows = jnp.abs(b) + jnp.sum(reach, axis=1)
    others = rows[:, None] - reach
    live = (size > 0) & (others > 8 * unit * rows[:, None])
    free = jnp.where(live, others / jnp.where(size > 0, size, 1.0), jnp.inf)
    free = jnp.min(free, axis=0, initial=jnp.inf)
    X = jnp.maximum(jnp.abs(x), jnp.where(jnp.isfinite(free), free, 0.0))
    S = jnp.abs(b) + size @ X
    D = jnp.abs(q) + jnp.abs(P) @ X + size.T @ push
    forces = jnp.where((size > 0) & (D > 0), D / jnp.where(size > 0, size, 1.0), jnp.inf)
    forces = jnp.min(forces, axis=1, initial=jnp.inf)
    Z = jnp.maximum(push, jnp.where(jnp.isfinite(forces), forces, 0.0))
    wide = lambda blocks: cones.join(
        [jnp.broadcast_to(jnp.max(v, axis=1, keepdims=True), v.shape) for v in blocks]
    )
    Sb, Zb = wide(cones.cut(S)), wide(cones.cut(Z))
    return S, Sb, Zb, D


def measures(
    P: Array,
    q: Array,
    A: Array,
    b: Array,
    cones: Cones,
    x: Float[Array, " n"],
    s: Float[Array, " m"],
    z: Float[Array, " m"],
) -> Measures:
    """The measures of one pair; the data centred (`centre`) by the caller."""
    S, Sb, Zb, D = scales(P, q, A, b, cones, x, z)
    primal = ratio(A @ x + s - b, S)
    dual = ratio(P @ x + q + A.T @ z, D)
    slack = []
    for (kind, p, rows), u, v, Su, Zv in zip(
        cones.groups(), *map(cones.cut, (s, z, Sb, Zb)), strict=True
    ):
        Su, Zv = Su[:, 0], Zv[:, 0]
        out = jnp.maximum(
            ratio(violation(kind, p, u, False), Su), ratio(violation(kind, p, v, True), Zv)
        )
        if kind == "nonneg":
            both = jnp.minimum(ratio(u[:, 0], Su), ratio(v[:, 0], Zv))
        elif kind == "zero":
            both = jnp.zeros_like(Su)
        else:
            both = ratio(ratio(jnp.sum(u * v, axis=1), Su), Zv)
        worst = jnp.maximum(out, both)[:, None]
        slack.append(jnp.concatenate([worst, jnp.zeros((worst.size, rows.shape[1] - 1))], axis=1))
    slack = cones.join(slack)
    return Measures(primal, dual, slack, Sb, Zb, D)


def centre(P: Array, q: Array, A: Array, b: Array, cones: Cones) -> tuple[Array, Array]:
    """`x0` near `A_zero x0 = b_zero`, and multipliers `nu0` that make `q + A_zero' nu0` small.

    From the data alone. Any point serves: it moves the origin, and no answer depends on it.
    """
    k, n = cones.zero, q.size
    none = jnp.zeros_like(b)
    if k == 0:
        return jnp.zeros(n, q.dtype), none
    E, e = A[:k], b[:k]
    length = jnp.linalg.norm(E, axis=1)
    length = jnp.where(length > 0, length, 1.0)
    E, e = E / length[:, None], e / length
    gram = E @ E.T + jnp.asarray(1e-8, q.dtype) * jnp.eye(k, dtype=q.dtype)
    back = lambda right: jnp.linalg.solve(gram, right)
    x0 = E.T @ back(e)
    x0 = x0 + E.T @ back(e - E @ x0)
    nu0 = back(-E @ q)
    nu0 = nu0 + back(-E @ (q + E.T @ nu0))
    return x0, none.at[:k].set(nu0 / length)
