r"""The optimum of a cone program and its derivative.

    minimise  x.P x/2 + q.x    s.t.   A x + s = b : z,   s in K,  z in K*

The data are brought to unit size (powers of two, so that no digit changes), solved by an engine,
polished, and put back. The derivative is that of the optimality conditions on the answer's faces.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.shown import Shown
from hjcontrol.layers.conic.cones import Cones
from hjcontrol.layers.conic.graded import Dropped, solved, system
from hjcontrol.layers.conic.host import INFEASIBLE, UNBOUNDED, clarabel
from hjcontrol.layers.conic.interior import interior
from hjcontrol.layers.conic.measures import centre
from hjcontrol.layers.conic.polish import polished
from hjcontrol.layers.conic.splitting import across, along, directions

ENGINES = ("auto", "interior", "clarabel")
ROUNDS = 10  # of the scaling: each halves the exponents that are left


class Point(Shown):
    """An answer: point, slack, multipliers `z + centre`, and how it ended.

    At most one of `converged`, `infeasible` and `unbounded` holds. A proof of infeasibility is left in
    `z` (Farkas: `A' z = 0`, `b.z < 0`, z in the dual cone), of unboundedness in `x`. `measure` is the
    worst of the three measures without unit, `loose` says which columns the program leaves undecided.
    """

    x: Float[Array, " n"]
    s: Float[Array, " m"]
    z: Float[Array, " m"]
    centre: Float[Array, " m"]
    converged: Bool[Array, ""] | None  # the derivative of a verdict is None
    infeasible: Bool[Array, ""] | None
    unbounded: Bool[Array, ""] | None
    loose: Bool[Array, " n"] | None
    measure: Float[Array, ""]
    steps: Int[Array, ""] | None
    state: Int[Array, " m"] | None
    out: Dropped
    proof: Float[Array, " k"]  # of what has no optimum


class Data(Shown):
    """The four arrays."""

    P: Float[Array, "n n"]
    q: Float[Array, " n"]
    A: Float[Array, "m n"]
    b: Float[Array, " m"]


def accuracy(dtype: Any) -> float:
    """The measure at which an answer is one."""
    return 1e-9 if dtype == jnp.float64 else 1e-4


def optimum(data: Data, cones: Cones, engine: str = "auto", start: Any = None) -> Point:
    """Solve. `start` is a `Point` of a program of the same shape: the interior point starts there.

    **Raises:** `ValueError` for an engine that is not known or cannot, or a `start` of another shape.
    """
    engine = _engine(engine, cones)
    if start is not None and not (
        isinstance(start, Point) and start.x.shape == data.q.shape and start.z.shape == data.b.shape
    ):
        raise ValueError(
            f"solve: `start` must be the `Point` of a program with {data.q.size} columns and "
            f"{data.b.size} rows; found {shown(start)}."
        )
    even = _even(data) if cones.straight else None
    scaled, units = _scaled(data if even is None else even[0], cones)
    if start is not None:
        start = _in_units(start if even is None else _rescaled(start, *even[1], back=False), units)
    at = _put_back(_optimum(scaled, cones, engine, start), units)
    return at if even is None else _rescaled(at, *even[1], back=True)


@eqx.filter_jit
def _even(data: Data) -> tuple[Data, tuple[Array, Array]]:
    """Columns and rows of size 1, and their units: powers of two, so that no digit changes. Only where
    rows may be scaled one by one. (Ruiz 2001)"""
    P, A = (jnp.abs(jax.lax.stop_gradient(v)) for v in (data.P, data.A))
    m, n = A.shape
    root = lambda v: 1 / jnp.sqrt(jnp.where((v > 0) & jnp.isfinite(v), v, 1.0))

    def step(_: Any, units: tuple[Array, Array]) -> tuple[Array, Array]:
        d, e = units
        rows = e[:, None] * A * d[None]
        force = jnp.max(d[:, None] * P * d[None], axis=0, initial=0.0)
        force = force * root(jnp.max(force, initial=0.0)) ** 2  # a factor of the cost has no say
        columns = jnp.maximum(force, jnp.max(rows, axis=0, initial=0.0))
        return d * root(columns), e * root(jnp.max(rows, axis=1, initial=0.0))

    start = jnp.ones(n, P.dtype), jnp.ones(m, P.dtype)
    d, e = (_power(v) for v in jax.lax.fori_loop(0, ROUNDS, step, start))
    even = Data(
        d[:, None] * data.P * d[None], d * data.q, e[:, None] * data.A * d[None], e * data.b
    )
    return even, (d, e)


@eqx.filter_jit
def _rescaled(at: Point, d: Array, e: Array, back: bool) -> Point:
    """A point in units of the data as given (`back`), or in even ones."""
    d, e = (d, e) if back else (1 / d, 1 / e)
    n = d.size
    way = jnp.concatenate([at.proof[:n] * d, at.proof[n:] * e])
    way = way / jnp.maximum(jnp.max(jnp.abs(way), initial=0.0), jnp.finfo(d.dtype).tiny)
    return eqx.tree_at(
        lambda t: (t.x, t.s, t.z, t.centre, t.proof),
        at,
        (at.x * d, at.s / e, at.z * e, at.centre * e, way),
    )


@eqx.filter_jit
def _scaled(data: Data, cones: Cones) -> tuple[Data, tuple[Array, Array, Array]]:
    """The data of unit size, and the units of x and z, and the multipliers that centre q. The units are
    constants: the optimum does not depend on them."""
    hold = jax.lax.stop_gradient
    P, q, A, b = (hold(v) for v in (data.P, data.q, data.A, data.b))
    _, nu0 = centre(q, A, b, cones)
    largest = lambda v: jnp.max(jnp.abs(v), initial=0.0)
    inner = q + A.T @ nu0
    helps = largest(inner) < 0.25 * largest(q)
    nu0 = jnp.where(helps, nu0, 0.0)
    right, force, bend = largest(b), largest(jnp.where(helps, inner, q)), largest(P)
    safe = lambda v: jnp.where((v > 0) & jnp.isfinite(v), v, 1.0)
    beta = jnp.where(right > 0, right, jnp.where(bend > 0, force / safe(bend), 1.0))
    beta = _power(beta)
    gamma = _power(jnp.maximum(force, bend * beta))
    q = (data.q + data.A.T @ nu0) / gamma
    return Data(data.P * (beta / gamma), q, data.A, data.b / beta), (beta, gamma, nu0)


@eqx.filter_jit
def _in_units(start: Point, units: tuple[Array, Array, Array]) -> tuple:
    beta, gamma, nu0 = units
    z = start.z + (start.centre - nu0)
    return jax.lax.stop_gradient((start.x / beta, start.s / beta, z / gamma))


@eqx.filter_jit
def _put_back(at: Point, units: tuple[Array, Array, Array]) -> Point:
    beta, gamma, nu0 = units
    return eqx.tree_at(
        lambda t: (t.x, t.s, t.z, t.centre), at, (at.x * beta, at.s * beta, at.z * gamma, nu0)
    )


def _engine(engine: str, cones: Cones) -> str:
    if engine not in ENGINES:
        raise ValueError(f"solve: `engine` must be one of {', '.join(ENGINES)}; found {engine!r}.")
    curved = [k for k in ("soc", "psd", "exp", "power") if getattr(cones, k)]
    if engine == "auto":
        return "clarabel" if curved else "interior"
    if engine == "interior" and curved:
        raise ValueError(
            "solve: the engine 'interior' solves linear and quadratic programs; found the cones "
            f"{', '.join(curved)}. Use engine='clarabel'."
        )
    return engine


def _power(v: Array) -> Array:
    """The power of two next to a size; 1 for 0."""
    fine = (v > 0) & jnp.isfinite(v)
    return jnp.where(fine, jnp.exp2(jnp.round(jnp.log2(jnp.where(fine, v, 1.0)))), 1.0)


@eqx.filter_custom_jvp
def _optimum(data: Data, cones: Cones, engine: str, start: Any) -> Point:
    return _found(data, cones, engine, start)


@eqx.filter_jit
def _found(data: Data, cones: Cones, engine: str, start: Any) -> Point:
    P, q, A, b = data.P, data.q, data.A, data.b
    if engine == "clarabel":
        at, code, steps = clarabel(P, q, A, b, cones)
        x, s, z = at.x, at.s, at.z
    else:
        x, s, z, code, steps = interior(P, q, A, b, cones.zero, start)
        at = polished(P, q, A, b, cones, tuple(jnp.nan_to_num(v) for v in (x, s, z)))
    known = jnp.all(jnp.isfinite(jnp.concatenate([x, s, z, q, b, A.ravel(), P.ravel()])))
    infeasible = known & (code == INFEASIBLE)
    unbounded = known & (code == UNBOUNDED)
    converged = known & ~infeasible & ~unbounded & (at.worst <= accuracy(q.dtype))
    bad = infeasible | unbounded
    lost = lambda v, w: jnp.where(bad, w, jnp.where(known, v, jnp.nan))
    size = jnp.maximum(jnp.max(jnp.abs(z), initial=0.0), jnp.finfo(q.dtype).tiny)
    way = jnp.maximum(jnp.max(jnp.abs(x), initial=0.0), jnp.finfo(q.dtype).tiny)
    proof = jnp.concatenate(
        [jnp.where(unbounded, x / way, 0.0), jnp.where(infeasible, z / size, 0.0)]
    )
    return Point(
        lost(at.x, x),
        lost(at.s, s),
        lost(at.z, z),
        jnp.zeros_like(b),
        converged,
        infeasible,
        unbounded,
        at.out.loose & ~bad,
        jnp.where(known, at.worst, jnp.inf),
        steps,
        at.state,
        at.out,
        proof,
    )


@_optimum.def_jvp
def _rule(primals: tuple, tangents: tuple) -> tuple[Point, Point]:
    data, cones, engine, start = primals
    change = tangents[0]
    at = _optimum(data, cones, engine, start)
    absent = lambda v: v is None
    filled = lambda v, dv: jnp.zeros_like(v) if dv is None else dv
    d = jax.tree.map(filled, data, change, is_leaf=absent)
    return at, _derivative(at, data, d, cones)


@eqx.filter_jit
def _derivative(at: Point, data: Data, d: Data, cones: Cones) -> Point:
    n = at.x.size
    local = directions(cones, at.state, at.s, at.z)
    K = system(data.P, data.A, cones, local, at.out)
    top = -(d.P @ at.x + d.q + d.A.T @ at.z)
    low = d.b - d.A @ at.x
    w = solved(K, jnp.concatenate([top, along(cones, local, low)]))
    dx, g = w[:n], w[n:]
    zero = jnp.zeros_like
    return Point(
        dx,
        low - data.A @ dx,
        across(cones, local, g).astype(at.z.dtype),
        zero(at.centre),
        None,
        None,
        None,
        None,
        zero(at.measure),
        None,
        None,
        Dropped(None, None, None),
        zero(at.proof),
    )
