"""How far can the output move? Constants, curvature, certified radii at any depth, attacks."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.analysis.robustness.affine import (
    Change,
    Curvature,
    Radius,
    certified_radius,
    change,
    diameter,
    layer_curvature,
    lipschitz,
)
from hjcontrol.analysis.robustness.ascent import Attack, attack
from hjcontrol.analysis.robustness.deep import (
    DeepRadius,
    OutputBounds,
    attacked_radius,
    output_bounds,
    value_radius,
)
from hjcontrol.analysis.robustness.splitting import BoxMargin, box_margin

__all__ = [
    "Attack",
    "BoxMargin",
    "Change",
    "Curvature",
    "DeepRadius",
    "OutputBounds",
    "Radius",
    "attack",
    "attacked_radius",
    "box_margin",
    "certified_radius",
    "change",
    "diameter",
    "layer_curvature",
    "lipschitz",
    "output_bounds",
    "value_radius",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {"certify": ":certified_radius", "curvature": ":layer_curvature"}
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)
