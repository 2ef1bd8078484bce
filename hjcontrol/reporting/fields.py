r"""Pictures of a solution `u(., t)`: values, gradient, the atoms' power cells, characteristics.

    cell of atom j = where g_j + |x - y_j|^2/(4t) is least      characteristic: from y_j straight to x

On the characteristic `x - y_j = 2t p`, so the gradient inside a cell (eps = 0) is `p = (x - y_j)/(2t)`.
Each plot takes a `View` and returns axes, like those of `plots.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hjcontrol._ground.third_party import needs
from hjcontrol.reporting.plots import INK, LINES, ON_LIGHT, drawn, new_axes

EDGE = 0.9  # a point whose winner has at most this share of the Gibbs weight is drawn as undecided


@dataclass(frozen=True, eq=False)
class View:
    """Fields sampled on a line `(m,)` or a square `(m, m)` through the origin, `side` along each axis.

    `winner` is the atom with the largest score, `share` its Gibbs weight. `atoms`, shape `(N, d)`, only
    where the view is the whole space (d = 1 or 2); a slice of more dimensions has `None`.
    """

    side: np.ndarray
    u: np.ndarray
    gradient: np.ndarray
    winner: np.ndarray
    share: np.ndarray
    atoms: np.ndarray | None
    values: np.ndarray
    axes: tuple[str, ...]
    t: float
    eps: float

    @property
    def dimension(self) -> int:
        """One for a line, two for a square."""
        return self.u.ndim

    @property
    def winners(self) -> int:
        """How many atoms win somewhere in the view."""
        return len(np.unique(self.winner))


def solution(view: View, ax: Any = None) -> Any:
    """`u`, as a curve over the cells or as contours."""
    if view.dimension == 1:
        ax = new_axes(6.0, 3.4) if ax is None else ax
        _shade(view, ax)
        ax.plot(view.side, view.u, color=LINES[0], linewidth=1.8)
        ax.set_xlabel(drawn(view.axes[0]))
        ax.set_ylabel(f"u(x, {view.t:g})")
        return ax
    ax = _square(view, ax)
    filled = ax.contourf(view.side, view.side, view.u.T, levels=24, cmap="cividis")
    ax.contour(view.side, view.side, view.u.T, levels=12, colors="white", linewidths=0.4)
    bar = ax.figure.colorbar(filled, ax=ax)
    bar.set_label(f"u(x, {view.t:g})", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return ax


def gradient(view: View, ax: Any = None) -> Any:
    """`grad u`: a curve that jumps at shocks as eps falls, or arrows over its length."""
    if view.dimension == 1:
        ax = new_axes(6.0, 3.4) if ax is None else ax
        _shade(view, ax)
        ax.plot(view.side, view.gradient[:, 0], color=LINES[1], linewidth=1.8)
        ax.set_xlabel(drawn(view.axes[0]))
        ax.set_ylabel("∂u/∂x")
        return ax
    ax = _square(view, ax)
    size = np.linalg.norm(view.gradient, axis=-1)
    image = ax.pcolormesh(view.side, view.side, size.T, cmap="cividis", rasterized=True)
    every = max(1, len(view.side) // 15)
    s, p = view.side[::every], view.gradient[::every, ::every]
    arrows = {"color": "white", "edgecolor": ON_LIGHT, "linewidth": 0.4, "width": 0.005}
    ax.quiver(s, s, p[..., 0].T, p[..., 1].T, **arrows)
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("length of ∇u", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return ax


def cells(view: View, ax: Any = None) -> Any:
    """Power cells of the atoms; pale where, at this eps, no atom has nearly all of the Gibbs weight."""
    colour = _colours(view)[np.searchsorted(np.unique(view.winner), view.winner)]
    paleness = np.where(view.share > EDGE, 0.0, 0.55)[..., None]
    colour = colour * (1 - paleness) + paleness
    if view.dimension == 1:
        ax = new_axes(6.0, 1.6) if ax is None else ax
        extent = (view.side[0], view.side[-1], 0.0, 1.0)
        ax.imshow(colour[None], aspect="auto", extent=extent, interpolation="nearest")
        ax.set_yticks([])
        ax.set_xlabel(drawn(view.axes[0]))
    else:
        ax = _square(view, ax)
        extent = (view.side[0], view.side[-1]) * 2
        ax.imshow(colour.swapaxes(0, 1), origin="lower", extent=extent, interpolation="nearest")
    return ax


def characteristics(view: View, ax: Any = None) -> Any:
    """Straight lines from the atoms to where they win at time t. In one dimension, time goes upwards.

    **Raises:** `ValueError` for a slice, in which the lines do not lie.
    """
    if view.atoms is None:
        raise ValueError(
            "characteristics: the view is a slice of more than two dimensions; the lines leave it."
        )
    ranks = np.searchsorted(np.unique(view.winner), view.winner)
    colour = _colours(view)
    if view.dimension == 1:
        ax = new_axes(6.0, 3.4) if ax is None else ax
        every = max(1, len(view.side) // 60)
        for x, j, k in zip(view.side[::every], view.winner[::every], ranks[::every], strict=True):
            ax.plot([view.atoms[j, 0], x], [0, view.t], color=colour[k], linewidth=0.7)
        ax.set_ylim(0, view.t)
        ax.set_xlabel(drawn(view.axes[0]))
        ax.set_ylabel("time")
        return ax
    ax = _square(view, ax)
    every = max(1, len(view.side) // 24)
    grid = np.stack(np.meshgrid(view.side, view.side, indexing="ij"), axis=-1)[::every, ::every]
    won, rank = view.winner[::every, ::every], ranks[::every, ::every]
    for x, j, k in zip(grid.reshape(-1, 2), won.ravel(), rank.ravel(), strict=True):
        ax.plot(
            *np.stack([view.atoms[j], x]).T,
            color=colour[k],
            linewidth=0.6,
            alpha=0.8,
            rasterized=True,
        )
    seen = view.atoms[np.unique(view.winner)]
    ax.scatter(*seen.T, s=26, color=INK, zorder=3, label="atoms that win here")
    reach = 1.05 * max(np.abs(seen).max(), view.side[-1])
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    box = view.side[[0, -1, -1, 0, 0]], view.side[[0, 0, -1, -1, 0]]
    ax.plot(*box, color=INK, linewidth=1.2, linestyle=":", label="window", zorder=4)
    ax.legend(frameon=False, fontsize=8)
    return ax


def _square(view: View, ax: Any) -> Any:
    ax = new_axes(5.2, 4.4) if ax is None else ax
    ax.set_aspect("equal")
    ax.set_xlabel(drawn(view.axes[0]))
    ax.set_ylabel(drawn(view.axes[1]))
    return ax


def _shade(view: View, ax: Any) -> None:
    """A thin line wherever the winner changes."""
    for k in np.flatnonzero(np.diff(view.winner)):
        ax.axvline(
            (view.side[k] + view.side[k + 1]) / 2, color=INK, alpha=0.15, linewidth=0.8, zorder=0
        )


def _colours(view: View) -> np.ndarray:
    """One colour a winning atom, `(winners, 3)`, in order of the atoms' numbers."""
    needs("A plot", "matplotlib")
    import matplotlib

    count = view.winners
    if count <= 10:
        return matplotlib.colormaps["tab10"](np.arange(count))[:, :3]
    return matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count))[:, :3]
