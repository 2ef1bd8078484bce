r"""All critical points of the entropy in a window, with a certificate.

    #max - #min = 1  (d = 1)        #max + #min - #saddle = 1  (d = 2)      on all of space, any eps > 0

The window's list is proved complete by subdivision (`enclosure`). The index identity is a second,
independent check: it holds once the window contains every critical point. The identity is Hopf's: grad H
points inwards far out, where two neighbouring atoms of the hull are left and H falls along every
ray in the end.
"""

import numpy as np
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol._ground.record import Record, Told, figure
from hjcontrol._ground.shown import Shown
from hjcontrol.analysis.bifurcation.enclosure import enclose
from hjcontrol.analysis.bifurcation.pairs import Pairs, kind, pairs_of
from hjcontrol.layers import LSE
from hjcontrol.networks.trained import AnyHead, affine_head_of


class CriticalPoints(Told, Shown):
    """Critical points (m, d) in `window` (2, d), their kinds, and what is known of the list."""

    eps: float
    window: np.ndarray
    points: np.ndarray
    kinds: tuple[str, ...]
    open_boxes: np.ndarray  # (r, 2, d): centre and half-widths of boxes not settled
    boxes: int

    @property
    def certified(self) -> bool:
        """Whether the list is proved complete in the window, each point existing and alone."""
        return len(self.open_boxes) == 0

    @property
    def index(self) -> int:
        """`#max - #min` on a line, `#max + #min - #saddle` in the plane; 1 if none lies outside."""
        n = [self.kinds.count(k) for k in ("maximum", "minimum", "saddle")]
        return n[0] - n[1] if self.window.shape[1] == 1 else n[0] + n[1] - n[2]

    def as_record(self) -> Record:
        """What this result says of itself."""
        n = [self.kinds.count(k) for k in ("maximum", "minimum", "saddle")]
        low, high = ([round(float(v), 3) for v in corner] for corner in self.window)
        is_open = (
            f"NOT proved complete: {len(self.open_boxes)} of {self.boxes} boxes are open; "
            "a fold is near, or the window needs more boxes"
        )
        proved = f"complete: proved by {self.boxes} boxes"
        where = {} if self.certified else {"first open box": str(self.open_boxes[0, 0])}
        kinds = zip(self.kinds, self.points, strict=False)
        return Record(
            f"Critical points of the entropy at eps = {figure(self.eps, 6)}",
            proved if self.certified else is_open,
            verdict="complete" if self.certified else "not proved complete",
            tone="good" if self.certified else "partial",
            facts={
                "window": f"{low} .. {high}",
                "found": f"{n[0]} maxima, {n[1]} minima, {n[2]} saddles",
                "index": f"{self.index} (1: none outside)"
                if self.index == 1
                else f"{self.index} (not 1: some lie outside)",
            }
            | where,
            rows={"": [{"kind": k, "point": np.array2string(x, precision=6)} for k, x in kinds]},
        )


@admits(most_boxes=">= 1")
def critical_points(
    layer: AnyHead, window: ArrayLike | None = None, *, most_boxes: int = 400_000
) -> CriticalPoints:
    """All critical points of the layer's entropy in `window` (2, d): lower and upper corner; d is 1 or 2.

    `window=None` starts from the atoms' spread and doubles until the index identity holds, at most
    five times. In more dimensions look at a plane: `on_plane`. Solved on the host in float64.

    **Raises:** `ValueError` for `eps = 0`, d > 2, fewer than two different atoms, a window of another
    shape or empty, traced weights.
    """
    layer = affine_head_of("critical_points", layer)
    pairs = table("critical_points", layer)
    eps = float(layer.eps)
    if not eps > 0:
        raise ValueError("critical_points: eps > 0 is needed; found 0, where the entropy is flat.")
    if window is not None:
        return search(pairs, eps, as_window("critical_points", pairs, window), most_boxes)
    box = first_window(pairs)
    found = search(pairs, eps, box, most_boxes)
    for _ in range(5):
        if found.index == 1:
            break
        box = box.mean(axis=0) + 2 * (box - box.mean(axis=0))
        found = search(pairs, eps, box, most_boxes)
    return found


def search(
    pairs: Pairs, eps: float, window: np.ndarray, most_boxes: int = 400_000
) -> CriticalPoints:
    """The certified list for a table of pairs."""
    found = enclose(pairs, eps, window, most_boxes=most_boxes)
    kinds = tuple(kind(pairs, x, float(np.log(eps))) for x in found.points)
    return CriticalPoints(eps, window, found.points, kinds, found.open, found.boxes)


@admits()
def on_plane(layer: AnyHead, origin: ArrayLike, directions: ArrayLike) -> LSE:
    """The layer on the flat `origin + directions^T a` with coordinates `a`: `directions` is (1 or 2, d).

    Its critical points are those of the restriction, where only the gradient along the flat vanishes.
    """
    layer = affine_head_of("on_plane", layer)
    origin, directions = np.asarray(origin, float), np.atleast_2d(np.asarray(directions, float))
    if directions.shape[1:] != layer.W.shape[1:] or origin.shape != layer.W.shape[1:]:
        raise ValueError(
            f"on_plane: an origin (d,) and directions (k, d) with d = {layer.W.shape[1]} are needed; "
            f"found {origin.shape} and {directions.shape}."
        )
    return LSE(layer.W @ directions.T, layer.W @ origin + layer.b, layer.eps)


def table(who: str, layer: LSE) -> Pairs:
    """The pairs of a layer whose landscape can be searched."""
    W, b = known(layer.W), known(layer.b)
    if W is None or b is None:
        raise ValueError(f"{who}: solved on the host: call outside `jit`.")
    W, b = W.astype(float), b.astype(float)
    if not (np.isfinite(W).all() and np.isfinite(b).all()):
        raise ValueError(f"{who}: finite weights are needed; found NaN or inf.")
    d = W.shape[1]
    if d > 2:
        raise ValueError(
            f"{who}: dimension 1 or 2 is searched; found {d}. Restrict the layer with `on_plane`."
        )
    rank = int(np.linalg.matrix_rank(W - W[0]))
    if rank < d:
        raise ValueError(
            f"{who}: atoms that span dimension {d} are needed; found {len(b)} spanning {rank}. The "
            "entropy is constant along the rest: use `on_plane`."
        )
    return pairs_of(W, b)


def as_window(who: str, pairs: Pairs, window: ArrayLike) -> np.ndarray:
    """`window` as a float array (2, d) with lower < upper."""
    box = np.asarray(window, float)
    want = (2, pairs.W.shape[1])
    if box.shape != want or not (box[0] < box[1]).all() or not np.isfinite(box).all():
        raise ValueError(
            f"{who}: a window of shape {want}, lower < upper, is needed; found {box.tolist()}."
        )
    return box


def first_window(pairs: Pairs) -> np.ndarray:
    """A box about the centre of the hot landscape that holds the nearest point of most bisectors."""
    w = pairs.W - pairs.W.mean(axis=0)
    centre = -np.linalg.solve(w.T @ w, w.T @ pairs.b)
    length = np.linalg.norm(pairs.slope, axis=1)
    apart = length > 0
    height = pairs.slope[apart] @ centre + pairs.offset[apart]
    reach = 2 * np.quantile(np.abs(height) / length[apart], 0.9)
    reach = max(reach, 1e-3 * (1 + np.abs(centre).max()))
    return np.stack([centre - reach, centre + reach])
