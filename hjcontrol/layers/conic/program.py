r"""Cone programs as programs: solved, and certified in no unit.

minimise  x.P x/2 + q.x    s.t.   A x + s = b : z,   s in K,  z in K*
KKT:  P x + q + A' z = 0,   s.z = 0            gap = x.(P x + q + A' z) + s.z
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits, fits
from hjcontrol._ground.concrete import known
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers.conic.cones import WORDS, Cones
from hjcontrol.layers.conic.measures import (
    apart,
    centre,
    missed,
    ratio,
    roughness,
    scales,
    violation,
)
from hjcontrol.layers.conic.optimum import Data, Point, optimum
from hjcontrol.layers.program import AbstractProgram, Residuals, Scales


@admits()
class ConicProgram(AbstractProgram):
    """The data of one cone program; `cones` says which rows of `b - A x` lie in which cone.

    Residuals are measured in no unit: none changes when the objective, a row or the variables are
    scaled, or when a combination of the equalities is added to the objective.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> ball = hj.layers.Cones(soc=(3,))                            # |x| <= 1
        >>> A, b = jnp.array([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]]), jnp.array([1.0, 0.0, 0.0])
        >>> program = hj.layers.ConicProgram(jnp.eye(2), jnp.array([-3.0, -4.0]), A, b, ball)
        >>> print(program.solve().x.round(6))
        [0.6 0.8]
    """

    P: Float[Array, "n n"]
    q: Float[Array, " n"]
    A: Float[Array, "m n"]
    b: Float[Array, " m"]
    cones: Cones

    def __init__(
        self,
        P: Real[ArrayLike, "n n"],
        q: Real[ArrayLike, " n"],
        A: Real[ArrayLike, "m n"],
        b: Real[ArrayLike, " m"],
        cones: Cones,
    ):
        """**Raises:** `ValueError` for shapes that disagree, numbers that are not finite, or a `P` that
        is not symmetric and positive semidefinite."""
        self.P, self.q, self.A, self.b = _arrays("ConicProgram", P=P, q=q, A=A, b=b)
        self.cones = cones
        if self.b.shape != (cones.rows,):
            raise ValueError(
                f"ConicProgram: `cones` have {cones.rows} rows; found b of shape {self.b.shape}."
            )

    def solve(self, engine: str = "auto", start: Point | None = None) -> Point:
        """The optimum: `interior` (JAX, equalities and inequalities), `clarabel` (every cone, on the
        host), or `auto`: the first that can. `start` is the answer of a program nearby.

        **Raises:** `ValueError` for an engine that is not known or cannot.
        """
        return optimum(Data(self.P, self.q, self.A, self.b), self.cones, engine, start)

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of a point `(n,)`. `dual` is a `Point`, or multipliers `(m,)`; `None` solves the
        program for the best.

        **Raises:** `ValueError` for the wrong shapes.
        """
        x = floating(candidate).astype(self.q.dtype)
        if x.shape != self.q.shape:
            raise ValueError(
                f"certify: the candidate must have shape {self.q.shape}; found {x.shape}."
            )
        dual = self.solve() if dual is None else dual
        base = jnp.zeros_like(self.b)
        if isinstance(dual, Point):
            z, base = dual.z, dual.centre
        else:
            z = jnp.asarray(fits("certify", "dual", dual, Real[ArrayLike, " m"]))
        z = z.astype(x.dtype)
        if z.shape != self.b.shape:
            raise ValueError(
                f"certify: the multipliers must have shape {self.b.shape}; found {z.shape}."
            )
        return _residuals(self, x, z, base)


def _arrays(owner: str, **given: Any) -> list[Array]:
    """The arrays in one dtype, the widest of theirs; where they are known, refused if a number in them is
    not finite or `P` is not symmetric and positive semidefinite."""
    arrays = {name: floating(v) for name, v in given.items()}
    dtype = jnp.result_type(*arrays.values())
    if arrays["q"].size == 0:
        raise ValueError(f"{owner}: at least one variable is needed; found `q` of shape (0,).")
    for name, v in arrays.items():
        seen = known(v)
        if seen is not None and not np.all(np.isfinite(seen)):
            hint = " Leave out a row that bounds nothing." if name in ("b", "h") else ""
            raise ValueError(
                f"{owner}: `{name}` must be finite; found {seen[~np.isfinite(seen)][0]}.{hint}"
            )
    _refuse_concave(owner, arrays["P"])
    return [v.astype(dtype) for v in arrays.values()]


def _refuse_concave(owner: str, P: Array) -> None:
    seen = known(P)
    if seen is None or seen.size == 0:
        return
    near = (1e-9 if P.dtype == np.float64 else 1e-4) * np.max(np.abs(seen))
    skew = np.max(np.abs(seen - seen.T))
    if skew > near:
        raise ValueError(
            f"{owner}: `P` must be symmetric; found entries off their mirror by {skew:.1e}."
        )
    lowest = float(np.min(np.linalg.eigvalsh(seen)))
    if lowest < -near:
        raise ValueError(
            f"{owner}: `P` must be positive semidefinite; found the eigenvalue {lowest:.1e}. The program "
            "is not convex."
        )


@eqx.filter_jit
def _residuals(program: ConicProgram, x: Array, z: Array, base: Array) -> Residuals:
    P, q, A, b, cones = program.P, program.q, program.A, program.b, program.cones
    x0, nu0 = centre(q, A, b, cones)
    near, force = x - x0, z + (base - nu0)
    moved_q, moved_b = q + A.T @ nu0 + P @ x0, b - A @ x0
    rough_ = roughness(P, q, A, b, x, z + base, x0, nu0)
    S, Sb, Zb, D = scales(P, moved_q, A, moved_b, cones, near, force, rough_)
    slack = moved_b - A @ near
    push = P @ near + moved_q + A.T @ force
    primal, sign, both = {}, {}, {}
    for (kind, p, _), s, v, Sr, Su, Zv, rough in zip(
        cones.groups(), *map(cones.cut, (slack, force, S, Sb, Zb, rough_[0])), strict=True
    ):
        name = WORDS[kind]
        Su, Zv = Su[:, 0], Zv[:, 0]
        join = lambda d, new, name=name: {
            **d,
            name: jnp.concatenate([d[name], new]) if name in d else new,
        }
        unit = Sr[:, 0] if kind in ("zero", "nonneg") else Su
        out = violation(kind, p, s, False)
        primal = join(primal, missed(out, unit, jnp.max(rough, axis=1)))
        if kind == "zero":
            continue
        sign = join(sign, ratio(violation(kind, p, v, True), Zv))
        if kind == "nonneg":
            product = jnp.minimum(ratio(jnp.maximum(s[:, 0], 0), Su), ratio(v[:, 0], Zv))
        else:
            product = ratio(ratio(apart(kind, p, s, v), Su), Zv)
        both = join(both, product)
    still = ratio(push, D)
    cost = 0.5 * x @ P @ x + q @ x
    gap = near @ push + slack @ force
    outside = [jnp.max(v, initial=0.0) for v in primal.values()]
    outermost = jnp.max(jnp.stack([*outside, jnp.zeros((), x.dtype)]))
    unit = jnp.finfo(x.dtype).eps
    share = lambda u, v: jnp.max(jnp.where(v > 0, ratio(u, v), 0.0), initial=0.0)
    offset = jnp.abs(base) + jnp.abs(nu0)
    # An equality all of whose terms are roundoff is met as well as it can be.
    met = (jnp.arange(b.size) < cones.zero) & (rough_[0] >= S)
    floor = jnp.maximum(
        share(jnp.abs(b) + jnp.abs(A) @ (jnp.abs(x) + jnp.abs(x0)), jnp.where(met, 0.0, S)),
        share(jnp.abs(q) + jnp.abs(P) @ jnp.abs(x) + jnp.abs(A).T @ (jnp.abs(z) + offset), D),
    )
    energy = jnp.abs(near) @ D + S @ jnp.abs(force)
    noise = (jnp.abs(x) + jnp.abs(x0)) @ rough_[1] + rough_[0] @ (jnp.abs(z) + offset)
    idle = (noise >= energy) & (jnp.abs(gap) <= 1e-2 * noise)  # the centre is the optimum
    return Residuals(
        primal=primal,
        dual={**{f"sign of {k}": v for k, v in sign.items()}, "gradient": still},
        complementarity=both,
        stationarity={"x": still},
        objective=jnp.where(outermost > jnp.sqrt(unit), jnp.inf, cost),
        dual_objective=cost - gap,
        excess=gap,
        scales=Scales(excess=jnp.where(idle, jnp.inf, energy), floor=unit * floor),
    )


@admits()
class QuadraticProgram(AbstractProgram):
    """`minimise x.P x/2 + q.x` subject to `A x = b`, `G x <= h`. `P = 0` is a linear program.

    Multipliers are a `Point`, or a dict with `equality` and `inequality`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> program = hj.layers.QuadraticProgram(
        ...     jnp.eye(2), jnp.array([-1.0, 1.0]), G=-jnp.eye(2), h=jnp.zeros(2)
        ... )
        >>> print(program.solve().x)
        [1. 0.]
        >>> hj.certify(program, program.solve().x).verdict
        'optimal'
    """

    P: Float[Array, "n n"]
    q: Float[Array, " n"]
    A: Float[Array, "k n"]
    b: Float[Array, " k"]
    G: Float[Array, "m n"]
    h: Float[Array, " m"]

    def __init__(
        self,
        P: Real[ArrayLike, "n n"],
        q: Real[ArrayLike, " n"],
        A: Real[ArrayLike, "k n"] | None = None,
        b: Real[ArrayLike, " k"] | None = None,
        G: Real[ArrayLike, "m n"] | None = None,
        h: Real[ArrayLike, " m"] | None = None,
    ):
        """**Raises:** `ValueError` for shapes that disagree, `A` without `b`, `G` without `h`, numbers
        that are not finite, or a `P` that is not symmetric and positive semidefinite."""
        if (A is None) != (b is None) or (G is None) != (h is None):
            raise ValueError(
                "QuadraticProgram: `A` comes with `b`, and `G` with `h`; found one without the other."
            )
        n, dtype = jnp.shape(q)[0], floating(q).dtype
        none = jnp.zeros((0, n), dtype), jnp.zeros(0, dtype)
        (A, b), (G, h) = none if A is None else (A, b), none if G is None else (G, h)
        found = _arrays("QuadraticProgram", P=P, q=q, A=A, b=b, G=G, h=h)
        self.P, self.q, self.A, self.b, self.G, self.h = found

    @property
    def conic(self) -> ConicProgram:
        """The same as a cone program, the equalities first."""
        return ConicProgram(
            self.P,
            self.q,
            jnp.concatenate([self.A, self.G]),
            jnp.concatenate([self.b, self.h]),
            Cones(zero=self.b.size, nonneg=self.h.size),
        )

    def solve(self, engine: str = "auto", start: Point | None = None) -> Point:
        """The optimum, its multipliers `z` (equalities first), and how it was reached. `start` is the
        answer of a program nearby."""
        return self.conic.solve(engine, start)

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of a point `(n,)`; `dual=None` solves the program for the best multipliers.

        **Raises:** `ValueError` for the wrong shapes.
        """
        if isinstance(dual, dict):
            kinds = {"equality": self.b, "inequality": self.h}
            if set(dual) != set(kinds):
                raise ValueError(
                    "certify: multipliers of a QuadraticProgram are a dict with `equality` and "
                    f"`inequality`; found {', '.join(map(str, dual)) or 'an empty dict'}."
                )
            for kind, like in kinds.items():
                if jnp.shape(dual[kind]) != like.shape:
                    raise ValueError(
                        f"certify: the multipliers `{kind}` must have shape {like.shape}; found "
                        f"{jnp.shape(dual[kind])}."
                    )
            dual = jnp.concatenate([floating(dual[kind]) for kind in kinds])
        return self.conic.residuals(candidate, dual)
