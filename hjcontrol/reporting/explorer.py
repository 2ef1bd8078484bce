r"""One page on which a soft-maximum layer is read at any eps.

    f(x) = lse(W x + b, eps),  max z,  pi,  entropy,  |hess f|,  certified radius,  gap,  coverage,  tree

The page has the model itself, in 64-bit floats, and reads it as `hjcontrol.analysis` does; what Python
reads at a few eps stands in a table below, for whoever has no script. Nothing is fetched.
"""

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.files import write_atomically
from hjcontrol._ground.record import figure
from hjcontrol._ground.record_html import COLOURS, DARK
from hjcontrol.analysis.extrapolation import Coverage, coverage_of_samples, gap
from hjcontrol.analysis.robustness import certified_radius, diameter, layer_curvature
from hjcontrol.analysis.tree import SoftTree, soft_tree
from hjcontrol.deformation import LSE, gibbs_entropy
from hjcontrol.layers import ClassHead
from hjcontrol.reporting.html import HEAD

SHOWN, MOST = 24, 2_200_000  # samples in the picker; bytes of numbers in a page
TIMES = (0.0, 0.01, 0.1, 1.0, 10.0)  # of the layer's own eps, in the table
TOLD = ("value", "hard", "entropy", "curvature", "radius", "gap", "score")


class Explorer(NamedTuple):
    """A model and what is shown of it: `samples` (n, d) cover the inputs, `shown` (m, d) are picked."""

    model: LSE | ClassHead
    samples: np.ndarray
    shown: np.ndarray
    labels: tuple[str, ...]  # one a sample shown
    names: tuple[str, ...] | None  # of the classes
    title: str
    width: float  # of the coverage, in the units of the inputs

    @property
    def layer(self) -> LSE:
        """The atoms."""
        head = self.model.head if isinstance(self.model, ClassHead) else self.model
        assert isinstance(head, LSE)
        return head

    def reading(self, x: ArrayLike, eps: float) -> dict[str, float]:
        """What Python reads at one input: the numbers that the page shows, under the same names."""
        found = _read(self.layer, self.model, self._coverage, jnp.asarray(x), jnp.asarray(eps))
        return {k: float(v) for k, v in found.items()} | ({} if eps > 0 else {"curvature": np.nan})

    @property
    def _coverage(self) -> Coverage:
        return coverage_of_samples(self.samples, self.width)


@jax.jit
def _read(
    layer: LSE, model: Any, coverage: Coverage, x: jax.Array, eps: jax.Array
) -> dict[str, Any]:
    at = eqx.tree_at(lambda a: a.eps, layer, eps)
    found = gap(at, x)
    radius = jnp.asarray(jnp.nan)
    if isinstance(model, ClassHead) and model.count > 1:
        radius = certified_radius(eqx.tree_at(lambda m: m.head.eps, model, eps), x).radius
    warm = eqx.tree_at(lambda a: a.eps, layer, jnp.where(eps > 0, eps, 1.0))
    return {
        "value": at(x),
        "hard": jnp.max(at.scores(x)),
        "entropy": gibbs_entropy(at.scores(x), eps),
        "curvature": layer_curvature(warm, x).norm,
        "radius": radius,
        "gap": found.gap,
        "score": coverage.energy(x),
    }


@admits()
def explorer(
    model: Any,
    samples: ArrayLike | None = None,
    *,
    shown: ArrayLike | None = None,
    labels: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    title: str = "A soft-maximum layer",
) -> Explorer:
    """What the page needs, checked.

    **Arguments:** `model`: an `LSE`, or a `ClassHead` over one; `samples` (n, d): inputs that the
    extrapolation score measures distance to, by default the layer's atoms `y = W` (t = 1/2); `shown`
    (m, d): inputs to pick from, by default the first 24 samples, with `labels`; `names` of the classes.

    The score's width is the median distance of a sample to the nearest other one, in the inputs' units.

    **Raises:** `ValueError` for a deeper model, samples that do not fit or are not finite, or too much
    for a page.
    """
    head = model.head if isinstance(model, ClassHead) else model
    if not isinstance(head, LSE):
        raise ValueError(
            f"explorer: an LSE, or a ClassHead over one, is needed; found {type(head).__name__}. "
            "A page reads affine layers: give the last layer on its features."
        )
    d = head.W.shape[1]
    cover = np.asarray(head.W if samples is None else samples, float)
    chosen = np.asarray(cover[:SHOWN] if shown is None else shown, float)
    for name, a in (("samples", cover), ("shown", chosen)):
        if a.ndim != 2 or a.shape[1] != d or len(a) == 0:
            raise ValueError(f"explorer: `{name}` of shape (n, {d}) are needed; found {a.shape}.")
        if not np.isfinite(a).all():
            raise ValueError(
                f"explorer: `{name}` must be finite; {int((~np.isfinite(a)).sum())} entries are not."
            )
    size = 8 * (head.W.size + cover.size + chosen.size) * 4 / 3
    if size > MOST:
        raise ValueError(
            f"explorer: atoms, samples and inputs take {size / 1e6:.1f} MB in a page of at most "
            f"{MOST / 1e6:.1f} MB. Give fewer samples or atoms."
        )
    texts = tuple(map(str, labels)) if labels is not None else ("",) * len(chosen)
    if len(texts) != len(chosen):
        raise ValueError(
            f"explorer: a label for each of {len(chosen)} inputs is needed; found {len(texts)}."
        )
    kinds = None if names is None else tuple(map(str, names))
    return Explorer(model, cover, chosen, texts, kinds, title, _width(cover))


def _width(samples: np.ndarray) -> float:
    some = samples[:400]
    square = ((some[:, None] - some[None]) ** 2).sum(-1)
    np.fill_diagonal(square, np.inf)
    near = np.sqrt(square.min(axis=1))
    near = near[np.isfinite(near) & (near > 0)]
    return float(np.median(near)) if len(near) else 1.0


@admits()
def write_explorer(path: str | Path, found: Explorer) -> Path:
    """Write the page to `path`; it appears whole or not at all.

    **Returns:** `path`. **Raises:** `OSError` if the file cannot be written.
    """
    return write_atomically(path, explorer_page(found))


def explorer_page(found: Explorer) -> str:
    """The page as text."""
    room = resources.files("hjcontrol.reporting")
    text = lambda name: room.joinpath(name).read_text(encoding="utf-8")
    style = text("page.css") + text("explorer.css")
    packed = json.dumps(_packed(found), ensure_ascii=True).replace("<", "\\u003c")
    d = found.layer.W.shape[1]
    options = "".join(
        f'<option value="{k}">{k}{": " + escape(label) if label else ""}</option>'
        for k, label in enumerate(found.labels)
    )
    head = HEAD.format(title=escape(found.title), light=COLOURS, dark=DARK, style=style)
    body = text("explorer.html")
    for mark, value in {
        "TITLE": escape(found.title),
        "SIZE": f"{found.layer.b.size} atoms, {d} inputs, eps = {figure(found.layer.eps)} of its own",
        "OPTIONS": options,
        "PLANE": text("explorer_plane.html") if d == 2 else "",
        "TABLES": _tables(found),
        "MODEL": packed,
        "CORE": text("explorer.js"),
        "PAGE": text("explorer_page.js"),
    }.items():
        body = body.replace(f"@{mark}@", value)
    return head + body + "</body>\n</html>\n"


def _packed(found: Explorer) -> dict[str, Any]:
    layer, many = found.layer, isinstance(found.model, ClassHead)
    plain = lambda a: base64.b64encode(np.ascontiguousarray(a, "<f8").tobytes()).decode()
    members = np.asarray(found.model.members) if many else []
    N, d = layer.W.shape
    side = round(d**0.5)
    low, high = found.shown.min(axis=0), found.shown.max(axis=0)
    room = np.where(high > low, 0.15 * (high - low), 1.0)
    return {
        "N": N,
        "d": d,
        "W": plain(layer.W),
        "b": plain(layer.b),
        "eps": float(layer.eps),
        "unit": float(layer.eps) or 1.0,
        "classes": np.asarray(found.model.classes).tolist() if many else None,
        "count": found.model.count if many else 0,
        "names": list(found.names) if found.names else None,
        "D2": plain([float(diameter(layer.W, jnp.asarray(m))) ** 2 for m in members]),
        "samples": plain(found.samples),
        "shown": plain(found.shown),
        "width": found.width,
        "image": d >= 16 and side * side == d,
        "box": [(low - room).tolist(), (high + room).tolist()],
        "tree": _nested(soft_tree(layer)) if N > 1 else 0,
    }


def _nested(tree: SoftTree) -> Any:
    """The tree as pairs of pairs of atoms."""
    sides = np.asarray(tree.sides)
    index = {frozenset(np.flatnonzero(s.any(axis=0)).tolist()): k for k, s in enumerate(sides)}

    def below(atoms: list[int]) -> Any:
        if len(atoms) == 1:
            return atoms[0]
        return [below(np.flatnonzero(side).tolist()) for side in sides[index[frozenset(atoms)]]]

    return below(list(range(sides.shape[2])))


def _tables(found: Explorer) -> str:
    """What Python reads, one row an input and eps."""
    own = float(found.layer.eps) or 1.0
    rows = []
    for k in range(min(len(found.shown), 6)):
        for eps in (t * own for t in TIMES):
            read = found.reading(found.shown[k], eps)
            cells = "".join(f'<td class="number">{figure(read[n], 7)}</td>' for n in TOLD)
            rows.append(f"<tr><td>{k}</td><td>{figure(eps, 4)}</td>{cells}</tr>")
    names = "".join(f"<th>{escape(n)}</th>" for n in ("input", "eps", *TOLD))
    return f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
