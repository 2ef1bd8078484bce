"""The entropy landscape in pictures: the bifurcation diagram, one landscape, and eps in motion.

Maxima point up, minima down, saddles are crosses; a fold is a ring. Axes are returned;
`animate` writes a GIF.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from hjcontrol._ground.files import write_atomically
from hjcontrol.analysis.bifurcation import Bifurcation
from hjcontrol.deformation import gibbs_entropy
from hjcontrol.reporting.plots import INK, LINES, new_axes, plain_ticks

LOOK = {
    "maximum": ("^", LINES[1], "-"),
    "minimum": ("v", LINES[0], "-"),
    "saddle": ("X", LINES[2], "--"),
}


def diagram(found: Bifurcation, ax: Any = None, *, coordinate: int = 0) -> Any:
    """Every branch over eps: one coordinate of the point, solid for extrema, dashed for saddles."""
    ax = new_axes() if ax is None else ax
    named: set[str] = set()
    for branch in found.branches:
        _, colour, style = LOOK[branch.kind]
        label = None if branch.kind in named else branch.kind
        named.add(branch.kind)
        ax.plot(
            branch.eps,
            branch.points[:, coordinate],
            style,
            color=colour,
            label=label,
            linewidth=1.6,
        )
    for fold in found.folds:
        at = fold.eps, fold.point[coordinate]
        ax.plot(*at, "o", markerfacecolor="none", color=INK, markersize=7)
        ax.annotate(
            f"{fold.eps:.6f}", at, (5, 5), textcoords="offset points", fontsize=7, color=INK
        )
    ax.set_xscale("log")
    ax.set_xlim(*found.eps)
    plain_ticks(ax.xaxis)
    ax.set_ylim(found.window[0][coordinate], found.window[1][coordinate])
    ax.set_xlabel("eps")
    ax.set_ylabel("x" if found.window.shape[1] == 1 else f"x[{coordinate}]")
    ax.legend(frameon=False, fontsize=8)
    return ax


def landscape(
    found: Bifurcation,
    eps: float,
    ax: Any = None,
    *,
    window: np.ndarray | None = None,
    size: int = 121,
) -> Any:
    """The entropy at one `eps` with its critical points: a curve for one input, shades for two."""
    ax = new_axes(4.6, 3.8) if ax is None else ax
    low, high = found.window if window is None else np.asarray(window, float)
    W, b = found.pairs.W, found.pairs.b
    entropy = lambda P: np.asarray(gibbs_entropy(P @ W.T + b, eps))
    points, kinds, _ = found.at(eps)
    inside = np.all((points >= low) & (points <= high), axis=1)
    most = float(np.log(len(b)))
    if len(low) == 1:
        x = np.linspace(low[0], high[0], 4 * size)[:, None]
        ax.plot(x[:, 0], entropy(x), color=INK, linewidth=1.2)
        ax.set_ylim(-0.03 * most, 1.05 * most)
        ax.set_ylabel("entropy H")
        height = entropy(points) if len(points) else np.zeros(0)
        places = np.column_stack([points[:, 0], height])
    else:
        across, up = (np.linspace(a, c, size) for a, c in zip(low, high, strict=True))
        mesh = np.stack(np.meshgrid(across, up), axis=-1)
        heights = entropy(mesh.reshape(-1, 2)).reshape(size, size)
        ax.contourf(
            across, up, heights, levels=np.linspace(0, most, 25), cmap="cividis", extend="both"
        )
        ax.set_ylabel("x[1]")
        places = points
    for kind, (marker, colour, _) in LOOK.items():
        rows = [k for k, name in enumerate(kinds) if name == kind and inside[k]]
        if rows:
            ax.plot(*places[rows].T, marker, color=colour, markeredgecolor="white", markersize=8)
    ax.set_xlim(low[0], high[0])
    if len(low) == 2:
        ax.set_ylim(low[1], high[1])
    ax.set_xlabel("x" if len(low) == 1 else "x[0]")
    shown = [name for name, here in zip(kinds, inside, strict=True) if here]
    n = [shown.count(k) for k in LOOK]
    ax.set_title(f"eps = {eps:.4f}: {n[0]} max, {n[1]} min, {n[2]} saddles in view", fontsize=9)
    return ax


def animate(
    found: Bifurcation,
    path: str | Path,
    *,
    frames: int = 40,
    window: np.ndarray | None = None,
    seconds: float = 8.0,
) -> Path:
    """The landscape as eps grows over the diagram's range, as a GIF; logarithmic steps. Returns the path.

    **Raises:** `ValueError` for fewer than two frames; `OSError` if it cannot be written.
    """
    if frames < 2 or not seconds > 0:
        raise ValueError(
            f"animate: frames >= 2 and seconds > 0 are needed; found {frames}, {seconds}."
        )
    from PIL import Image

    ax = new_axes(4.6, 3.8)
    pictures = []
    for eps in np.geomspace(*found.eps, frames):
        ax.clear()
        landscape(found, float(eps), ax, window=window, size=81)
        buffer = io.BytesIO()
        ax.figure.savefig(buffer, format="png", dpi=80)
        pictures.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    out = io.BytesIO()
    still = int(1000 * seconds / frames)
    pictures[0].save(
        out, "GIF", save_all=True, append_images=pictures[1:], duration=still, loop=0, optimize=True
    )
    return write_atomically(path, out.getvalue())
