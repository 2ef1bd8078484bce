r"""Transport: a plan with given row and column sums. Birkhoff's polytope: all sums 1.

    value(Z) = max of sum_ij Z_ij P_ij - eps phi(P_ij)    s.t.  P 1 = r,  P^T 1 = c,  P >= 0

    phi = p log p          P_ij = exp((Z_ij - f_i - g_j)/eps)              every entry positive
    phi = (p^2 - p)/2      P_ij = max(Z_ij - f_i - g_j, 0)/eps             most entries 0

Squares are a quadratic program, solved as one (`conic`): plans of some hundred entries. Entropy: by
Sinkhorn's sums in the log domain, then Newton on the rows' with the columns met exactly.
Its matrix is a graph's Laplacian, S_ik = -sum_j P_ij P_kj/c_j off the diagonal and minus their sum on it:
a nearly integral plan keeps its small entries. The derivative is formed from differences alone:

    S df = sum_{k != i} sum_j P_ij P_kj/c_j (dZ_ij - dZ_kj)
    dP_ij = P_ij/eps sum_k P_kj/c_j (D_ij - D_kj)

with D = dZ - df. One equation is redundant: the last f is held. Memory n^2 m.
Limit: where the sums of a plan in floats no longer determine its small entries, the certificate says so.
Source: Cuturi 2013; Luise, Rudi, Pontil, Ciliberto 2018 (the derivative).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation import lse
from hjcontrol.deformation.soft_maximum import checked, floating, temperature
from hjcontrol.layers.conic.cones import Cones
from hjcontrol.layers.conic.optimum import Data, Point, optimum
from hjcontrol.layers.layer import SLACK, AbstractConvexLayer
from hjcontrol.layers.program import AbstractProgram, Residuals, Scales
from hjcontrol.layers.prox import BallFace
from hjcontrol.layers.regulariser import AbstractRegulariser, Shannon, Tsallis
from hjcontrol.layers.separable import SeparableProgram

SWEEPS = 500  # Sinkhorn's, at most
NEWTON = 40  # steps, at most


class TransportProgram(AbstractProgram):
    """The program at one `Z`; multipliers are the potentials `(f, g)`, the best ones by default."""

    z: Float[Array, "n m"]
    eps: Float[Array, ""]
    rows: Float[Array, " n"]
    columns: Float[Array, " m"]
    potentials: tuple[Float[Array, " n"], Float[Array, " m"]]
    phi: AbstractRegulariser

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of a plan `(n, m)` and of potentials, a pair of shapes `(n,)` and `(m,)`."""
        p = floating(candidate).astype(self.z.dtype)
        f, g = self.potentials if dual is None else map(jnp.asarray, dual)
        if p.shape != self.z.shape or f.shape != self.rows.shape or g.shape != self.columns.shape:
            raise ValueError(
                f"certify: a plan of shape {self.z.shape} and potentials of shapes {self.rows.shape}, "
                f"{self.columns.shape} are needed; found {p.shape}, {f.shape}, {g.shape}."
            )
        shift = self.eps * (
            1.0 if isinstance(self.phi, Shannon) else -0.5
        )  # phi' less log p, less p
        left = self.z - f[:, None] - g[None] + shift
        terms = SeparableProgram(left, self.eps, self.phi, None, None, None).residuals(p)
        apart = {} if terms.excess is None else terms.excess
        sums = {
            "rows": jnp.sum(p, axis=1) - self.rows,
            "columns": jnp.sum(p, axis=0) - self.columns,
        }
        width = jnp.minimum(jnp.max(self.rows), jnp.max(self.columns))
        force = self.eps + jnp.abs(left)
        away = {"rows": jnp.max(jnp.abs(f)), "columns": jnp.max(jnp.abs(g))}
        primal = {"box": jnp.maximum(-p, 0.0)} | {k: jnp.abs(v) for k, v in sums.items()}
        worst = jnp.max(jnp.stack([jnp.max(v) for v in primal.values()])) / width
        outside = worst > jnp.finfo(p.dtype).eps ** SLACK
        value = jnp.sum(self.phi.value(jnp.maximum(p, 0.0))) * self.eps - jnp.sum(p * self.z)
        bound = jnp.sum(f * self.rows) + jnp.sum(g * self.columns)
        mass = self.eps * jnp.sum(self.phi.conjugate(left / self.eps)) - shift * jnp.sum(self.rows)
        excess = {
            "p": apart["p"],
            "rows": -f * sums["rows"],
            "columns": -g * sums["columns"],
        }
        return Residuals(
            primal=primal,
            dual={},
            complementarity={},
            stationarity=terms.stationarity,
            objective=jnp.where(outside, jnp.inf, value),
            dual_objective=-(bound + mass),
            excess=jax.tree.map(lambda x: jnp.where(outside, jnp.inf, x), excess),
            scales=Scales(
                primal=dict.fromkeys(primal, width),
                dual={},
                complementarity={},
                stationarity={"p": force},
                excess={"p": force * width} | {k: (self.eps + away[k]) * width for k in sums},
                undecidable=jnp.zeros((), bool),
            ),
        )


@admits(eps="> 0", rows="> 0", columns="> 0")
class Transport(AbstractConvexLayer):
    """Transport between marginals `rows` and `columns` for gains `Z`: entropic, or with
    `phi=Tsallis(2.0)` quadratic, whose plans are sparse.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> plan = hj.layers.Transport(0.5, jnp.ones(2) / 2, jnp.ones(2) / 2)
        >>> plan(jnp.array([[0.0, -1.0], [-1.0, 0.0]])).round(4).tolist()
        [[0.4404, 0.0596], [0.0596, 0.4404]]
    """

    held = ("eps", "rows", "columns")
    eps: Float[Array, ""] = eqx.field(converter=temperature)
    rows: Float[Array, " n"]
    columns: Float[Array, " m"]
    phi: AbstractRegulariser
    domain = "transport polytope"
    regulariser = "sum of phi (Shannon, squares)"
    curvature = "smooth; strongly convex dual"

    def __init__(
        self,
        eps: float | Float[Array, ""],
        rows: Real[ArrayLike, " n"],
        columns: Real[ArrayLike, " m"],
        phi: AbstractRegulariser | None = None,
    ):
        """**Raises:** `ValueError` unless both are positive and of one sum, `eps > 0`, and `phi` is
        `Shannon()` or `Tsallis(2.0)`."""
        self.phi = Shannon() if phi is None else phi
        if not isinstance(self.phi, (Shannon, Tsallis)) or getattr(self.phi, "alpha", 2.0) != 2.0:
            raise ValueError(
                f"Transport: `phi` must be Shannon() or Tsallis(2.0); found {shown(phi)}."
            )
        self.eps, self.rows, self.columns = eps, floating(rows), floating(columns)
        row_sum, column_sum = known(jnp.sum(self.rows)), known(jnp.sum(self.columns))
        both = row_sum is not None and column_sum is not None
        if both and not np.isclose(float(row_sum), float(column_sum), rtol=1e-6):
            raise ValueError(
                f"Transport: rows and columns must have one sum; found {row_sum:g} and {column_sum:g}."
            )

    @property
    def modulus(self) -> Float[Array, ""]:
        most = jnp.minimum(jnp.max(self.rows), jnp.max(self.columns))
        return self.eps / most if isinstance(self.phi, Shannon) else self.eps

    def value(self, z: Real[ArrayLike, "n m"]) -> Float[Array, ""]:
        z = self._checked(z)
        p, eps = self(z), self.eps.astype(z.dtype)
        return jnp.sum(p * z) - eps * jnp.sum(self.phi.value(p))

    def __call__(self, z: Real[ArrayLike, "n m"]) -> Float[Array, "n m"]:
        z = self._checked(z)
        eps, marginals = self.eps.astype(z.dtype), self._marginals(z)
        if isinstance(self.phi, Shannon):
            return _plan(z, eps, *marginals)
        return jnp.where(
            jnp.isnan(jnp.sum(z)), jnp.nan, _squares(z, eps, *marginals).x.reshape(z.shape)
        )

    def _checked(self, z: Any) -> Array:
        z = checked("Transport", z, axes=2, mask=False)
        if z.shape != (self.rows.shape[0], self.columns.shape[0]):
            raise ValueError(
                f"Transport: gains must have shape {(self.rows.shape[0], self.columns.shape[0])}; found "
                f"{z.shape}. Batch with `jax.vmap`."
            )
        return z

    def _marginals(self, z: Array) -> tuple[Array, Array]:
        rows, columns = self.rows.astype(z.dtype), self.columns.astype(z.dtype)
        return rows, columns * (jnp.sum(rows) / jnp.sum(columns))

    def conjugate(self, p: Real[ArrayLike, "n m"]) -> Float[Array, ""]:
        p = floating(p)
        off = [jnp.max(-p), jnp.max(jnp.abs(jnp.sum(p, 1) - self.rows))]
        off = jnp.max(jnp.stack([*off, jnp.max(jnp.abs(jnp.sum(p, 0) - self.columns))]))
        value = self.eps.astype(p.dtype) * jnp.sum(self.phi.value(jnp.maximum(p, 0.0)))
        return jnp.where(off > jnp.finfo(p.dtype).eps ** SLACK, jnp.inf, value)

    def face(self, z: Real[ArrayLike, "n m"]) -> BallFace:
        p = self(z)
        return BallFace(p, jnp.zeros((), p.dtype))

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Of a plan: entropies, at most that of the product; at least as if it were in one place a row.
        Squares likewise, the plan of no gains being the least."""
        r, c = np.asarray(self.rows, float), np.asarray(self.columns, float)
        p, most = np.outer(r, c) / c.sum(), min(r.max(), c.max())
        if not isinstance(self.phi, Shannon):
            least = np.asarray(self(jnp.zeros(shape)), float)
            return float(r.sum() * (1 - most)) / 2, float(r.sum() - np.sum(least**2)) / 2
        return -float(r.sum() * np.log(most)), -float(np.sum(p * np.log(p)))

    def program(self, z: Real[ArrayLike, "n m"]) -> TransportProgram:
        z = self._checked(z)
        rows, columns = self._marginals(z)
        eps = self.eps.astype(z.dtype)
        if isinstance(self.phi, Shannon):
            potentials = _potentials(z, eps, rows, columns)
        else:
            found = jax.lax.stop_gradient(_squares(z, eps, rows, columns))
            both = found.z + found.centre
            potentials = both[: rows.size], both[rows.size : rows.size + columns.size]
        return TransportProgram(z, eps, rows, columns, potentials, self.phi)

    def as_cvxpy(self, z: Real[ArrayLike, "n m"]) -> Any:
        needs("Transport.as_cvxpy", "cvxpy")
        import cvxpy as cp

        z = np.asarray(self._checked(z), float)
        p = cp.Variable(z.shape, name="p")
        objective = cp.sum(cp.multiply(z, p)) - float(self.eps) * self.phi.as_cvxpy(p)
        sums = [cp.sum(p, axis=1) == np.asarray(self.rows, float)]
        sums += [cp.sum(p, axis=0) == np.asarray(self.columns, float)]
        sums += [] if self.phi.steep else [p >= 0]
        return cp.Problem(cp.Maximize(objective), sums)


def birkhoff(
    n: int, eps: float | Float[Array, ""], phi: AbstractRegulariser | None = None
) -> Transport:
    """Doubly stochastic matrices of size `n`: [`Transport`][hjcontrol.layers.Transport] with sums 1."""
    if not (isinstance(n, int) and n >= 1):
        raise ValueError(f"birkhoff: `n` must be an integer >= 1; found {n!r}.")
    return Transport(eps, jnp.ones(n), jnp.ones(n), phi)


def _squares(z: Array, eps: Array, rows: Array, columns: Array) -> Point:
    """The quadratic program of the plan, row by row; its equalities' multipliers are the potentials."""
    n, m = z.shape
    eye = lambda k: jnp.eye(k, dtype=z.dtype)
    one = lambda k: jnp.ones((1, k), z.dtype)
    A = jnp.concatenate([jnp.kron(eye(n), one(m)), jnp.kron(one(n), eye(m)), -eye(n * m)])
    b = jnp.concatenate([rows, columns, jnp.zeros(n * m, z.dtype)])
    return optimum(Data(eps * eye(n * m), -z.ravel(), A, b), Cones(zero=n + m, nonneg=n * m))


def _laplacian(p: Array, columns: Array) -> Array:
    """S with the last node grounded; a node without flow, of a plan that is integral in floats, stays."""
    n = p.shape[0]
    flow = jnp.where(jnp.eye(n, dtype=bool), 0.0, (p / columns[None]) @ p.T)
    through = jnp.sum(flow, axis=1)
    return (jnp.diag(jnp.where(through > 0, through, 1.0)) - flow)[:-1, :-1]


def _column(z: Array, eps: Array, f: Array, columns: Array) -> tuple[Array, Array]:
    """The g that meets the columns, and the plan."""
    left = z - f[:, None]
    g = lse(left, eps, axis=0) - eps * jnp.log(columns)
    return g, jnp.exp((left - g[None]) / eps)


@eqx.filter_jit
def _potentials(z: Array, eps: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    z, eps, rows, columns = jax.lax.stop_gradient((z, eps, rows, columns))
    unit = jnp.finfo(z.dtype).eps

    def off(f: Array) -> tuple[Array, Array]:
        p = _column(z, eps, f, columns)[1]
        return jnp.sum(p, axis=1) - rows, p

    def sweep(state: tuple[Array, ...]) -> tuple[Array, ...]:
        f, _, k = state
        g, p = _column(z, eps, f, columns)
        far = jnp.max(jnp.abs(jnp.sum(p, axis=1) / rows - 1.0))
        new = lse(z - g[None], eps, axis=1) - eps * jnp.log(rows)
        return new, far, k + 1

    def newton(state: tuple[Array, ...]) -> tuple[Array, ...]:
        f, best, worst, k, stuck = state
        r, p = off(f)
        size = jnp.max(jnp.abs(r) / rows)
        best, stuck = jnp.where(size < worst, f, best), jnp.where(size < 0.5 * worst, 0, stuck + 1)
        step = eps * jnp.linalg.solve(_laplacian(p, columns), r[:-1])
        step = jnp.append(step, 0.0) * jnp.minimum(1.0, 3.0 * eps / jnp.max(jnp.abs(step)))
        step = jnp.where(jnp.isfinite(step), step, 0.0)
        return f + step, best, jnp.minimum(worst, size), k + 1, stuck

    start = lse(z, eps, axis=1), jnp.asarray(jnp.inf, z.dtype), jnp.zeros((), int)
    f, _, _ = jax.lax.while_loop(lambda s: (s[1] > 1e-3) & (s[2] < SWEEPS), sweep, start)
    if z.shape[0] > 1:
        first = (f, f, jnp.asarray(jnp.inf, z.dtype), jnp.zeros((), int), jnp.zeros((), int))
        going = lambda s: (s[2] > unit) & (s[3] < NEWTON) & (s[4] < 4)
        _, f, _, _, _ = jax.lax.while_loop(going, newton, first)
    return f, _column(z, eps, f, columns)[0]


@jax.custom_jvp
def _plan(z: Array, eps: Array, rows: Array, columns: Array) -> Array:
    f, _ = _potentials(z, eps, rows, columns)
    p = _column(z, eps, f, columns)[1]
    return jnp.where(jnp.isnan(jnp.sum(z)), jnp.nan, p)


@_plan.defjvp
def _plan_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z, eps, rows, columns), (dz, deps, dr, dc) = primals, tangents
    p = _plan(z, eps, rows, columns)
    f, g = _potentials(z, eps, rows, columns)
    n = z.shape[0]
    dz = dz - (z - f[:, None] - g[None]) * (deps / eps)
    share = p / columns[None]
    apart = lambda d: d[:, None, :] - d[None, :, :]  # (i, k, j): exactly 0 where i = k
    right = jnp.sum(p[:, None, :] * share[None, :, :] * apart(dz), axis=(1, 2))
    right = right + eps * (share @ dc - dr)
    df = jnp.zeros(n, z.dtype)
    if n > 1:
        df = df.at[:-1].set(jnp.linalg.solve(_laplacian(p, columns), right[:-1]))
    left = dz - df[:, None]
    moved = p / eps * jnp.sum(share[None, :, :] * apart(left), axis=1)
    return p, moved + share * dc[None]
