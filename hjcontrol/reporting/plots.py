"""Plots: each takes data and returns matplotlib axes. The only file that makes figures.

Figures are made by the object-oriented interface: no global state, no window, no change to the
caller's backend. Pass `ax=` to draw into a figure of your own.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hjcontrol._ground.third_party import needs
from hjcontrol.control import History
from hjcontrol.networks import HeadTable
from hjcontrol.reporting.components import Components

# Okabe and Ito's palette: told apart by the colour-blind; line styles say it once more.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")
INK = "#1b1f24"  # becomes the colour of the text around a picture
ON_LIGHT = "#10131a"  # of letters on a light cell, whatever is around the picture
GRID = {"color": INK, "alpha": 0.15, "linewidth": 0.7}
MANY = 400  # points from which on a scatter is an image, not a shape per point
ROUNDOFF = 1e-17  # what an exact zero is drawn as on a logarithmic scale


def new_axes(width: float = 6.0, height: float = 3.6, columns: int = 1, rows: int = 1) -> Any:
    """Fresh axes on a figure of `width` by `height` inches: one, or an array `(rows, columns)`."""
    needs("A plot", "matplotlib")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with matplotlib.rc_context({"axes.edgecolor": "#8b949e", **ink}):
        axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.tick_params(labelsize=9, colors=INK)
        ax.spines[["top", "right"]].set_visible(False)
    return axes if axes.size > 1 else axes[0, 0]


def svg(axes: Any) -> str:
    """The figure of `axes` as SVG, the same whenever the data are, without a background; its ink is
    the colour of the text around it. Text stays text."""
    import matplotlib

    buffer = io.StringIO()
    style = {"svg.fonttype": "none", "svg.hashsalt": "hjcontrol"}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        # a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        axes.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(f"{INK}|#000000", "currentColor", text[text.index("<svg") :])
    text = re.sub(r"'DejaVu Sans',[^;\"]*?, ?sans-serif", "'DejaVu Sans', sans-serif", text)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)


class Svg(str):
    """A figure that is drawn already, as `svg` gives it."""


def drawn(name: str) -> str:
    """A user's name as matplotlib shows it as it is: a dollar begins no formula, an underscore hides no
    entry of a legend, and what no font can show is a question mark."""
    text = str(name).encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def convergence(
    histories: Mapping[str, History],
    quantity: str,
    ax: Any = None,
    styles: Sequence[int] = (),
    bound: float | None = None,
) -> Any:
    """`objective` or `stationarity` of each solver against its seconds, on logarithmic axes.

    `styles`: a number for each solver, so that it looks the same in several pictures. `bound`: what no
    weights can be below, a line.
    """
    ax = new_axes() if ax is None else ax
    positive = [np.asarray(h.seconds)[np.asarray(h.seconds) > 0] for h in histories.values()]
    first = min((s.min() for s in positive if len(s)), default=1e-3)
    for j, (name, history) in enumerate(histories.items()):
        i = styles[j] if styles else j
        values = np.asarray(getattr(history, quantity), float)
        values = np.where(values > 0, values, np.nan)
        ax.plot(
            np.maximum(history.seconds, first / 2),  # the start, at 0 s, has no logarithm
            values,
            color=LINES[i % len(LINES)],
            linestyle=STYLES[i % len(STYLES)],
            linewidth=1.8 if len(values) <= 200 else 1.1,
            marker="o" if len(values) <= 60 else None,
            markersize=3 if len(values) > 1 else 7,  # a solution without a history is a point
            label=drawn(name),
        )
    if bound is not None and bound > 0:
        ax.axhline(bound, color=INK, linewidth=1.0, linestyle=":", label="no weights are below")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("seconds of solving (compilation excluded)")
    ax.set_ylabel({"objective": "objective J", "stationarity": "max |∂H/∂θ|"}[quantity])
    ax.grid(which="major", **GRID)
    plain_ticks(ax.xaxis)
    if quantity == "objective":
        plain_ticks(ax.yaxis)
    if histories:
        ax.legend(frameon=False, fontsize=9)
    return ax


def plain_ticks(axis: Any) -> None:
    """Decimal numbers where a logarithmic axis spans under two decades: powers of ten would label one
    tick of it, or none."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high / low < 300:  # two decades of data, and their margins
        few = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        axis.set_major_locator(few if high / low < 6 else LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def agreement(per_stage: Mapping[str, ArrayLike], ax: Any = None) -> Any:
    """Heat map of relative disagreement, pair of routes by stage, as powers of ten."""
    rows = [np.asarray(v, float) for v in per_stage.values()]
    length = max(map(len, rows), default=0)
    grid = np.full((len(rows), length), np.nan)
    for row, values in zip(grid, rows, strict=True):
        row[: len(values)] = values
    powers = np.log10(np.maximum(grid, ROUNDOFF))
    if ax is None:
        ax = new_axes(max(6.0, min(3.0 + 0.55 * length, 12.0)), 1.3 + 0.42 * len(per_stage))
    image = ax.imshow(powers, cmap="cividis", vmin=-17, vmax=-3, aspect="auto")
    names = [pair.replace("|", " | ").replace("_", " ") for pair in per_stage]
    ax.set_yticks(range(len(per_stage)), names)
    every = max(1, -(-length // 16))
    ax.set_xticks(range(0, length, every))
    ax.set_xlabel("stage k")
    ax.spines[:].set_visible(False)
    if length <= 24:
        for (i, j), power in np.ndenumerate(powers):
            if np.isfinite(power):
                text = "0" if grid[i, j] == 0 else f"{power:.0f}"
                colour = ON_LIGHT if power > -9 else "white"
                ax.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    bar = ax.figure.colorbar(image, ax=ax, extend="both", ticks=[-15, -12, -9, -6, -3])
    bar.set_label("log10 of relative\ndisagreement", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return ax


def fitted(
    inputs: np.ndarray,
    targets: np.ndarray,
    sides: Sequence[np.ndarray],
    values: Mapping[str, np.ndarray],
) -> Any:
    """Fitted functions over the samples `(n, 1)` or `(n, 2)`: curves, or a square per fit.

    `sides`: where along each feature; `values`: name to the function there, `(m,)` or `(m, m)`.
    """
    flat = {name: np.squeeze(v) for name, v in values.items()}
    if inputs.shape[1] == 1:
        ax = new_axes()
        ax.plot(inputs[:, 0], targets, ".", color=INK, alpha=0.45, markersize=5, label="samples")
        for i, (name, v) in enumerate(flat.items()):
            style = {"color": LINES[i], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.8}
            ax.plot(sides[0], v, label=drawn(name), **style)
        ax.set_xlabel("feature")
        ax.set_ylabel("target")
        ax.legend(frameon=False, fontsize=9)
        return ax
    axes = np.atleast_1d(new_axes(4.2 * len(flat), 3.6, len(flat)))
    low = min(targets.min(), *(v.min() for v in flat.values()))
    high = max(targets.max(), *(v.max() for v in flat.values()))
    image: Any = None
    for ax, (name, v) in zip(axes.flat, flat.items(), strict=True):
        image = ax.contourf(*sides, v.T, levels=np.linspace(low, high, 18), cmap="cividis")
        marks = {"c": targets, "cmap": "cividis", "vmin": low, "vmax": high, "edgecolors": "white"}
        ax.scatter(*inputs.T, s=18, linewidths=0.6, **marks)
        ax.set_title(drawn(name), fontsize=10, color=INK)
        ax.set_xlabel("first feature")
    axes.flat[0].set_ylabel("second feature")
    axes.flat[0].figure.colorbar(image, ax=list(axes.flat)).set_label("target", fontsize=9)
    return axes.flat[0]


def minimum_gaps(exact: ArrayLike, sampled: ArrayLike, allowed: float, ax: Any = None) -> Any:
    """How far each stage's Hamiltonian can be lowered by its own weights: in closed form where there is
    one (else NaN), and by a search. A gap under `allowed` counts as none; zero is drawn at 1e-17,
    infinity near the upper edge."""
    both = np.stack([np.asarray(exact, float), np.asarray(sampled, float)])
    ax = new_axes(6.0, 2.4) if ax is None else ax
    stages = np.arange(both.shape[1])
    known = both[np.isfinite(both)]
    top = max(known.max(initial=0.0), allowed) * 30
    shown = np.clip(both, ROUNDOFF, top)
    labels = ("closed form", "by a search")
    for i, (values, label) in enumerate(zip(shown, labels, strict=True)):
        if np.isnan(values).all():
            continue
        marker, size = "os"[i], 5 - i
        style = {"linestyle": "", "marker": marker, "markersize": size, "color": LINES[i]}
        ax.plot(stages, values, markerfacecolor=LINES[i] if i else "none", label=label, **style)
    ax.axhline(allowed, color="#8b949e", linestyle="--", linewidth=1.0, label="allowed")
    ax.set_yscale("log")
    ax.set_ylim(ROUNDOFF / 3, top * 3)
    ax.set_xlim(-0.5, len(stages) - 0.5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("stage k")
    ax.set_ylabel("H − min H")
    ax.grid(which="major", **GRID)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def ensemble(
    shown: Components,
    labels: np.ndarray | None,
    classes: Sequence[str] = (),
    final_depth: int | None = None,
) -> Any:
    """The ensemble's two principal components at several depths: array of axes, one a depth."""
    columns = min(3, len(shown.depths))
    rows = -(-len(shown.depths) // columns)
    axes = np.atleast_1d(new_axes(3.1 * columns, 2.9 * rows + 0.6, columns, rows))
    for ax in axes.flat[len(shown.depths) :]:
        ax.set_visible(False)
    everything = np.concatenate(shown.points)
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.05 * np.where(high > low, high - low, 1.0)
    colours = None if labels is None else class_colours(len(classes))
    many = sum(map(len, shown.points)) > MANY
    for ax, depth, points in zip(axes.flat, shown.depths, shown.points, strict=False):
        if colours is None:
            ax.scatter(*points.T, s=6, color=LINES[0], linewidths=0, alpha=0.7, rasterized=many)
        else:
            ax.scatter(*points.T, s=6, c=colours[labels], linewidths=0, alpha=0.75, rasterized=many)
        of = "" if final_depth is None else f" of {final_depth}"
        ax.set_title(f"depth {depth}{of}", fontsize=10)
        ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
        ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
    figure = axes.flat[0].figure
    figure.supxlabel(f"first component ({100 * shown.explained[0]:.0f} % of variance)", fontsize=9)
    figure.supylabel(f"second component ({100 * shown.explained[1]:.0f} %)", fontsize=9)
    if colours is not None and 0 < len(classes) <= 20:
        needs("A plot", "matplotlib")
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, label=drawn(name))
            for name, colour in zip(classes, colours, strict=True)
        ]
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=min(10, len(classes)),
            fontsize=9,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.0,
        )
    return axes


def class_colours(count: int) -> np.ndarray:
    """One colour a class, `(count, 4)`."""
    needs("A plot", "matplotlib")
    import matplotlib

    if count <= 10:
        return matplotlib.colormaps["tab10"](np.arange(count))
    return matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count))


def confusion(matrix: np.ndarray, classes: Sequence[str], ax: Any = None) -> Any:
    """Confusion matrix, true class by predicted class; colour is the share of the true class."""
    count = len(classes)
    if ax is None:
        side = min(max(3.4, 1.6 + 0.36 * count), 8.0)
        ax = new_axes(side + 0.5, side)
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.where(totals > 0, totals, 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ax.spines[:].set_visible(False)
    names = [drawn(name if len(name) <= 14 else name[:13] + "…") for name in map(str, classes)]
    every = max(1, -(-count // 25))
    turned = {"rotation": 45, "ha": "right"} if max(map(len, names), default=0) > 3 else {}
    ax.set_xticks(range(0, count, every), names[::every], **turned)
    ax.set_yticks(range(0, count, every), names[::every])
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    if count <= 20:
        for (i, j), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if share[i, j] > 0.55 else ON_LIGHT
                ax.text(j, i, str(value), ha="center", va="center", fontsize=8, color=colour)
    return ax


def heads(table: HeadTable) -> Any:
    """What every head of a network does, block by head: array of four axes, each a heat map.

    `table`: as `hj.networks.head_table` gives it, entries `(blocks, heads)`. Colours, but for entropy's
    share, span the middle nine tenths of the heads: one odd head would leave no contrast to the others.
    """
    shown = (
        ("share", "entropy, share of log k"),
        ("warmth", "temperature over the logits' spread"),
        ("value", "log-sum-exp of a row"),
        ("top", "best key ahead of the second"),
    )
    blocks, count = np.shape(table.share)
    axes = new_axes(max(7.0, 1.6 + 0.86 * count), max(4.4, 1.8 + 0.62 * blocks), 2, 2)
    for ax, (name, title) in zip(axes.flat, shown, strict=True):
        values = np.asarray(getattr(table, name), float)
        low, high = (0.0, 1.0) if name == "share" else np.nanpercentile(values, (5, 95))
        ax.imshow(values, cmap="cividis", aspect="auto", vmin=low, vmax=high)
        ax.set_title(title, fontsize=10)
        ax.set_xticks(range(count))
        ax.set_yticks(range(blocks))
        ax.spines[:].set_visible(False)
        if count <= 16:
            for (i, j), value in np.ndenumerate(values):
                colour = ON_LIGHT if value > (low + high) / 2 else "white"
                text = f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
                ax.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    for ax in axes[-1]:
        ax.set_xlabel("head")
    for ax in axes[:, 0]:
        ax.set_ylabel("block")
    return axes


def adjoint_ladder(ladder: Any, ax: Any = None) -> Any:
    """Gradient error of each adjoint against the tolerance, both logarithmic; the diagonal dotted."""
    ax = new_axes() if ax is None else ax
    names = list(dict.fromkeys(r.adjoint for r in ladder.rungs))
    for i, name in enumerate(names):
        own = [r for r in ladder.rungs if r.adjoint == name]
        ax.plot(
            [r.tol for r in own],
            [r.costate_error for r in own],
            color=LINES[i % len(LINES)],
            linestyle=STYLES[i % len(STYLES)],
            marker="os^Dvx"[i % 6],
            markersize=5,
            linewidth=1.6,
            label=name,
        )
    span = sorted({r.tol for r in ladder.rungs})
    if ladder.accuracy == "tolerance":
        ax.plot(
            span, span, color="#8b949e", linestyle=":", linewidth=1.0, label="error = tolerance"
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.invert_xaxis()
    ax.set_xlabel(ladder.accuracy)
    ax.set_ylabel("relative error of the gradient")
    ax.set_title(ladder.title, fontsize=10)
    ax.grid(which="major", **GRID)
    ax.legend(frameon=False, fontsize=9)
    return ax
