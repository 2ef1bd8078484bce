r"""The certificate of a convex program: how far any candidate is from optimal, and where.

    primal feasible,  dual feasible,  y_i s_i = 0,  0 in d_x L(x, y),  objective - dual objective = 0

The five together are the KKT conditions; feasibility of both sides and the gap are already a proof:
no feasible point lies more than `gap` below the candidate. Nothing here asks who found the candidate.

A verdict is reached without units: every residual is divided by what the data call large (`Scales`), so
that it is the same for the objective times 1e-12 and for logits with 1e10 added to all. Numbers printed
keep their units. Where the data are rounded more coarsely than what decides, it is `undecidable`.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree, Real

from hjcontrol._ground.arguments import admits, fits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.precision import exact_tolerance
from hjcontrol._ground.record import Quantity, Record, Told, figure
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.shown import Shown
from hjcontrol.layers.program import AbstractProgram, Residuals

PARTS = ("primal", "dual", "complementarity", "stationarity")
VERDICTS = (
    "optimal",
    "near-optimal",
    "not certified",
    "undecidable",
    "suboptimal",
    "infeasible",
    "not a number",
)


@renamed(tolerance="tol")
class Optimality(Told, Shown):
    """What `hj.certify` returns: arrays, one entry a sample under `vmap`. `print` it.

    `primal`, `dual`, `complementarity`, `stationarity` are max norms; `gap = objective -
    dual_objective` is `inf` where the candidate has no finite objective. `relative_gap` divides by
    the larger of the two objectives. `measures` are the same five without units, which the verdict
    compares with `tol`. `worst` is the place of the largest of them, decoded by `offender`.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> layer, z = hj.layers.Softmax(0.1), jnp.array([0.6, 0.5, -0.4])
        >>> found = hj.certify(layer.program(z), layer(z))
        >>> bool(found.gap < 1e-12)
        True
    """

    primal: Float[Array, "*batch"]
    dual: Float[Array, "*batch"]
    complementarity: Float[Array, "*batch"]
    stationarity: Float[Array, "*batch"]
    objective: Float[Array, "*batch"]
    dual_objective: Float[Array, "*batch"]
    gap: Float[Array, "*batch"]
    relative_gap: Float[Array, "*batch"]
    worst: Int[Array, "*batch"]
    tol: Float[Array, "*batch"]
    measures: dict[str, Float[Array, "*batch"]]
    undecidable: Bool[Array, "*batch"]
    layout: tuple[tuple[str, str, tuple[int, ...]], ...] = eqx.field(static=True)
    given: bool = eqx.field(static=True, default=False)
    floor: Float[Array, "*batch"] | None = None

    @property
    def certified(self) -> Bool[Array, "*batch"]:
        """Both sides feasible and the gap closed, at `tol`: the proof of global optimality."""
        closed = self.measures["gap"] <= self.tol
        return _feasible(self) & closed & ~self.undecidable

    @property
    def optimal(self) -> Bool[Array, "*batch"]:
        """`certified`, and every KKT coordinate within `tol`."""
        slack = jnp.maximum(self.measures["complementarity"], self.measures["stationarity"])
        return self.certified & (slack <= self.tol)

    @property
    def verdict(self) -> Any:
        """One of `VERDICTS`; for a batch, an array of them.

        `near-optimal`: certified, but some coordinate of complementarity or stationarity is off.
        `suboptimal`: feasible, and the gap is open with the best multipliers; `not certified`: with the
        multipliers given, which may be at fault. `infeasible`: either side is violated.
        `undecidable in float64`: the data are rounded more coarsely than what would decide, or all
        residuals are no larger than that roundoff makes them, and that is more than `tol`.
        """
        return _verdict(self)

    def offender(self, sample: Any = ()) -> tuple[str, str, float]:
        """Which residual is largest, at which coordinate, and how large. `sample` indexes a batch."""
        return _offender(self, sample)

    def as_record(self) -> Record:
        """What this result says of itself."""
        verdicts = np.atleast_1d(np.asarray(self.verdict)).ravel()
        names = _names(self)
        rank = {v: k for k, v in enumerate(names)}
        flat = lambda x: np.atleast_1d(np.asarray(x)).ravel()
        if verdicts.size == 0:
            return Record("Optimality", "of no sample")
        size = np.nan_to_num(flat(self.gap), nan=np.inf)
        order = [(rank[v], abs(g)) for v, g in zip(verdicts, size, strict=True)]
        k = max(range(len(order)), key=order.__getitem__)
        sample = np.unravel_index(k, np.shape(self.gap)) if np.ndim(self.gap) else ()
        title, head = "Optimality", str(verdicts[k])
        if np.ndim(self.gap):
            counts = ", ".join(f"{np.sum(verdicts == v)} {v}" for v in names if v in verdicts)
            title, head = (
                f"Optimality of {verdicts.size} samples",
                f"{counts}; worst is {list(sample)}",
            )
        at = lambda name: float(flat(getattr(self, name))[k])
        if head == "not certified":
            head = f"gap at most {figure(abs(at('gap')), 3)}, not certified by these multipliers"
        part, place, value = self.offender(sample)
        return Record(
            title,
            f"{head}   (tolerance {flat(self.tol)[k]:.0e})",
            verdict=str(verdicts[k]),
            tone="good" if rank[verdicts[k]] < 2 else "bad",
            facts={name: Quantity(at(name), 3) for name in PARTS}
            | {
                "gap": f"{figure(at('gap'), 3)}   relative {figure(at('relative_gap'), 3)}",
                "objective": Quantity(at("objective"), 10),
                "largest residual": f"{part} at {place}: {figure(value, 3)}",
            },
            lead=("objective", "gap", "stationarity"),
        )


def _offender(optimality: Optimality, sample: Any = ()) -> tuple[str, str, float]:
    flat, start = int(np.asarray(optimality.worst)[sample]), 0
    for part, name, shape in optimality.layout:
        size = math.prod(shape)
        if flat < start + size:
            index = np.unravel_index(flat - start, shape) if shape else ()
            place = name + ("[" + ", ".join(str(int(i)) for i in index) + "]" if shape else "")
            return part, place, float(np.asarray(optimality.measures[part])[sample])
        start += size
    return "primal", "no constraint", 0.0


def _names(optimality: Optimality) -> tuple[str, ...]:
    dtype = np.asarray(optimality.gap).dtype
    return tuple(f"{v} in {dtype}" if v == "undecidable" else v for v in VERDICTS)


def _verdict(optimality: Optimality) -> Any:
    numbers = [*optimality.measures.values(), optimality.gap]
    absurd = np.any([np.isnan(np.asarray(x)) for x in numbers], axis=0)
    met = np.asarray(optimality.measures["primal"] <= optimality.tol)
    feasible = np.asarray(_feasible(optimality))
    open_gap = 2 if optimality.given else 4
    code = np.select(
        [
            absurd,
            _rounded(optimality),
            ~met,
            np.asarray(optimality.undecidable),
            np.asarray(optimality.optimal),
            np.asarray(optimality.certified),
            feasible,
        ],
        [6, 3, 5, 3, 0, 1, open_gap],
        5,
    )
    names = np.asarray(_names(optimality))[code]
    return str(names) if np.ndim(names) == 0 else names


def _rounded(optimality: Optimality) -> Any:
    """Whether roundoff in the data explains all residuals, and more than the tolerance; or is so large
    that even no residual at all would say nothing."""
    if optimality.floor is None:
        return np.zeros(np.shape(optimality.gap), bool)
    floor, tol = 8 * np.asarray(optimality.floor), np.asarray(optimality.tol)
    sizes = [np.asarray(optimality.measures[part]) for part in PARTS]
    explained = (np.max(sizes, axis=0) <= floor) & (floor > tol) & ~np.asarray(optimality.optimal)
    return explained | ((floor > 0.05) & (sizes[0] <= np.maximum(tol, floor)))


def _feasible(optimality: Optimality) -> Bool[Array, "*batch"]:
    off = jnp.maximum(optimality.measures["primal"], optimality.measures["dual"])
    return off <= optimality.tol


@renamed(tolerance="tol")
@admits(tol=">= 0")
def certify(
    program: Any,
    candidate: Any = None,
    dual: Any = None,
    *,
    tol: Real[ArrayLike, ""] | float | None = None,
) -> Optimality:
    """Measure how far `candidate` is from solving `program`.

    **Arguments:**

    - `program`: an [`AbstractProgram`][hjcontrol.layers.AbstractProgram] (that of a layer is
      `layer.program(z)`), or a `cvxpy.Problem`.
    - `candidate`: a point, feasible or not, from whatever source. For a `cvxpy.Problem`: a dict from
      variables (or their names) to values, or `None` for the values that the variables hold.
    - `dual`: multipliers, in the program's own form; `None` takes those that make the certificate
      tightest. For a `cvxpy.Problem`: a list in the order of its constraints, or `None` for the
      `dual_value`s that the constraints hold.
    - `tol`: of every residual and of the gap, in the units of the data; of a program that states
      none, of the residuals as they are and of the gap relative to `max(1, |objective|)`. Defaults to the
      dtype's, 1e-9 in float64.

    **Returns:** [`Optimality`][hjcontrol.layers.Optimality]. Pure JAX for an `AbstractProgram`:
    batch with `jax.vmap`.

    **Raises:** `ValueError` for a candidate or multipliers of the wrong shape, for a negative
    tolerance, or for a program that is neither of the two kinds.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> layer, z = hj.layers.Softmax(0.1), jnp.array([0.6, 0.5, -0.4])
        >>> hj.certify(layer.program(z), layer(z)).verdict
        'optimal'
        >>> hj.certify(layer.program(z), jnp.full(3, 1 / 3)).verdict
        'suboptimal'
    """
    if tol is not None and known_to_fail(jnp.asarray(tol) >= 0):
        raise ValueError(f"certify: `tol` must be >= 0; found {tol}.")
    if isinstance(program, AbstractProgram):
        if candidate is None:
            raise ValueError("certify: a candidate is needed; found None. Pass the point to judge.")
        candidate = fits("certify", "candidate", candidate, PyTree[Array])
        return summarise(program.residuals(candidate, dual), tol, given=dual is not None)
    if type(program).__module__.split(".")[0] == "cvxpy":
        from hjcontrol.layers.foreign import cvxpy_residuals

        given = bool(program.constraints)
        return summarise(cvxpy_residuals(program, candidate, dual), tol, given=given)
    raise ValueError(
        "certify: `program` must be an AbstractProgram or a cvxpy.Problem; found "
        f"{type(program).__name__}. The program of a layer is `layer.program(z)`."
    )


def summarise(
    residuals: Residuals,
    tol: Real[ArrayLike, ""] | float | None = None,
    *,
    given: bool = False,
) -> Optimality:
    """The max norms, the gap and the worst coordinate of one pair's residuals; `given`: its multipliers
    are not known to be the best."""
    objective = jnp.asarray(residuals.objective)
    dtype = objective.dtype
    best = jnp.asarray(residuals.dual_objective, dtype)
    if tol is None:
        tol = exact_tolerance(dtype)
    scales = residuals.scales
    norms, measures, layout, worst = {}, {}, [], _Worst(dtype)
    for part in PARTS:
        norms[part] = measures[part] = jnp.zeros((), dtype)
        leaves = jax.tree_util.tree_leaves_with_path(getattr(residuals, part))
        own = None if scales is None else getattr(scales, part)
        units = [None] * len(leaves) if own is None else jax.tree.leaves(own)
        for (path, x), unit in zip(leaves, units, strict=True):
            layout.append((part, _name(path), jnp.shape(x)))
            size = jnp.abs(jnp.asarray(x, dtype))
            norms[part] = jnp.maximum(norms[part], jnp.max(size, initial=0.0))
            measures[part] = worst.look(_over(size, unit), measures[part])
    outside = jnp.isposinf(objective) | jnp.isneginf(best)
    gap = jnp.where(outside, jnp.inf, objective - jnp.where(outside, 0.0, best))
    larger = jnp.maximum(jnp.abs(objective), jnp.abs(best))
    larger = jnp.where(jnp.isfinite(larger), larger, 1.0)
    measures["gap"] = jnp.abs(gap) / jnp.maximum(1.0, larger)
    if residuals.excess is not None:
        terms = jax.tree.leaves(residuals.excess)
        gap = jnp.where(outside, jnp.inf, sum(jnp.sum(x) for x in terms))
        if scales is not None:
            parts = zip(terms, jax.tree.leaves(scales.excess), strict=True)
            relative = [jnp.max(_over(jnp.abs(x), unit)) for x, unit in parts]
            measures["gap"] = jnp.max(jnp.stack([jnp.where(outside, jnp.inf, 0.0), *relative]))
    nothing, known = jnp.zeros((), bool), None if scales is None else scales.undecidable
    return Optimality(
        **norms,
        objective=objective,
        dual_objective=best,
        gap=gap,
        relative_gap=gap / jnp.where(larger > 0, larger, 1.0),
        worst=worst.place(),
        tol=jnp.asarray(tol, dtype),
        measures=measures,
        undecidable=jnp.any(nothing if known is None else known),
        floor=None if scales is None else scales.floor,
        layout=tuple(layout),
        given=given,
    )


def _over(size: Float[Array, "..."], unit: Any) -> Float[Array, "..."]:
    """A size in its unit, 0/0 = 0. A unit may have fewer axes: those in front."""
    if unit is None:
        return size
    unit = jnp.reshape(unit, (*jnp.shape(unit), *(1,) * (size.ndim - jnp.ndim(unit))))
    return jnp.where(size == 0, 0.0, size / unit)


class _Worst:
    """The largest residual so far and its place among all. Block by block: joined into one array, each
    of its entries would be computed from every block."""

    def __init__(self, dtype: Any):
        self.size, self.at, self.seen = jnp.full((), -1.0, dtype), None, 0

    def look(self, x: Float[Array, "..."], norm: Float[Array, ""]) -> Float[Array, ""]:
        """Take one block in; the larger of `norm` and the block's own. NaN beats any number."""
        if x.size == 0:
            return norm
        flat = jnp.abs(jnp.ravel(x))
        k = jnp.argmax(flat)
        largest = flat[k]
        more = (largest > self.size) | (jnp.isnan(largest) & ~jnp.isnan(self.size))
        self.at = self.seen + k if self.at is None else jnp.where(more, self.seen + k, self.at)
        self.size = jnp.where(more, largest, self.size)
        self.seen += x.size
        return jnp.maximum(norm, largest)

    def place(self) -> Int[Array, ""]:
        """Its index in the blocks laid end to end; past the end if there were none."""
        return jnp.asarray(self.seen) if self.at is None else self.at


def _name(path: PyTree) -> str:
    words = [
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
    ]
    return ".".join(words) or "x"
