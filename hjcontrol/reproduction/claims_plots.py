"""The claims' pictures: curves that a claim's check left, drawn."""

from pathlib import Path
from typing import Any

from hjcontrol._ground.third_party import needs
from hjcontrol.reporting.plots import INK, LINES, STYLES, new_axes


def claim_curves(picture: Any, ax: Any = None) -> Any:
    """Lines of `picture` (caption, labels, `lines`: name to `(x, y)`), few points with markers."""
    ax = new_axes(5.6, 3.3) if ax is None else ax
    for k, (name, (x, y)) in enumerate(picture.lines.items()):
        ax.plot(
            x, y, STYLES[k // len(LINES) % len(STYLES)], color=LINES[k % len(LINES)], label=name,
            linewidth=1.5, marker="o" if len(x) <= 20 else None, markersize=3.5,
        )  # fmt: skip
    ax.set_xlabel(picture.x_label, color=INK)
    ax.set_ylabel(picture.y_label, color=INK)
    if picture.x_log:
        ax.set_xscale("log")
    if picture.y_log:
        ax.set_yscale("log")
    if len(picture.lines) > 1:
        ax.legend(frameon=False, fontsize=8)
    return ax


def save_svg(ax: Any, path: Path) -> Path:
    """The figure of `ax` as a small SVG that is the same whenever the data are."""
    needs("A plot", "matplotlib")
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "claims", "svg.fonttype": "none"}):
        ax.figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path
