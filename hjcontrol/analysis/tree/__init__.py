"""A network as an exact tree of affine leaves, hard at eps = 0 and soft above it."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.analysis.tree.agreeing import Agreement, agreement
from hjcontrol.analysis.tree.distilled import distilled_tree
from hjcontrol.analysis.tree.model_trees import ModelTree, model_tree
from hjcontrol.analysis.tree.piecewise import AffineBlock, PiecewiseAffine, piecewise_affine
from hjcontrol.analysis.tree.soft import SoftTree, soft_tree

__all__ = [
    "AffineBlock",
    "Agreement",
    "ModelTree",
    "PiecewiseAffine",
    "SoftTree",
    "agreement",
    "distilled_tree",
    "model_tree",
    "piecewise_affine",
    "soft_tree",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {"Block": ":AffineBlock"}
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)
