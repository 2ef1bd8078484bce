r"""The face of the control set on which the weights lie, and how its boundary bends there.

    C = { d : d tangent to Theta, g.d = 0 }        d.(H + B) d >= 0 on C is necessary, > 0 sufficient

C    critical cone; g = dJ/dtheta, H = d^2 J / dtheta^2
B    curvature of the constraint times its multiplier: of the Lagrangian H + B, not of J, a condition asks

    bounds            d_j = 0 where a bound with a multiplier holds theta_j                B = 0
    Simplex           sum d = 0,  d_j = 0 where theta_j = 0 and g_j > lambda               B = 0
    balls, sum_i |v_i| = r     sum_i u_i.d_i = 0,  d_i = 0 where v_i = 0 and |g_i| < mu    u_i = v_i/|v_i|
                      B d = mu (d_i - u_i u_i.d_i) / |v_i|,   mu = -u_i.g_i

The three balls are one: a group v_i is the whole leaf (`L2Ball`), a row (`GroupBall`), an entry
(`L1Ball`, whose B is zero). Where a constraint is met and its multiplier is zero, C is no subspace. Then
two are given: `wide`, which contains C (positive there: a strict minimum), and `tight`, which C contains
(negative there: none). With one such constraint C is half of `wide`, a quadratic form does not know
halves, and both are `wide`.

Sources: Nocedal and Wright, Numerical Optimization, 2nd ed., section 12.5; Bonnans and Shapiro,
Perturbation Analysis of Optimization Problems, section 3.2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from hjcontrol._ground.shown import Shown
from hjcontrol.control import (
    AbstractControlSet,
    ControlProblem,
    Free,
    GroupBall,
    L1Ball,
    L2Ball,
    Simplex,
)
from hjcontrol.networks import Weights


class Face(Shown):
    """Of one leaf of one stage's weights, cut into groups: a subspace, and B on it."""

    free: Float[Array, "*stages groups size"]  # 1 where a weight may move
    normal: Float[Array, "*stages groups size"]  # along this unit vector it may not; 0 for none
    radial: Float[Array, "*stages groups size"]  # u_i
    bend: Float[Array, "*stages groups size"]  # mu / |v_i|

    def project(self, d: Array) -> Array:
        """Nearest direction within the face."""
        e = self.free * d.reshape(self.free.shape)
        along = jnp.sum(self.normal * e, axis=(-2, -1), keepdims=True)
        return (e - self.normal * along).reshape(d.shape)

    def bent(self, d: Array) -> Array:
        """`B d`."""
        e = d.reshape(self.free.shape)
        across = e - self.radial * jnp.sum(self.radial * e, axis=-1, keepdims=True)
        return (self.bend * across).reshape(d.shape)


class Faces(NamedTuple):
    """Structured like the weights, with a `Face` for a leaf, its stages in front. Where the set is none
    of those that are known, both are the whole space."""

    wide: PyTree[Face]
    tight: PyTree[Face]
    same: Bool[Array, ""]  # whether they are one


def faces(
    problem: ControlProblem, weights: Weights, gradient: Weights, tol: float, small: ArrayLike
) -> Faces:
    """The faces at `weights`. `tol`: within which a constraint is met; `small`: within which a
    multiplier is zero, the tolerance in the unit of the gradient (see `control.units`)."""
    known = faces_known(problem)
    wide, tight, count = [], [], jnp.asarray(0)
    for r, (theta, slope) in enumerate(zip(weights, gradient, strict=True)):
        paths, tree = jax.tree_util.tree_flatten_with_path(theta)
        found = []
        for (path, v), g in zip(paths, jax.tree.leaves(slope), strict=True):
            of = problem.control_set.at(path, r) if known else Free()
            one = lambda a, b, of=of: _face(of, a, b, tol, small)
            found.append(jax.vmap(one)(v, g))
        wide.append(jax.tree.unflatten(tree, [f[0] for f in found]))
        tight.append(jax.tree.unflatten(tree, [f[1] for f in found]))
        count += sum(jnp.sum(f[2]) for f in found)
    same = jnp.asarray(count) <= 1
    choose = lambda a, b: jnp.where(same, a, b)
    return Faces(tuple(wide), jax.tree.map(choose, tuple(wide), tuple(tight)), same)


def faces_known(problem: ControlProblem) -> bool:
    """Whether the faces of the control set are known for every leaf of the weights."""
    weights = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    sets = [
        problem.control_set.at(path, r)
        for r, theta in enumerate(weights)
        for path, _ in jax.tree_util.tree_flatten_with_path(theta)[0]
    ]
    return all(of.elementwise or isinstance(of, (Simplex, *_GROUPS)) for of in sets)


def within(face: PyTree[Face], d: PyTree[Array]) -> PyTree[Array]:
    """Nearest directions within a face, leaf by leaf."""
    return jax.tree.map(lambda a, f: f.project(a), d, face)


def bending(face: PyTree[Face], d: PyTree[Array]) -> PyTree[Array]:
    """`B d`, leaf by leaf."""
    return jax.tree.map(lambda a, f: f.bent(a), d, face)


_GROUPS = {
    L2Ball: lambda v: (1, v.size),
    L1Ball: lambda v: (v.size, 1),
    GroupBall: lambda v: (v.shape[0] if v.ndim else 1, -1),
}


def _face(
    of: AbstractControlSet, v: Array, g: Array, tol: float, small: ArrayLike
) -> tuple[Face, Face, Int[Array, ""]]:
    """`wide`, `tight`, and how many inequalities are met with no multiplier (2 stands for many)."""
    if type(of) in _GROUPS:
        shape = _GROUPS[type(of)](v)
        return _ball(v.reshape(shape), g.reshape(shape), of.radius.astype(v.dtype), tol, small)
    row = lambda a: a.reshape(1, -1)
    if isinstance(of, Simplex):
        v, g = row(v), row(g)
        held, equal = v <= tol, jnp.ones_like(v)
        level = jnp.sum(jnp.where(held, 0.0, g)) / jnp.sum(~held)
        weak = held & (g - level <= small)
    else:
        low, high = of.interval(v)
        below, above = row(v - low <= tol), row(high - v <= tol)
        v, g = row(v), row(g)
        weak, equal = (below | above) & (jnp.abs(g) <= small), jnp.zeros_like(v)
        held = weak | (below & (g > 0)) | (above & (g < 0))
    return _flat(~held | weak, equal), _flat(~held, equal), jnp.sum(weak)


def _flat(free: Array, normal: Array) -> Face:
    """A face whose constraints do not bend."""
    mask = free.astype(normal.dtype)
    zero = jnp.zeros_like(mask)
    return Face(mask, _unit(mask * normal), zero, zero)


def _ball(
    v: Array, g: Array, radius: Array, tol: float, small: ArrayLike
) -> tuple[Face, Face, Array]:
    """Of `sum_i |v_i| <= radius`, the groups `v_i` in rows."""
    norm = lambda a: jnp.linalg.norm(a, axis=1, keepdims=True)
    length, slope = norm(v), norm(g)
    support = length > tol
    safe = lambda a: jnp.where(a > 0, a, 1.0)
    u = jnp.where(support, v / safe(length), 0.0)
    mu = -jnp.sum(u * g) / jnp.maximum(jnp.sum(support), 1)
    met = jnp.sum(length) >= radius - tol * jnp.maximum(radius, 1.0)
    pressed = met & (mu > small)
    loose = met & ~pressed
    weak = pressed & ~support & (slope >= mu - small)
    free = ~pressed | support | weak
    outward = jnp.where(support, u, jnp.where(weak, -g / safe(slope), 0.0))
    whole = jnp.ones_like(v)
    bend = jnp.where(pressed & support, mu / safe(length), 0.0) * whole
    wide = Face(free * whole, jnp.where(pressed, _unit(outward), 0.0), u, bend)
    held = free & (support | ~met)
    tight = Face(held * whole, jnp.where(met, _unit(u), 0.0), u, bend)
    many = 1 if v.shape[1] == 1 else 2
    count = many * jnp.sum(weak) + loose * (1 + 2 * jnp.sum(~support))
    return wide, tight, count


def _unit(v: Array) -> Array:
    size = jnp.sqrt(jnp.sum(v**2))
    return v / jnp.where(size > 0, size, 1.0)
