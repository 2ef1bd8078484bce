r"""The least lead of a network of ReLUs over a box, by branch and bound.

    minimise  z_label(x') - z_c(x')   over |x' - x|_inf <= r        one mixed-integer program a rival c
    a unit a = max(up z, down z) with lo < 0 < hi:    s in {0, 1},
    a >= up z,   a >= down z,   a <= up z - (up - down) lo (1 - s),   a <= down z + (up - down) hi s

lo, hi are those of the lines of every unit, so that decided units are affine and cost nothing; a rival
that lines alone keep behind the least lead found is not asked. HiGHS splits the rest: a few dozen
undecided units take seconds, hundreds do not end. Its answer holds to its own tolerance, so what is
nearer to zero than that is left undecided; `certified_radius` counts rounding, this does not.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Real

from hjcontrol._ground.arguments import admits, in_range
from hjcontrol._ground.record import Record, Told, figure
from hjcontrol._ground.shown import Shown
from hjcontrol.analysis.robustness.enclosing import Ball, Layer, bounded, enclose, layers_of
from hjcontrol.deformation.soft_maximum import checked
from hjcontrol.networks import Trained

TOLERANCE = 1e-6  # of HiGHS, on constraints and integers


class BoxMargin(Told, Shown):
    """The least lead of the label over the box: at least `lower`, at most `attained`, that at `point`."""

    label: int
    rival: int  # the class that comes nearest
    lower: float
    attained: float
    point: np.ndarray
    undecided: int  # units that the lines leave open
    programs: int  # rivals that were asked by splitting

    @property
    def holds(self) -> bool:
        """Whether the label is ahead in the whole box, by more than the solver's tolerance."""
        return self.lower > TOLERANCE

    @property
    def broken(self) -> bool:
        """Whether it is not ahead at `point`."""
        return self.attained <= 0

    def as_record(self) -> Record:
        """What this result says of itself."""
        told = "holds in the whole box" if self.holds else "is not ahead at `point`"
        if not (self.holds or self.broken):
            told = "is undecided: more `seconds`, or a smaller box"
        return Record(
            f"class {self.label} {told}",
            f"least lead between {figure(self.lower)} and {figure(self.attained)}, rival {self.rival}",
            verdict="holds" if self.holds else "broken" if self.broken else "undecided",
            tone="good" if self.holds else "bad" if self.broken else "partial",
            facts={
                "units that lines leave open": self.undecided,
                "rivals asked by splitting": self.programs,
                "tolerance of the solver": TOLERANCE,
            },
            lead=("units that lines leave open", "rivals asked by splitting"),
        )


@admits(radius=">= 0", seconds="> 0")
def box_margin(
    model: Trained,
    x: Real[ArrayLike, " d"],
    radius: Real[ArrayLike, ""] | float,
    label: Int[ArrayLike, ""] | int | None = None,
    *,
    seconds: float = 60.0,
) -> BoxMargin:
    """The least lead of `label`, by default the predicted one, over `|x' - x|_inf <= radius`.

    `seconds`: for each rival; past them `lower` and `attained` stay apart. For small networks, one
    sample at a time: [`output_bounds`][hjcontrol.analysis.robustness.output_bounds] proves less, at once
    and for any depth.

    **Raises:** `ValueError` for one class, or naming a stage whose units are not `max(up z, down z)`.
    """
    layers = layers_of("box_margin", model)
    ends = []
    for k, layer in enumerate(layers):
        if layer.kind is None or layer.kind.ends is None:
            raise ValueError(
                f"box_margin: stage {k}'s units are not max(a z, c z); ReLU, leaky ReLU, abs and "
                "identity are. `output_bounds` takes the others."
            )
        ends.append(layer.kind.ends)
    x = checked("box_margin", x, axes=1, mask=False)
    z = np.asarray(_outputs(model, x), float)
    if z.size < 2:
        raise ValueError(f"box_margin: two classes or more are needed; found {z.size}.")
    if label is not None:
        in_range("box_margin", "label", label, f">= 0, < {z.size}")
    label = int(z.argmax()) if label is None else int(label)
    low, parts = _by_lines(model, x, jnp.asarray(radius, x.dtype), jnp.asarray(label))
    parts = [(np.asarray(a, float), np.asarray(b, float)) for a, b in parts]
    posed = _posed(layers, ends, parts, np.asarray(x, float), float(radius))
    return _least(model, posed, np.asarray(x), np.asarray(low, float), label, seconds)


class _Posed(NamedTuple):
    """Outputs `S v + s` of variables v: inputs, undecided units, their binaries; and `rows v <= most`."""

    S: np.ndarray
    s: np.ndarray
    rows: np.ndarray
    most: np.ndarray
    low: np.ndarray
    high: np.ndarray
    undecided: int


@eqx.filter_jit
def _outputs(model: Trained, x: Array) -> Array:
    return model(x)


@eqx.filter_jit
def _by_lines(model: Trained, x: Array, radius: Array, label: Array) -> tuple[Array, Any]:
    """Lower bounds of the leads of `label` over each class, and an interval of every unit's `z`."""
    layers, z = layers_of("box_margin", model), model(x)
    here = enclose(layers, Ball(x, radius, float("inf")))
    C = jax.nn.one_hot(label, z.size, dtype=z.dtype)[None, :] - jnp.eye(z.size, dtype=z.dtype)
    return bounded(here, C, len(layers)), here.parts


def _posed(
    layers: list[Layer],
    ends: list[tuple[float, float]],
    parts: list[tuple[np.ndarray, np.ndarray]],
    x: np.ndarray,
    radius: float,
) -> _Posed:
    """`ends`: up and down of every layer's units; `parts`: intervals of their `z`."""
    cut = [(lo < 0) & (hi > 0) & (e[0] != e[1]) for (lo, hi), e in zip(parts, ends, strict=True)]
    d, count = x.size, int(sum(c.sum() for c in cut))
    n = d + 2 * count
    S, s, at = np.eye(d, n), np.zeros(d), d
    rows, most = [np.zeros((0, n))], [np.zeros(0)]
    for layer, (lo, hi), (up, down), which in zip(layers, parts, ends, cut, strict=True):
        W, b = np.asarray(layer.W, float), np.asarray(layer.b, float)
        Z, z = W @ S, W @ s + b
        gain = np.where(lo >= 0, up, down)
        A, a = gain[:, None] * Z, gain * z
        here = np.flatnonzero(which)
        unit = np.eye(n)[at : at + len(here)]
        binary, Zh, zh = np.eye(n)[at + count : at + count + len(here)], Z[here], z[here]
        k = up - down
        below, above = (k * v[here, None] * binary for v in (lo, hi))
        rows += [up * Zh - unit, down * Zh - unit]
        rows += [unit - up * Zh - below, unit - down * Zh - above]
        most += [-up * zh, -down * zh, up * zh - k * lo[here], down * zh]
        A[here], a[here] = unit, 0.0
        at += len(here)
        h = float(layer.h)
        S, s = (S + h * A, s + h * a) if layer.skip else (h * A, h * a)
    free = np.full(count, np.inf)
    low = np.concatenate([x - radius, -free, np.zeros(count)])
    high = np.concatenate([x + radius, free, np.ones(count)])
    return _Posed(S, s, np.concatenate(rows), np.concatenate(most), low, high, count)


def _least(
    model: Trained, posed: _Posed, x: np.ndarray, low: np.ndarray, label: int, seconds: float
) -> BoxMargin:
    """Rival by rival, those that lines hold least first; lines may hold the rest."""
    values = lambda a: np.asarray(_outputs(model, jnp.asarray(a, x.dtype)), float)
    others = np.array([c for c in range(low.size) if c != label])
    z = values(x)
    rival = int(others[np.argmin(z[label] - z[others])])
    attained, point, lower, programs = float(z[label] - z[rival]), x, np.inf, 0
    for c in others[np.argsort(low[others], kind="stable")]:
        if low[c] >= attained:
            lower = min(lower, low[c])
            continue
        proved, found = _solved(posed, label, int(c), seconds)
        lower, programs = min(lower, max(proved, low[c])), programs + 1
        if found is not None:
            lead = values(found)
            lead = float(lead[label] - lead[c])
            if lead < attained:
                attained, point, rival = lead, found, int(c)
    return BoxMargin(
        label, rival, float(min(lower, attained)), attained, point, posed.undecided, programs
    )


def _solved(
    posed: _Posed, label: int, rival: int, seconds: float
) -> tuple[float, np.ndarray | None]:
    """A lower bound of the lead, and inputs of the box where the best solution lies."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    d, n = posed.low.size - 2 * posed.undecided, posed.low.size
    found = milp(
        posed.S[label] - posed.S[rival],
        integrality=np.arange(n) >= d + posed.undecided,
        bounds=Bounds(posed.low, posed.high),
        constraints=LinearConstraint(posed.rows, -np.inf, posed.most),
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    bound = found.mip_dual_bound if found.mip_dual_bound is not None else found.fun
    proved = -np.inf if bound is None else float(bound) + posed.s[label] - posed.s[rival]
    at = None if found.x is None else np.clip(found.x[:d], posed.low[:d], posed.high[:d])
    return proved, at
