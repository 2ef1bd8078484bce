r"""Initial data of finitely many atoms, and what can be known of them.

    exp(-u(., 0)/eps) = sum_j m_j exp(-g_j/eps) delta_{y_j}          u(., 0) = +inf off the atoms

y_j   atoms, shape (N, d)     g_j   values, +inf masks an atom     m_j   masses >= 0, by default 1

Only g_j - eps log m_j enters at eps > 0; at eps = 0 masses count only by being zero or not. Atoms at
one place are one atom with g = -eps log sum m e^{-g/eps}, so their number is not determined. At eps = 0
an atom whose power cell is empty is not seen either: the data seen are the c-transform envelope

    g_cc(y) = sup_x u_0(x, t) - |x - y|^2/(4t)  <=  g(y),  equal where the cell is not empty.
"""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.shown import Shown

Rule = Literal["trapezoid", "midpoint", "gauss"]


@admits()
class InitialData(Shown):
    """Atoms `y` (N, d) with values `g` (N,) and masses `m` (N,); `masses=None` means ones.

    **Raises:** `ValueError` for no atoms, disagreeing shapes, an atom that is not finite, a value
    that is NaN or `-inf`, a mass that is negative or not finite.
    """

    atoms: Float[Array, "N d"]
    values: Float[Array, " N"]
    masses: Float[Array, " N"]

    def __init__(self, atoms: ArrayLike, values: ArrayLike, masses: ArrayLike | None = None):
        self.atoms = jnp.asarray(atoms)
        self.values = jnp.asarray(values)
        self.masses = jnp.ones_like(self.values) if masses is None else jnp.asarray(masses)

    def __check_init__(self):
        y, g, m = self.atoms, self.values, self.masses
        if y.ndim != 2 or g.shape != y.shape[:1] or m.shape != g.shape:
            raise ValueError(
                "InitialData: atoms (N, d), values (N,) and masses (N,) are needed; found "
                f"{y.shape}, {g.shape} and {m.shape}."
            )
        if y.shape[0] == 0 or y.shape[1] == 0:
            raise ValueError(
                f"InitialData: an atom, in dimension >= 1, is needed; found {y.shape}."
            )
        if known_to_fail(jnp.isfinite(y)):
            raise ValueError("InitialData: every atom must be finite; found NaN or inf.")
        if known_to_fail(g > -jnp.inf):
            raise ValueError("InitialData: a value is finite or +inf; found NaN or -inf.")
        if known_to_fail((m >= 0) & (m < jnp.inf)):
            raise ValueError("InitialData: a mass is finite and >= 0; found NaN, inf or negative.")

    @property
    def dimension(self) -> int:
        """d, the length of an atom."""
        return self.atoms.shape[1]

    def energies(self, eps: Real[ArrayLike, ""] | float | int) -> Float[Array, " N"]:
        """`g_j - eps log m_j`, all that enters; `+inf` for an atom without mass."""
        present = self.masses > 0
        tilt = jnp.asarray(eps, self.values.dtype) * jnp.log(jnp.where(present, self.masses, 1.0))
        return jnp.where(present, self.values - tilt, jnp.inf)


@admits(n=">= 1")
def density(
    g: Callable[[Array], Array],
    lower: Float[ArrayLike, " d"],
    upper: Float[ArrayLike, " d"],
    n: int,
    *,
    rule: Rule = "trapezoid",
) -> InitialData:
    """A function `g` on a box, as atoms at the nodes of a quadrature rule with its weights as masses.

    `n` nodes a coordinate, `n**d` atoms. With them `hopf_cole` is the integral over the box: the tails
    of the kernel, width sqrt(2 eps t), must fit into it, and the nodes must resolve it.

    **Raises:** `ValueError` for an empty box or too few nodes.
    """
    lower, upper = jnp.asarray(lower), jnp.asarray(upper)
    least = 2 if rule == "trapezoid" else 1
    if lower.ndim != 1 or lower.shape != upper.shape or known_to_fail(lower < upper) or n < least:
        raise ValueError(
            f"density: two vectors lower < upper and n >= {least} nodes are needed; found "
            f"{lower}, {upper} and n = {n}."
        )
    at, weight = _unit_rule(rule, n)
    axes = [lo + (hi - lo) * at for lo, hi in zip(lower, upper, strict=True)]
    shares = [(hi - lo) * weight for lo, hi in zip(lower, upper, strict=True)]
    nodes = jnp.stack([a.ravel() for a in jnp.meshgrid(*axes, indexing="ij")], axis=1)
    masses = jnp.stack([a.ravel() for a in jnp.meshgrid(*shares, indexing="ij")], axis=1)
    values = jnp.reshape(eqx.filter_vmap(g)(nodes), (-1,))
    return InitialData(nodes, values, jnp.prod(masses, axis=1))


def _unit_rule(rule: Rule, n: int) -> tuple[np.ndarray, np.ndarray]:
    if rule == "trapezoid":
        weight = np.full(n, 1 / (n - 1))
        weight[[0, -1]] /= 2
        return np.linspace(0.0, 1.0, n), weight
    if rule == "midpoint":
        return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)
    at, weight = np.polynomial.legendre.leggauss(n)
    return (at + 1) / 2, weight / 2


@admits(eps=">= 0", tol=">= 0")
def merge(
    data: InitialData, eps: Real[ArrayLike, ""] | float | int, *, tol: float = 0.0
) -> InitialData:
    """The same initial data with atoms closer than `tol` joined; the number of atoms shrinks.

    A joined atom has mass 1, value `-eps log sum m e^{-g/eps}` (the least value at `eps = 0`) and the
    members' Gibbs-weighted mean as its place: exact for `tol = 0`, which joins equal atoms only.
    Chains of close atoms are joined as one. Atoms without mass are dropped. Not traceable.

    **Raises:** `ValueError` under `jit`, for `eps < 0`, or when nothing has any mass.
    """
    y, e, heat = known(data.atoms), known(data.energies(eps)), known(eps)
    if y is None or e is None or heat is None:
        raise ValueError("merge: the number of atoms left depends on the data: call outside `jit`.")
    if not heat >= 0:
        raise ValueError(f"merge: eps >= 0 is needed; found {heat}.")
    y, e = y[np.isfinite(e)], e[np.isfinite(e)]
    if not len(y):
        raise ValueError("merge: no atom has mass and a finite value.")
    label = _clusters(y, tol)
    groups = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    # On the host: groups differ in size, and each size would be another program.
    share = [np.exp(-(e[i] - e[i].min()) / heat) if heat else e[i] == e[i].min() for i in groups]
    least = np.array([e[i].min() for i in groups])
    soft = np.array([np.log(s.sum()) for s in share]) if heat else 0.0
    values = (least - heat * soft).astype(e.dtype)
    places = [np.average(y[i], axis=0, weights=s) for i, s in zip(groups, share, strict=True)]
    return InitialData(np.array(places, y.dtype), values)


def _clusters(y: np.ndarray, tol: float) -> np.ndarray:
    if tol == 0:
        return np.unique(y, axis=0, return_inverse=True)[1].ravel()
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    pairs = cKDTree(y).query_pairs(tol, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(y), len(y)))
    return connected_components(links, directed=False)[1]


class Envelope(Shown):
    """`values` is g_cc at every atom; `active` says where it is g; `witness` a point of the cell."""

    values: Float[Array, " N"]
    active: Bool[Array, " N"]
    witness: Float[Array, "N d"]


@admits(t="> 0", tol=">= 0")
def envelope(data: InitialData, t: float, *, tol: float = 1e-9) -> Envelope:
    r"""The identifiable part of the data at `eps = 0`: the c-transform envelope at every atom.

    $$g_{cc}(y_j) = \min\{\textstyle\sum_k \pi_k (g_k + |y_k|^2/4t) : \pi \in \Delta,
      \sum_k \pi_k y_k = y_j\} - |y_j|^2/4t$$

    One linear program an atom, solved by SciPy's HiGHS; not traceable. The multiplier of the barycentre
    constraint is the witness `x`. `active` allows for `tol`, relative to the largest value.

    **Raises:** `ValueError` for `t <= 0` or traced data; `RuntimeError` if a program is not solved.
    """
    from scipy.optimize import linprog

    y, g = known(data.atoms), known(data.energies(0.0))
    if y is None or g is None:
        raise ValueError("envelope: solved on the host: call outside `jit`.")
    if not t > 0:
        raise ValueError(f"envelope: t > 0 is needed; found {t}.")
    lift = np.sum(y**2, axis=1) / (4 * t)
    there = np.isfinite(g)
    values, witness = np.full(len(y), np.inf), np.full(y.shape, np.nan)
    equations = np.vstack([y[there].T, np.ones(int(there.sum()))])
    for j, place in enumerate(y):
        found = linprog((g + lift)[there], A_eq=equations, b_eq=[*place, 1.0], method="highs")
        if found.status == 2:  # outside the hull of the atoms that are there
            continue
        if found.status != 0:
            raise RuntimeError(f"envelope: HiGHS on atom {j}: {found.message}")
        values[j] = found.fun - lift[j]
        witness[j] = found.eqlin.marginals[:-1] * 2 * t  # slope p of the hull; x = 2 t p
    scale = max(1.0, float(np.max(np.abs(g[there]), initial=0.0)))
    active = there & (g - values <= tol * scale)
    return Envelope(*(jnp.asarray(a) for a in (values, active, witness)))
