r"""The ensemble in its first two principal components, one pair of axes for all depths.

    S = [x_a; x_{a+1}; ...; x_b]  stacked over the depths whose states share the commonest width
    S - mean = U diag(s) V^T,      coordinates at depth k:  (x_k - mean) V[:, :2]

Axes that all depths share show the flow itself; axes per depth would hide drift and rotation.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hjcontrol.control import Trajectory


@dataclass(frozen=True, eq=False)
class Components:
    """`points[j]`, `(n, 2)`, at depth `depths[j]`; `explained`: each axis's share of variance."""

    depths: tuple[int, ...]
    points: tuple[np.ndarray, ...]
    explained: tuple[float, float]


def components(trajectory: Trajectory, panels: int = 6) -> Components | None:
    """Principal components of the states at up to `panels` depths, first and last included.

    `None` if no two depths have vector states of one width, at least two wide.
    """
    states = {k: np.asarray(x) for k, x in enumerate(trajectory) if hasattr(x, "ndim")}
    states = {k: x for k, x in states.items() if x.ndim == 2 and x.shape[1] >= 2}
    widths = Counter(x.shape[1] for x in states.values())
    if not widths or widths.most_common(1)[0][1] < 2:
        return None
    width = widths.most_common(1)[0][0]
    depths = [k for k, x in states.items() if x.shape[1] == width]
    stacked = np.concatenate([states[k] for k in depths])
    if not np.isfinite(stacked).all():
        return None
    mean = stacked.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(stacked, rowvar=False))
    order = np.argsort(variances)[::-1][:2]
    axes = axes[:, order]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(2)])  # a sign that is repeatable
    total = variances.sum()
    explained = variances[order] / total if total > 0 else np.zeros(2)
    spread = np.linspace(0, len(depths) - 1, panels).round().astype(int)
    chosen = [depths[i] for i in np.unique(spread)]
    return Components(
        tuple(chosen),
        tuple((states[k] - mean) @ axes for k in chosen),
        (float(explained[0]), float(explained[1])),
    )
